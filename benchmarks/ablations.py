"""What an ablation is worth: its time against runs one by one, what survives SIGKILL, what its intervals hold.

    python -m benchmarks.ablations [--only=cells,killed,simulated] [--seeds=10] [--out=ablations.json]

"cells" trains the same 60 cells (a linear probe of handwritten digits, two kinds of label smoothing, three learning
rates, ten seeds) as ordinary runs one after the other in one process, and as an ablation, each in a process of its
own that finds no activations, and compares every cell. "killed" runs the ablation from the command line, kills it
with SIGKILL at a quarter, a half and three quarters of its cells, lets it end, and compares the tables with those of
one that was left alone. "simulated" draws runs whose truth is known: how often intervals hold it, and how often
nothing is called a difference. No accuracy of the 60 cells means anything: they are there to be counted.
"""

import argparse
import collections
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import ml_collections
import numpy as np

from benchmarks import record
from tl_jax import statistics

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PARTS = ("cells", "killed", "simulated")
VARIANTS = {
    "plain": ("objective.label_smoothing=0.05",),
    "smooth": ("objective.label_smoothing=0.1",),
}
RATES = (0.03, 0.1, 0.3)
LIMIT_SECONDS = 1800
# At these shares of all cells.
KILLS = (0.25, 0.5, 0.75)
SPEC = """
from benchmarks import ablations

def get_spec():
    return ablations.spec({seeds}, {activations!r})
"""


def spec(seeds: int, activations: str) -> Any:
    """Returns the ablation: 6 cells for each seed, with activations in a folder."""
    import tl_jax
    from tl_jax.ablation import Spec

    base = tl_jax.load_config(REPOSITORY / "configs" / "quickstart.py")
    base.compare = ml_collections.ConfigDict(tl_jax.default_config().compare)
    base.augment.crop_padding, base.augment.flip = 0, False
    base.data.validation_fraction = 0.2
    base.freeze.strategy, base.cache.boundary, base.cache.dir = "backbone", "auto", activations
    base.train.epochs, base.train.steps, base.train.eval_every_epochs = 0.0, 300, 0.0
    base.train.eval_every_steps = 100
    base.report.html = base.report.tensorboard = False
    base.parallel.devices = 1
    return Spec(base, VARIANTS, range(seeds), tune={"optim.learning_rate": RATES})


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--seeds", type=int, default=10, help="of the cells, 6 for each")
    parser.add_argument("--child", choices=("one_by_one", "ablation"), help=argparse.SUPPRESS)
    parser.add_argument("--workdir", type=pathlib.Path, help=argparse.SUPPRESS)
    record.add_arguments(parser)
    args = parser.parse_args()
    if args.child:
        (_one_by_one if args.child == "one_by_one" else _ablation)(args.seeds, args.workdir)
        return
    recording = record.Recording(parser, args)
    parts = {"cells": cells, "killed": killed, "simulated": lambda seeds: simulated()}
    recording.write({name: parts[name](args.seeds) for name in args.only.split(",")})


def cells(seeds: int) -> dict[str, Any]:
    """Returns the seconds of both ways, and how far the cells are apart."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="tl_jax-ablations-") as scratch:
        folder = pathlib.Path(scratch)
        for kind in ("one_by_one", "ablation"):
            command = [sys.executable, "-m", "benchmarks.ablations", f"--child={kind}"]
            command += [f"--seeds={seeds}", f"--workdir={folder / kind}"]
            began = time.perf_counter()
            _finished(command)
            seconds[kind] = round(time.perf_counter() - began, 1)
            print(f"{kind}: {seconds[kind]} s", file=sys.stderr, flush=True)
        return {"seconds": seconds, **_compared(folder, seeds)}


def _one_by_one(seeds: int, workdir: pathlib.Path) -> None:
    from tl_jax.ablation.cells import expand
    from tl_jax.runs import training

    for cell in expand(spec(seeds, str(workdir / "activations"))):
        training.run(cell.config, workdir / cell.name)


def _ablation(seeds: int, workdir: pathlib.Path) -> None:
    from tl_jax import ablation

    ablation.run(spec(seeds, str(workdir.with_name("activations"))), workdir)


def _compared(folder: pathlib.Path, seeds: int) -> dict[str, Any]:
    """Returns how far apart the cells of both ways are: on validation, and on test where it was read."""
    from tl_jax.ablation.cells import expand

    made = expand(spec(seeds, ""))  # which counts nothing
    furthest: dict[str, float] = collections.defaultdict(float)
    same, opened, together = 0, 0, set()
    for cell in made:
        one, other = (folder / kind / cell.name for kind in ("one_by_one", "ablation/cells"))
        expected = json.loads((one / "result.json").read_text())
        result = other / "result.json"
        found = json.loads((other / "sealed.json").read_text())
        together.add(found["dispatch"].get("together", 1))
        if result.is_file():
            opened += 1
            found["splits"] |= {"test": json.loads(result.read_text())["splits"]["test"]}
        differences = {
            f"{split}_{name}": abs(of[name] - expected["splits"][split][name])
            for split, of in found["splits"].items()
            for name in ("loss", "top1_accuracy")
        }
        same += not any(differences.values())
        for name, difference in differences.items():
            furthest[name] = max(furthest[name], difference)
    return {
        "cells": len(made),
        "opened": opened,
        "in_one_program": sorted(together),
        "same_to_the_bit": same,
        "largest_difference": dict(furthest),
    }


def killed(seeds: int) -> dict[str, Any]:
    """Returns at how many trained cells it was killed, and whether the tables are those of one that was not."""
    with tempfile.TemporaryDirectory(prefix="tl_jax-ablations-") as scratch:
        folder = pathlib.Path(scratch)
        (folder / "spec.py").write_text(
            SPEC.format(seeds=seeds, activations=str(folder / "activations"))
        )
        whole, again = folder / "whole", folder / "again"
        _finished(_command(folder, whole))
        count = len(json.loads((whole / "ablation.json").read_text())["runs"])
        at = [_killed_at(_command(folder, again), again, int(share * count)) for share in KILLS]
        _finished(_command(folder, again))
        contents = [_without_times(run) for run in (whole, again)]
        opened = (again / "test_log.jsonl").read_text().splitlines()
        return {
            "cells": count,
            "killed_at": at,
            "same_tables": contents[0] == contents[1],
            "test_readings": len(opened),
            "read_once": len({json.loads(line)["cell"] for line in opened}) == len(opened),
        }


def _command(folder: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    command = [sys.executable, "-m", "experiments.ablate", f"--spec={folder / 'spec.py'}"]
    return [*command, f"--workdir={workdir}"]


def _killed_at(command: list[str], workdir: pathlib.Path, cells: int) -> int:
    """Runs a command until so many cells are trained, kills it, and returns how many were trained then."""
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        while len(trained := list(workdir.glob("cells/**/sealed.json"))) < cells:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ended before {cells} cells were trained: {command}")
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    return len(trained)


def _without_times(workdir: pathlib.Path) -> tuple[Any, str]:
    """Returns all that an ablation says of its runs but what they took, to the bit."""
    content = json.loads((workdir / "ablation.json").read_text())
    for row in content["runs"]:
        del row["seconds"], row["together"]
    return content, (workdir / "ablation.tex").read_text()


def _finished(command: list[str]) -> None:
    subprocess.run(
        command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT_SECONDS
    )


def simulated(draws: int = 20_000, specs: int = 200) -> dict[str, Any]:
    """Returns how often intervals hold the truth, and how often specs of nothing but noise are marked.

    Runs have accuracies of their own (normal, one point of standard deviation) on 500 images, in pairs that share a
    part of it.
    """
    random = np.random.default_rng(0)
    coverage = {}
    for count in (3, 5, 10):
        held: dict[str, int] = collections.Counter()
        for _ in range(draws):
            shared = random.normal(0, 0.01, count)
            own = random.normal(0, 0.01, (2, count))
            rates = np.array([[0.8], [0.83]]) + shared + own
            accuracies = random.binomial(500, rates) / 500
            by_seed = [dict(enumerate(of.tolist())) for of in accuracies]
            low, high = _interval(statistics.mean_over_seeds([*by_seed[0].values()]))
            held["mean"] += low <= 0.8 <= high
            low, high = _interval(statistics.paired_difference(by_seed[1], by_seed[0]))
            held["paired difference"] += low <= 0.03 <= high
        coverage[str(count)] = {name: held[name] / draws for name in held}
    images = 0
    for draw in range(draws // 10):
        correct, other = random.random((2, 500)) < np.array([[0.83], [0.8]])
        _, (low, high) = statistics.bootstrap_difference(correct, other, 1000, seed=draw)
        images += low <= 0.03 <= high
    marked = sum(
        _p(random.normal(0.8, 0.01, 10), random.normal(0.8, 0.01, 10)) < 0.05 for _ in range(specs)
    )
    return {
        "nominal": statistics.LEVEL,
        "draws": draws,
        "coverage_by_seeds": coverage,
        "bootstrap_over_images": {"draws": draws // 10, "coverage": images / (draws // 10)},
        "null_specs": {"specs": specs, "seeds": 10, "level": 0.05, "marked": int(marked)},
    }


def _interval(estimate: Any) -> tuple[float, float]:
    assert estimate.interval is not None
    return estimate.interval


def _p(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the p-value with which an ablation would mark the difference of two variants."""
    from tl_jax.ablation import analysis

    rows = [
        {
            "variant": name,
            "shots": 0,
            "trial": 0,
            "seed": seed,
            "status": "finished",
            "validation": float(value),
            "test": float(value),
        }
        for name, values in (("one", one), ("other", other))
        for seed, value in enumerate(values)
    ]
    made = _two_names(len(one))
    summary = analysis.summarise(made, rows, analysis.choose(made, rows), "test")
    return summary[1]["difference"]["p"]


def _two_names(seeds: int) -> Any:
    import tl_jax
    from tl_jax.ablation import Spec

    return Spec(tl_jax.default_config(), {"one": (), "other": ()}, range(seeds))


if __name__ == "__main__":
    main()
