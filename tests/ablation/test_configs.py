"""Every spec that is shipped can be expanded, and its cells fit together."""

import os
import pathlib

import pytest

from tl_jax import ablation

DATA = os.environ.get("TL_JAX_DATA")
SPECS = sorted(pathlib.Path("configs/ablations").glob("*.py"))


@pytest.mark.parametrize("path", SPECS, ids=[path.stem for path in SPECS])
def test_a_shipped_spec(path):
    needs_photos = "Needs: flowers128.zip" in path.read_text()
    if needs_photos and DATA is None:
        pytest.skip("TL_JAX_DATA names no folder of data")
    spec = ablation.load_spec(path, (f"data.data_dir={DATA}",) if needs_photos else ())
    rows = ablation.look_ahead(spec).cells
    trials = sum(len(spec.trials(name)) for name in spec.variants)
    assert len(rows) == trials * len(spec.labelled) * len(spec.seeds) > 1
    text = path.read_text()
    command = f"python -m experiments.ablate --spec={path.as_posix()}"
    assert command in text and f"--workdir=runs/{path.stem}" in text
