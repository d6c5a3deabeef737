"""Classic classifiers on the features of a frozen network (`experiments.routes`), recorded as one table a data set.

    python -m benchmarks.routes --data_dir=DIR [--flowers=FILE.zip] [--out=FILE] [--set routes.jobs=2 ...]

CIFAR-10 with 20,000 training images, at the features of the packaged ResNet-20; and, where a zip of
FOLDER/CLASS/IMAGE is named, these flowers at 32 px with the same network, a fifth of each class as test. Each data
set is one command in a separate process; activations are computed by it, and the seconds of each route are those of
its search, its last fit and its prediction of test. Beside them: the same network fine-tuned in full on the same
images, but for a tenth that is held out, as the method of configs/cifar10_compare.py.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import record

_CONFIG = "configs/cifar10_linear_probe.py"
_FINETUNE = "configs/cifar10_compare.py"
_FINETUNED = ("data.examples_per_class=0", "report.html=false", "report.tensorboard=false")
# Of what a run says, what a table shows.
_KEPT = ("routes", "finetuned", "selection", "train_examples", "splits")


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="of tfds, with CIFAR-10")
    parser.add_argument(
        "--flowers", type=pathlib.Path, help="a zip of images, a folder for each class"
    )
    parser.add_argument(
        "--train_split", default="train[:20000]", help="of CIFAR-10, in tfds notation"
    )
    parser.add_argument("--set", nargs="*", default=[], help="FIELD=VALUE of both configs")
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    with tempfile.TemporaryDirectory(prefix="tl_jax-routes-") as scratch:
        recording.write(measure(args, pathlib.Path(scratch)))


def measure(args: argparse.Namespace, scratch: pathlib.Path) -> dict[str, Any]:
    """Returns {"data": {name: the routes}}."""
    cifar = [f"data.data_dir={args.data_dir}", f"data.train_split={args.train_split}"]
    data = {"cifar10": routes(scratch / "cifar10", [*cifar, *args.set])}
    if args.flowers is not None:
        fields = [
            f"data.name=folder:{args.flowers.absolute()}",
            "data.image_size=32",
            *args.set,
        ]
        data["flowers"] = routes(scratch / "flowers_routes", fields)
    return {"config": _CONFIG, "finetuned": _FINETUNE, "data": data}


def routes(workdir: pathlib.Path, fields: list[str]) -> dict[str, Any]:
    """Returns what the command says of its routes and of the fine-tuned network, and its seconds."""
    finetuned = workdir.with_name(f"{workdir.name}_finetuned")
    run("finetune", _FINETUNE, finetuned, [*_FINETUNED, *fields])
    beside = [f"cache.dir={workdir}-activations", f"routes.finetuned={finetuned}"]
    began = time.perf_counter()
    run("routes", _CONFIG, workdir, [*beside, *fields])
    seconds = time.perf_counter() - began
    result = json.loads((workdir / "result.json").read_text())
    result["finetuned"].pop("run")  # a folder of this machine
    return {**{name: result[name] for name in _KEPT}, "command_seconds": seconds}


def run(command: str, config: str, workdir: pathlib.Path, fields: list[str]) -> None:
    """Runs one of `experiments`.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    subprocess.run(
        [
            *(sys.executable, "-m", f"experiments.{command}"),
            *(f"--config={config}", f"--workdir={workdir}"),
            *(f"--config.{field}" for field in fields),
        ],
        cwd=record.REPOSITORY,
        check=True,
        stdout=sys.stderr,
    )


if __name__ == "__main__":
    main()
