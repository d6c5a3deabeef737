"""A linear probe end to end: features computed once, images at every epoch, and PyTorch both ways.

    python -m benchmarks.linear_probe --data_dir=DIR [--out=FILE] [--config=configs/cifar10_linear_probe.py]
        [--epochs=10] [--long_epochs=100] [--torch_epochs=10] [--train_split='train[:10%]'] [--set train.seed=1 ...]

Every run is a command in a separate process, timed from its start to its end, imports, loading and the
report included. Decoded images and the uncached programs are there before; stored features, and the programs
of the first run on them, are not. Runs, in this order:

- uncached, `epochs`;
- cached, `epochs`, features computed now; then the same again, features found;
- cached, `long_epochs`, features computed now. The same uncached is not run: its time is that of the uncached
  run with its time per epoch, measured between the first and last evaluation, for every further epoch;
- cached with `cache.verify=20`;
- PyTorch (where it is installed) as its tutorial writes it, `torch_epochs`, extrapolated likewise;
- PyTorch with the features extracted once, `epochs` and `long_epochs`, both run (benchmarks/linear_probe_torch.py).

Both sides get the same images, batch size, optimizer, schedule and evaluation.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import record


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/cifar10_linear_probe.py")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--long_epochs", type=int, default=100)
    parser.add_argument(
        "--torch_epochs", type=int, default=10, help="of the tutorial's loop; 0: no PyTorch at all"
    )
    parser.add_argument("--train_split", default="train", help="tfds notation; of all sides")
    parser.add_argument("--set", nargs="*", default=[], help="FIELD=VALUE of our config")
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(args, pathlib.Path(scratch))
    recording.write(result)


def measure(args: argparse.Namespace, scratch: pathlib.Path) -> dict:
    warm = Command(args, scratch, "warm")  # compiles and decodes
    warm.run(1, "", "train.steps=2", "train.epochs=0.0")
    warm.run(1, "auto", "train.steps=2", "train.epochs=0.0", "data.examples_per_class=20")
    uncached = Command(args, scratch, "uncached").run(args.epochs, "")
    cached = Command(args, scratch, "cached")
    first, second = cached.run(args.epochs, "auto"), cached.run(args.epochs, "auto")
    long = Command(args, scratch, "long").run(args.long_epochs, "auto")
    verified = cached.run(args.epochs, "auto", "cache.verify=20")
    long_uncached = uncached["seconds"] + uncached["seconds_per_epoch"] * (
        args.long_epochs - args.epochs
    )
    result = {
        "epochs": args.epochs,
        "long_epochs": args.long_epochs,
        "train_split": args.train_split,
        "uncached": uncached,
        "cached": first,
        "cached_again": second,
        "cached_long": long,
        "verify": verified["verified"],
        "images_through_the_network": _images_seen(uncached),
        "ratios": {
            "cached": uncached["seconds"] / first["seconds"],
            "cached_again": uncached["seconds"] / second["seconds"],
            "cached_long": long_uncached / long["seconds"],
            # Were an image's pass all that takes time.
            "bound": _images_seen(uncached)["uncached"] / _images_seen(uncached)["cached"],
        },
    }
    if args.torch_epochs:
        result["torch"] = measure_torch(args)
    return result


def _images_seen(run: dict) -> dict[str, int]:
    """Returns how many images pass through the backbone, by the sizes of the splits."""
    examples, epochs = run["examples"], run["epochs"]
    each_epoch = examples["train"] + examples["validation"]
    return {
        "uncached": each_epoch * epochs + examples["test"],
        "cached": each_epoch + examples["test"],
    }


class Command:
    """`experiments.finetune` with a separate cache folder."""

    def __init__(self, args: argparse.Namespace, scratch: pathlib.Path, name: str):
        self.args, self.scratch, self.name = args, scratch, name
        self.runs = 0

    def run(self, epochs: int, boundary: str, *fields: str) -> dict:
        """Returns seconds from start to end, seconds per epoch and accuracies of one run."""
        self.runs += 1
        folder = self.scratch / f"{self.name}{self.runs}"
        assignments = [
            f"data.data_dir={self.args.data_dir}",
            f"data.train_split={self.args.train_split}",
            f"train.epochs={float(epochs)}",
            f"cache.boundary={boundary}",
            f"cache.dir={self.scratch / 'features' / self.name}",
            *self.args.set,
            *fields,
        ]
        began = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "experiments.finetune"),
                *(f"--config={self.args.config}", f"--workdir={folder}"),
                *(f"--config.{assignment}" for assignment in assignments),
            ],
            cwd=record.REPOSITORY,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - began
        result = json.loads((folder / "result.json").read_text())
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        evaluated = [line for line in lines if line["split"] == "validation"]
        span = evaluated[-1]["seconds"] - evaluated[0]["seconds"] if evaluated else 0.0
        return {
            "epochs": epochs,
            "seconds": seconds,
            "seconds_per_epoch": span / max(1, len(evaluated) - 1),
            "validation_top1": result["splits"].get("validation", {}).get("top1_accuracy"),
            "test_top1": result["splits"]["test"]["top1_accuracy"],
            "examples": {
                "train": result["train_examples"],
                **{
                    name: result["splits"].get(name, {}).get("examples", 0)
                    for name in ("validation", "test")
                },
            },
            "waiting_share": result["waiting_share"],
            "dispatch": result["dispatch"],
            "verified": (result["cache"] or {}).get("verified"),
        }


def measure_torch(args: argparse.Namespace) -> dict:
    """Returns what the same probe takes in PyTorch, both ways, each in a separate process."""
    tutorial = run_torch(args, "tutorial", args.torch_epochs)
    if "not_measured" in tutorial:
        return tutorial
    for name, epochs in (("seconds", args.epochs), ("long_seconds", args.long_epochs)):
        further = tutorial["seconds_per_epoch"] * (epochs - args.torch_epochs)
        tutorial[f"{name}_extrapolated"] = tutorial["seconds"] + further
    return {
        "tutorial": tutorial,
        "features_once": run_torch(args, "features_once", args.epochs),
        "features_once_long": run_torch(args, "features_once", args.long_epochs),
    }


def run_torch(args: argparse.Namespace, form: str, epochs: int) -> dict:
    """Returns what one such run printed, and its seconds from start to end."""
    began = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.linear_probe_torch", f"--data_dir={args.data_dir}"),
            *(f"--form={form}", f"--epochs={epochs}", f"--train_split={args.train_split}"),
        ],
        cwd=record.REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        return {"not_measured": done.stderr.strip().splitlines()[-1]}
    return {"seconds": seconds, **json.loads(done.stdout.splitlines()[-1])}


if __name__ == "__main__":
    main()
