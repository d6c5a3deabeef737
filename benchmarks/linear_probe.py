"""A linear probe end to end: features computed once, images at every epoch, and PyTorch as tutorials write it.

    python benchmarks/linear_probe.py --data_dir=DIR [--out=FILE] [--config=configs/cifar10_linear_probe.py]
        [--epochs=10] [--long_epochs=100] [--torch_epochs=2] [--set data.train_split='train[:10%]' ...]

Every run is the command itself in a process of its own, timed from its start to its end, imports, loading and the
report included. Decoded images and the uncached programs are there before; stored features, and the programs
of the first run on them, are not. Runs, in this order:

- uncached, `epochs`;
- cached, `epochs`, features computed now; then the same again, features found;
- cached, `long_epochs`, features computed now. The same uncached is not run: its time is that of the uncached
  run with its time per epoch, measured between the first and last evaluation, for every further epoch;
- cached with `cache.verify=20`;
- PyTorch (where it is installed), `torch_epochs`, likewise extrapolated to both numbers of epochs.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from tl_jax.run_folder import environment_facts

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/cifar10_linear_probe.py")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--long_epochs", type=int, default=100)
    parser.add_argument("--torch_epochs", type=int, default=2, help="0: no PyTorch")
    parser.add_argument("--set", nargs="*", default=[], help="FIELD=VALUE of the config")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(args, pathlib.Path(scratch))
    text = json.dumps({**result, **environment_facts()}, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


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
        "command": " ".join(["benchmarks/linear_probe.py", *sys.argv[1:]]),
        "load_average": os.getloadavg(),
        "uncached": uncached,
        "cached": first,
        "cached_again": second,
        "cached_long": long,
        "verify": verified["verified"],
        "ratios": {
            f"{args.epochs} epochs": uncached["seconds"] / first["seconds"],
            f"{args.epochs} epochs, features found": uncached["seconds"] / second["seconds"],
            f"{args.long_epochs} epochs, uncached by its time per epoch": long_uncached
            / long["seconds"],
        },
    }
    if args.torch_epochs:
        result["torch"] = torch_probe(args, scratch)
    return result


class Command:
    """`experiments.finetune` with a cache folder of its own."""

    def __init__(self, args: argparse.Namespace, scratch: pathlib.Path, name: str):
        self.args, self.scratch, self.name = args, scratch, name
        self.runs = 0

    def run(self, epochs: int, boundary: str, *fields: str) -> dict:
        """Returns seconds from start to end, seconds per epoch and accuracies of one run."""
        self.runs += 1
        folder = self.scratch / f"{self.name}{self.runs}"
        assignments = [
            f"data.data_dir={self.args.data_dir}",
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
            cwd=REPOSITORY,
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
            "waiting_share": result["waiting_share"],
            "dispatch": result["dispatch"],
            "verified": (result["cache"] or {}).get("verified"),
        }


def torch_probe(args: argparse.Namespace, scratch: pathlib.Path) -> dict:
    """Returns what the same probe takes in PyTorch, timed in a process of its own."""
    out = scratch / "torch.json"
    script = REPOSITORY / "benchmarks" / "linear_probe_torch.py"
    began = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, str(script), f"--data_dir={args.data_dir}"),
            *(f"--epochs={args.torch_epochs}", f"--out={out}"),
        ],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {"not_measured": done.stderr.strip().splitlines()[-1]}
    measured = json.loads(out.read_text())
    seconds = time.perf_counter() - began
    per_epoch = measured["seconds_per_epoch"]
    return {
        **measured,
        "seconds": seconds,
        f"seconds_{args.epochs}_epochs": seconds + per_epoch * (args.epochs - args.torch_epochs),
        f"seconds_{args.long_epochs}_epochs": seconds
        + per_epoch * (args.long_epochs - args.torch_epochs),
    }


if __name__ == "__main__":
    main()
