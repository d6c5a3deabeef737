"""Measures what README.md and docs/ show, stage by stage, each into its JSON under results/.

    python -m benchmarks.all --list                                stages, minutes, and which are measured
    python -m benchmarks.all --only=flops,memory                   these stages, measured or not
    python -m benchmarks.all --data_dir=DIR                        all that is missing or of another revision
    python -m benchmarks.figures                                   afterwards: writes the pages

Each stage is a separate command, so that the work can be done in pieces. Throughput resumes where it stopped; named
in --only, it repeats the rows that were measured on a busy machine. What depends on the platform or on the version of
JAX is kept in a separate folder, such as results/cpu-jax0.10, so that several Pythons can be measured beside each
other: run this with each of them. A timing stage wants the machine for itself; the file says which share of the cores
other programs took at the same time.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import time

from benchmarks import record
from tl_jax.errors import unknown


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command and the file that it writes.

    Attributes:
        name: of the file and of the stage.
        minutes: about, on two cores.
        arguments: of `python -m`; "DIR" stands for --data_dir.
        timed: whether it wants a quiet machine.
        by_version: whether its figures depend on the version of JAX and its file is kept in such a folder.
        rows: of the complete file, where it can be made in pieces.
    """

    name: str
    minutes: int
    arguments: tuple[str, ...]
    timed: bool = True
    by_version: bool = True
    rows: int = 0

    @property
    def needs_data(self) -> bool:
        """Whether it reads CIFAR-10."""
        return "--data_dir=DIR" in self.arguments


_COMPARE = ("benchmarks.compare", "--config=configs/quickstart.py")
_COMPARE_CIFAR = ("benchmarks.compare", "--config=configs/cifar10_compare.py", "--data_dir=DIR")
_COMPARE_LPFT = ("benchmarks.compare", "--config=configs/cifar10_lpft.py", "--data_dir=DIR")
_RECIPES = ("benchmarks.recipes", "--data_dir=DIR")
_ROUTES = ("benchmarks.routes", "--data_dir=DIR")
_FOLDERS = ("benchmarks.folders", "--data_dir=DIR", "--data=folder:flowers128.zip")
_GRADIENTS = ("benchmarks.throughput", "--rows", "*/full", "*/frozen_late", "--sides")
STAGES = (
    Stage("flops", 1, ("benchmarks.flops",), timed=False),
    Stage("lowered", 1, ("benchmarks.lowered",), timed=False, by_version=False),
    Stage("memory", 4, ("benchmarks.memory",), timed=False),
    Stage("parity", 10, ("benchmarks.parity",), timed=False, by_version=False),
    Stage("quickstart", 4, _COMPARE, by_version=False),
    Stage("cifar10_compare", 18, _COMPARE_CIFAR, by_version=False),
    Stage("cifar10_lpft", 10, _COMPARE_LPFT, by_version=False),
    Stage("recipes", 20, (*_RECIPES, "--only=cifar10"), by_version=False),
    Stage("animals_to_plants", 50, (*_RECIPES, "--only=animals_to_plants"), by_version=False),
    Stage("routes", 15, (*_ROUTES, "--flowers=DIR/flowers128.zip"), by_version=False),
    Stage(
        "folders",
        18,
        (*_FOLDERS, "--data=folder:flowers128", "--data=folder:tinyimagenet32"),
    ),
    Stage("linear_probe", 30, ("benchmarks.linear_probe", "--data_dir=DIR")),
    Stage("sweep", 6, ("benchmarks.sweep", "--data_dir=DIR", "--runs=64")),
    Stage("throughput", 20, ("benchmarks.throughput",), rows=16),
    Stage("convolution_gradients", 8, (*_GRADIENTS, "jax", "jax_native"), rows=8),
    Stage("steps", 15, ("benchmarks.steps",), by_version=False),
    Stage("dispatch", 10, ("benchmarks.dispatch", "--data_dir=DIR")),
    Stage("startup", 12, ("benchmarks.startup", "--data_dir=DIR")),
    Stage("ablations", 15, ("benchmarks.ablations",)),
    Stage("advice", 40, ("benchmarks.advice", "--data_dir=DIR"), by_version=False),
    Stage("scaling", 6, ("benchmarks.scaling",)),
    Stage("augmentation", 4, ("benchmarks.augmentation",)),
)


def main() -> None:
    """Runs or lists the stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="measure nothing")
    parser.add_argument("--only", default="", help="stages, separated by commas")
    parser.add_argument("--data_dir", default="", help="of tfds, with CIFAR-10")
    parser.add_argument("--allow_dirty", action="store_true")
    args = parser.parse_args()
    known = {stage.name: stage for stage in STAGES}
    names = [name for name in args.only.split(",") if name]
    for name in names:
        if name not in known:
            parser.error(str(unknown("stage", name, known)))
    stages = [known[name] for name in names] or list(STAGES)
    folder = record.REPOSITORY / "results" / variant()
    if args.list:
        print_stages(stages, folder)
        return
    if not names:
        stages = [stage for stage in stages if state(stage, place(stage, folder)) != "complete"]
    without = [stage.name for stage in stages if stage.needs_data and not args.data_dir]
    if without:
        parser.error(f"--data_dir is needed by {', '.join(without)}; --only chooses other stages")
    changed = record.changed_files()
    if changed and not args.allow_dirty:
        parser.error(f"the tree is not clean ({', '.join(changed[:5])}); commit, or --allow_dirty")
    for stage in stages:
        run(stage, place(stage, folder), args.data_dir, args.allow_dirty)
    print("measured; now: python -m benchmarks.figures")


def variant() -> str:
    """Returns the folder of this platform and version of JAX, such as "cpu-jax0.10".

    Asked of another process: one that has the accelerator would keep it from the stages.
    """
    code = "import jax; print(jax.default_backend(), '.'.join(jax.__version__.split('.')[:2]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return "{}-jax{}".format(*done.stdout.split())


def place(stage: Stage, folder: pathlib.Path) -> pathlib.Path:
    """Returns the file of a stage, `folder` being that of the platform and version."""
    return (folder if stage.by_version else folder.parent) / f"{stage.name}.json"


def state(stage: Stage, path: pathlib.Path) -> str:
    """Returns "missing", "of another revision", "N of M rows" or "complete"."""
    if not path.exists():
        return "missing"
    found = json.loads(path.read_text(encoding="utf-8"))
    revision = found.get("revision") or ""
    if "+dirty" in revision or not record.same_code(record.REPOSITORY, revision, "HEAD"):
        return "of another revision"
    if stage.rows and len(found["rows"]) < stage.rows:
        return f"{len(found['rows'])} of {stage.rows} rows"
    return "complete"


def run(stage: Stage, path: pathlib.Path, data_dir: str, allow_dirty: bool) -> None:
    """Runs a stage; exits where it fails."""
    if stage.rows and state(stage, path) == "of another revision":
        path.unlink()  # Its rows are not those of this revision.
    arguments = [argument.replace("=DIR", f"={data_dir}") for argument in stage.arguments]
    command = [sys.executable, "-m", *arguments, f"--out={path}"]
    command += ["--allow_dirty"] * allow_dirty
    print(f"{stage.name}: about {stage.minutes} min", file=sys.stderr, flush=True)
    began = time.perf_counter()
    done = subprocess.run(command, cwd=record.REPOSITORY, stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)
    minutes = (time.perf_counter() - began) / 60
    print(f"{stage.name}: {minutes:.1f} min, {path}", file=sys.stderr, flush=True)


def print_stages(stages: list[Stage], folder: pathlib.Path) -> None:
    """Prints a line for each stage, and the sum of their minutes."""
    print(f"{'stage':24}{'minutes':>8}  {'wants':20} {'file'}")
    for stage in stages:
        wants = " and ".join(["quiet"] * stage.timed + ["CIFAR-10"] * stage.needs_data)
        path = place(stage, folder)
        print(
            f"{stage.name:24}{stage.minutes:8}  {wants:20} "
            f"{path.relative_to(record.REPOSITORY)}: {state(stage, path)}"
        )
    print(f"{'':24}{sum(stage.minutes for stage in stages):8}")


if __name__ == "__main__":
    main()
