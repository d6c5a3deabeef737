"""Full training steps alone in a process: versions of JAX, without and with huge pages, in turn.

    python -m benchmarks.steps --out=results/steps.json [--rows resnet20/full resnet50/full] [--rounds=8]
        [--python=.venv-3.11/bin/python --python=...]

Without --python, those of the folders .venv* beside this one that have other versions of JAX; without any, this
Python. A machine that others share is faster at one time than at another, by more than what is compared: in each
round every case runs once, in a separate process (`benchmarks.throughput --sides jax`), and the speed of a case
relative to the first is the geometric mean over rounds with its 95% t-interval.

Huge pages: GLIBC_TUNABLES=glibc.malloc.hugetlb=1, on Linux with glibc 2.35 or newer.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks import ratios, record

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_MEASURED = ("milliseconds", "cpu_milliseconds", "system_milliseconds", "page_faults")


@dataclasses.dataclass(frozen=True)
class Case:
    """What steps are timed under.

    Attributes:
        command: of the Python.
        python: its version.
        jax: the version of JAX that it has.
        huge_pages: whether memory is asked for in huge pages.
    """

    command: str
    python: str
    jax: str
    huge_pages: bool = False

    @property
    def name(self) -> str:
        """Such as "jax0.12" or "jax0.12-huge_pages"."""
        version = ".".join(self.jax.split(".")[:2])
        return f"jax{version}{'-huge_pages' if self.huge_pages else ''}"


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", action="append", default=[], help="one that has JAX")
    parser.add_argument("--rows", nargs="+", default=["resnet20/full", "resnet50/full"])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing a row in a round")
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    cases = [
        dataclasses.replace(found, huge_pages=huge)
        for found in versions(args.python or _beside())
        for huge in (False, True)
    ]
    turns: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(args.rounds):
            begin = number % len(cases)
            for case in cases[begin:] + cases[:begin]:
                rows = measure(case, args.rows, args.seconds, pathlib.Path(scratch))
                turns[case.name].append(rows)
    described = {
        case.name: {"python": case.python, "jax": case.jax, "huge_pages": case.huge_pages}
        for case in cases
    }
    names = list(turns[cases[0].name][0])
    recording.write({"cases": described, "rows": {name: summary(name, turns) for name in names}})


def versions(commands: list[str]) -> list[Case]:
    """Returns one case for each version of JAX among these Pythons, the oldest first."""
    code = "import platform, jax; print(platform.python_version(), jax.__version__)"
    found: dict[tuple[int, ...], Case] = {}
    for command in commands:
        done = subprocess.run([command, "-c", code], capture_output=True, text=True)
        if done.returncode == 0:
            python, jax = done.stdout.split()
            key = tuple(int(part) for part in jax.split(".")[:2])
            # Of several with the same version of JAX, the newest Python.
            if key not in found or _numbers(python) > _numbers(found[key].python):
                found[key] = Case(command, python, jax)
    return [found[key] for key in sorted(found)]


def measure(case: Case, rows: list[str], seconds: float, scratch: pathlib.Path) -> dict[str, Any]:
    """Returns {row: its figures}, timed in a new process; programs are compiled in the first round."""
    out = scratch / "turn.json"
    out.unlink(missing_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name not in HUGE_PAGES},
        **(HUGE_PAGES if case.huge_pages else {}),
        "JAX_COMPILATION_CACHE_DIR": str(scratch / f"xla-{case.python}"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    command = [case.command, "-m", "benchmarks.throughput", "--rows", *rows, "--sides", "jax"]
    command += ["--rounds=1", f"--seconds={seconds}", f"--out={out}", "--allow_dirty"]
    subprocess.run(
        command, cwd=record.REPOSITORY, env=environment, stdout=subprocess.DEVNULL, check=True
    )
    measured = json.loads(out.read_text())["rows"]
    return {
        name: {"batch_size": row["batch_size"]}
        | {what: row["sides"]["jax"][f"{what}_median"] for what in _MEASURED}
        for name, row in measured.items()
    }


def summary(row: str, turns: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the figures of a row: of each case, and its speed relative to the first case."""
    first = next(iter(turns))
    times = {name: [turn[row]["milliseconds"] for turn in of] for name, of in turns.items()}
    batch_size = turns[first][0][row]["batch_size"]
    cases = {}
    for name, of in turns.items():
        speed, interval = ratios.speed(times[name], times[first])
        cases[name] = {
            "milliseconds": [round(value, 3) for value in times[name]],
            "images_per_second_median": batch_size / statistics.median(times[name]) * 1e3,
            **{f"{what}_median": statistics.median(t[row][what] for t in of) for what in _MEASURED},
            "speed": speed,
            "speed_interval": interval,
        }
    return {"batch_size": batch_size, "rounds": len(turns[first]), "cases": cases}


def _beside() -> list[str]:
    """Returns the Pythons of the virtual environments in the repository; this one where there are none."""
    found = sorted(record.REPOSITORY.glob(".venv*/bin/python"))
    return [str(path) for path in found] or [sys.executable]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


if __name__ == "__main__":
    main()
