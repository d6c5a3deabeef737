"""A comparison of methods over seeds (`experiments.compare`), recorded: means, runs, and what they depend on.

    python -m benchmarks.compare --config=configs/quickstart.py --out=results/quickstart.json
    python -m benchmarks.compare --config=configs/cifar10_compare.py --data_dir=DIR --out=results/cifar10_compare.json

The comparison runs in a separate process and folder. Decoded images may be there before, compiled programs as
well, as for anybody who runs the command twice; stored activations are computed by the first run that needs them.
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
    parser.add_argument("--config", required=True)
    parser.add_argument("--data_dir", default="", help="of tfds; empty: the config's own")
    parser.add_argument("--set", nargs="*", default=[], help="FIELD=VALUE of the config")
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    with tempfile.TemporaryDirectory(prefix="tl_jax-compare-") as scratch:
        recording.write(measure(args, pathlib.Path(scratch)))


def measure(args: argparse.Namespace, workdir: pathlib.Path) -> dict:
    """Returns what `ablation.json` says, and the seconds of the command."""
    fields = [f"cache.dir={workdir / 'activations'}"]
    fields += [f"data.data_dir={args.data_dir}"] if args.data_dir else []
    began = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "experiments.compare"),
            *(f"--config={args.config}", f"--workdir={workdir / 'compared'}"),
            *(f"--config.{field}" for field in (*fields, *args.set)),
        ],
        cwd=record.REPOSITORY,
        check=True,
        stdout=sys.stderr,
    )
    seconds = time.perf_counter() - began
    compared = workdir / "compared"
    content = json.loads((compared / "ablation.json").read_text())
    for row in content["runs"]:
        result = json.loads((compared / row["run"] / "result.json").read_text())
        row["test_examples"] = result["splits"]["test"]["examples"]
    return {**content, "config": args.config, "command_seconds": seconds}


if __name__ == "__main__":
    main()
