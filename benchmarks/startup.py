"""Time from the command to the first completed update, cold and warm.

    python -m benchmarks.startup [--data_dir=DIR] [--cases=digits_resnet20,...] [--repeats=3] [--out=startup.json]

A cold start finds no compiled programs and no decoded images; a warm one finds both, left by the cold one before it;
"uncompiled" finds the images only. The clock runs from the start of the process to the first line of `metrics.jsonl`,
with `train.log_every_steps=1`; the run is ended then. Batches on CIFAR-10 are small, as the update itself is
no part of the start. States and cases take turns, so that a busy minute hits all alike. Python's own files come from
the operating system's memory in all states.
"""

import argparse
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import record

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
CIFAR = ("--config=configs/cifar10_resnet20.py", "--config.data.data_dir={data_dir}")
CASES = {
    "digits_resnet20": ("--config=configs/quickstart.py",),
    "digits_resnet20_linear_probe": (
        "--config=configs/quickstart.py",
        "--config.freeze.strategy=backbone",
    ),
    "cifar10_resnet20": (*CIFAR, "--config.data.batch_size=16"),
    "cifar10_resnet18_cifar_stem": (
        *CIFAR,
        "--config.model.name=resnet18",
        "--config.model.stem=cifar",
        "--config.data.batch_size=8",
    ),
    "cifar10_resnet50_224px": (
        *CIFAR,
        "--config.model.name=resnet50",
        "--config.data.image_size=224",
        "--config.data.batch_size=2",
    ),
}
STATES = ("cold", "uncompiled", "warm")
LIMIT_SECONDS = 600


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default="", help="of tfds, with CIFAR-10")
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    cases = args.cases.split(",")
    seconds: dict[str, dict[str, list[float]]] = {
        case: {state: [] for state in STATES} for case in cases
    }
    with tempfile.TemporaryDirectory(prefix="tl_jax-startup-") as scratch:
        for _ in range(args.repeats):
            for case in cases:
                for state in STATES:
                    took = first_update(CASES[case], state, pathlib.Path(scratch), args.data_dir)
                    seconds[case][state].append(round(took, 3))
                    print(f"{case} {state}: {took:.2f} s", file=sys.stderr, flush=True)
    result = {
        "unit": "seconds from the command to the first update",
        "cases": [_summary(case, seconds[case]) for case in cases],
    }
    recording.write(result)


def first_update(
    arguments: tuple[str, ...], state: str, scratch: pathlib.Path, data_dir: str
) -> float:
    """Returns the seconds that one start takes, having removed what its state must not find.

    Raises:
        RuntimeError: if the run ends before its first update, with what it printed.
    """
    compiled, decoded, workdir = (scratch / name for name in ("compiled", "decoded", "run"))
    for folder in (workdir, *((compiled, decoded) if state == "cold" else ())):
        shutil.rmtree(folder, ignore_errors=True)
    if state == "uncompiled":
        shutil.rmtree(compiled)
    command = [
        *(sys.executable, "-m", "experiments.finetune", f"--workdir={workdir}"),
        *(argument.format(data_dir=data_dir) for argument in arguments),
        f"--compilation_cache={compiled}",
        f"--config.data.cache_dir={decoded}",
        "--config.train.log_every_steps=1",
    ]
    metrics = workdir / "metrics.jsonl"
    with tempfile.TemporaryFile("w+") as printed:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=printed, stderr=printed)
        try:
            while not (metrics.is_file() and b"\n" in metrics.read_bytes()):
                if process.poll() is not None or time.perf_counter() - began > LIMIT_SECONDS:
                    printed.seek(0)
                    raise RuntimeError(f"{' '.join(command)}: no first update\n{printed.read()}")
                time.sleep(0.005)
            return time.perf_counter() - began
        finally:
            process.kill()
            process.wait()


def _summary(case: str, seconds: dict[str, list[float]]) -> dict[str, object]:
    medians = {state: round(statistics.median(values), 3) for state, values in seconds.items()}
    return {
        "case": case,
        "arguments": list(CASES[case]),
        "median": medians,
        "warm_share_of_cold": round(medians["warm"] / medians["cold"], 3),
        "warm_share_of_uncompiled": round(medians["warm"] / medians["uncompiled"], 3),
        "all": seconds,
    }


if __name__ == "__main__":
    main()
