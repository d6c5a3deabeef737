"""How a benchmark writes its JSON: from a clean tree, of one revision, with all that its figures depend on.

    parser = argparse.ArgumentParser(...)
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)      # refuses here, before anything is measured
    recording.write({"rows": measure(args)})

Without --out a benchmark prints its JSON and writes nothing, clean tree or not.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

from tl_jax import files

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
# No figure depends on these files: writing one result must not make the tree dirty for the next.
_NO_CODE = (":(exclude)results", ":(exclude)docs", ":(exclude)*.md")
# What two runs must have in common to share a file.
_SAME_VERSIONS = ("python", "jax", "jaxlib", "flax", "numpy", "torch")
# Of an argument, what is a folder of the machine and no part of the measurement.
_PRIVATE_ARGUMENTS = ("--data", "--data_dir", "--flowers", "--weights", "--workdir")
# They change how long programs take.
_TIMED_VARIABLES = ("GLIBC_TUNABLES", "OMP_WAIT_POLICY")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --out and --allow_dirty."""
    parser.add_argument("--out", type=pathlib.Path, help="JSON to write; printed in any case")
    parser.add_argument(
        "--allow_dirty",
        action="store_true",
        help="write --out although files are changed; its revision then ends in +dirty",
    )


class Recording:
    """One measurement, from its start to its JSON.

    Attributes:
        facts: date, machine, device, versions, revision and command.
    """

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        args: argparse.Namespace,
        repository: pathlib.Path = REPOSITORY,
    ):
        """Collects the facts and exits with code 2 where --out may not be written.

        Args:
            parser: of the benchmark; it says what is wrong.
            args: parsed, with those of `add_arguments`.
            repository: whose revision is recorded.
        """
        self._parser, self._args, self._repository = parser, args, repository
        changed = changed_files(repository)
        if args.out and changed and not args.allow_dirty:
            parser.error(
                f"--out={args.out}: the tree is not clean ({', '.join(changed[:5])}"
                f"{', ...' if len(changed) > 5 else ''}), so that no revision would say what was "
                "measured; commit first, or pass --allow_dirty"
            )
        self._head = _git(repository, "rev-parse", "HEAD")
        self.facts = {
            "command": command_line(parser.prog),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "revision": revision(repository),
        }
        self._started, self._others = time.perf_counter(), cpu_seconds_of_others()
        self._load = os.getloadavg()

    def resume(self) -> dict[str, Any] | None:
        """Returns what --out holds, if this run may add to it; None where there is no such file.

        Exits with code 2 if the file was written by other code or other versions.
        """
        if not (self._args.out and self._args.out.exists()):
            return None
        earlier = json.loads(self._args.out.read_text())
        differences = self._differences(earlier)
        if differences:
            self._parser.error(
                f"--out={self._args.out} is of {'; '.join(differences)}: a file holds one revision; "
                "remove it, or name another"
            )
        return earlier

    def write(self, result: dict[str, Any], *, quiet: bool = False) -> None:
        """Prints the result with its facts as JSON, and writes it to --out.

        Exits with code 1, having printed, if code was changed or committed since the start.
        """
        elapsed = time.perf_counter() - self._started
        environment = facts_of_environment()
        table = {
            **result,
            **self.facts,
            **environment,
            "busy_elsewhere": (cpu_seconds_of_others() - self._others) / elapsed / os.cpu_count(),
            "load_average": self._load,
            "seconds": elapsed,
        }
        text = json.dumps(table, indent=1)
        if not quiet:
            print(text)
        if not self._args.out:
            return
        changed = changed_files(self._repository)
        if not self._args.allow_dirty and (
            changed or not same_code(self._repository, self._head, "HEAD")
        ):
            sys.exit(f"{self._args.out} is not written: the code changed meanwhile {changed}")
        files.write(self._args.out, text + "\n")

    def _differences(self, earlier: dict[str, Any]) -> list[str]:
        before, now = earlier.get("versions", {}), facts_of_environment()
        found = [
            f"{name} {before.get(name)}, not {now['versions'].get(name)}"
            for name in _SAME_VERSIONS
            if before.get(name) != now["versions"].get(name)
        ]
        if earlier.get("device") != now["device"]:
            found.append(f"device {earlier.get('device')}, not {now['device']}")
        revision = earlier.get("revision") or ""
        if revision != self.facts["revision"] and not (
            "+dirty" not in f"{revision}{self.facts['revision']}"
            and same_code(self._repository, revision, self._head)
        ):
            found.append(f"revision {revision or None}, not {self.facts['revision']}")
        # The file keeps its revision: later ones differ from it by results and documentation only.
        self.facts["revision"] = revision
        return found


def facts_of_environment() -> dict[str, Any]:
    """Returns {"machine", "cores", "device", "versions"}; PyTorch's version is among them."""
    from tl_jax.runs.run_folder import environment_facts  # imports JAX, which not every process may

    found = environment_facts()
    versions = found["versions"]
    try:
        versions["torch"] = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        versions["torch"] = None
    return {
        "machine": processor(),
        "cores": os.cpu_count(),
        "device": found["device"],
        "versions": versions,
    }


def command_line(prog: str) -> str:
    """Returns how this process was started, without the folders of this machine.

    Variables that change how long programs take are part of it.
    """
    name = pathlib.Path(prog).stem if prog.endswith(".py") else prog.split(".")[-1]
    arguments = []
    private = out = False
    for argument in sys.argv[1:]:
        option, equals, value = argument.partition("=")
        if private:
            argument = "DIR"
        elif out:
            argument = _inside(argument)
        elif equals and option in _PRIVATE_ARGUMENTS and _is_place(value):
            argument = f"{option}=DIR"
        elif equals and option == "--out":
            argument = f"{option}={_inside(value)}"
        private = not equals and option in _PRIVATE_ARGUMENTS
        out = not equals and option == "--out"
        arguments.append(argument)
    variables = [f"{name}={os.environ[name]}" for name in _TIMED_VARIABLES if name in os.environ]
    return " ".join([*variables, f"python -m benchmarks.{name}", *arguments])


def revision(repository: pathlib.Path = REPOSITORY) -> str | None:
    """Returns the commit, with "+dirty" where files are changed; None where there is no checkout."""
    head = _git(repository, "rev-parse", "HEAD")
    return f"{head}{'+dirty' if changed_files(repository) else ''}" if head else None


def changed_files(repository: pathlib.Path = REPOSITORY) -> list[str]:
    """Returns the files that are changed or not committed; results and documentation do not count."""
    lines = _git(repository, "status", "--porcelain", "--", ".", *_NO_CODE).splitlines()
    return [line[3:] for line in lines]


def same_code(repository: pathlib.Path, before: str, after: str) -> bool:
    """Returns whether two revisions differ by results and documentation at most."""
    if not (before and after):
        return False
    command = ["git", "diff", "--quiet", before, after, "--", ".", *_NO_CODE]
    return subprocess.run(command, cwd=repository, capture_output=True).returncode == 0


def cpu_seconds_of_others() -> float:
    """Returns the CPU seconds that other processes have used since the machine started; Linux only.

    This process's finished children are not others.
    """
    try:
        fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, soft_irq, steal = (int(field) for field in fields[:8])
    ticks = user + nice + system + irq + soft_irq + steal
    return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def processor() -> str:
    """Returns the name of the CPU."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _is_place(value: str) -> bool:
    """Returns whether a value is a folder or file of the machine, or a data set there such as npz:/FILE."""
    return value.rpartition(":")[2].startswith(("/", "~", "."))


def _inside(path: str) -> str:
    """Returns a path as it looks from the repository; of one outside of it, its name."""
    full = pathlib.Path(path).resolve()
    if full.is_relative_to(REPOSITORY):
        return full.relative_to(REPOSITORY).as_posix()
    return full.name


def _git(repository: pathlib.Path, *arguments: str) -> str:
    """Returns what git prints; nothing where there is no checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.rstrip("\n") if done.returncode == 0 else ""
