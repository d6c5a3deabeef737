"""The recorded cells of the quickstart come out again."""

import importlib.metadata
import json
import pathlib

import pytest

from tl_jax.config import load as load_config
from tl_jax.runs import compare, training

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RECORD = json.loads((ROOT / "results" / "quickstart.json").read_text())
CELLS = [run for run in RECORD["runs"] if run["method"] == "linear_probe"][:2]


def same_version(package: str) -> bool:
    return RECORD["versions"][package] == importlib.metadata.version(package)


@pytest.mark.parametrize("recorded", CELLS, ids=lambda run: f"{run['method']}-{run['seed']}")
def test_a_cell_comes_out_again(recorded, tmp_path):
    """Linear probes, which take seconds; whatever the config and the record are at the moment."""
    config = load_config(ROOT / "configs" / "quickstart.py")
    config.report.html = config.report.tensorboard = False
    config.data.cache_dir = config.cache.dir = ""
    config.parallel.devices = RECORD["device"]["count"]
    cell = compare.cell_config(config, recorded["method"], recorded["seed"])
    found = training.run(cell, tmp_path / "run")["splits"]["test"]
    # Another version of JAX rounds otherwise: two images may fall on the other side.
    images = 0 if same_version("jax") and same_version("jaxlib") else 2
    difference = found["top1_accuracy"] - recorded["top1_accuracy"]
    assert abs(difference) * found["examples"] <= images + 1e-6
