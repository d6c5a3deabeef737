"""The files a run leaves, its lock and its state: new, interrupted or finished."""

import fcntl
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Self

import jax

import tl_jax
from tl_jax import files
from tl_jax.config.access import upgraded
from tl_jax.config.identity import Identity
from tl_jax.errors import InputError
from tl_jax.runs import soup, source, teacher

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "grain",
    "ml-collections",
    "numpy",
)
_LOCK = ".lock"
SEALED = "sealed.json"  # of a run whose test split has not been read


_STRICT = Identity()


class RunFolder:
    """The folder of one run; made by `RunFolder.open`.

    Attributes:
        path: the folder.
        checkpoints: the folder of its checkpoints, made when first used.
        state: "new", "interrupted", "finished" or "extended" (finished, and now asked to be longer), as
            it was when opened.
        is_primary: whether this process writes; the others only read.
    """

    def __init__(self, path: Path, state: str, lock: int | None, is_primary: bool):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.state = state
        self.is_primary = is_primary
        self._lock = lock

    @staticmethod
    def look(
        path: str | os.PathLike[str], config: Mapping[str, Any], identity: Identity = _STRICT
    ) -> str:
        """Returns the state that `open` would find, making and locking nothing.

        Raises:
            InputError: if `path` cannot be the folder of a run of `config`.
        """
        folder = Path(path).absolute()
        try:
            _check_usable(folder)
            return _state(folder, files.plain(config), identity)
        except OSError as error:
            raise InputError(f"cannot use {folder} as --workdir: {error}") from error

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        is_primary: bool = True,
        identity: Identity = _STRICT,
    ) -> "RunFolder":
        """Opens the folder for one process, and makes it when it is missing.

        The lock is an advisory one of the operating system: it ends with its process, however that
        ends, so a killed run blocks nothing. `config.json` becomes the config that is given; the result
        of a run that is extended is kept as `result_at_step_N.json`.

        Args:
            path: the run's folder.
            config: the resolved configuration, of JSON values; compared with the one there.
            is_primary: False for all but one process of a run: they neither lock nor write.
            identity: which fields must be equal to those there; all of them by default.

        Raises:
            InputError: if the path is a file, holds something else, belongs to a run of another
                config, or another process works on it. Nothing on disk is changed then.
        """
        folder = Path(path).absolute()
        given = files.plain(config)
        lock = None
        try:
            _check_usable(folder)
            if is_primary:
                folder.mkdir(parents=True, exist_ok=True)
                lock = _acquire(folder / _LOCK)
            state = _state(folder, given, identity)
            opened = cls(folder, state, lock, is_primary)
            if state == "extended" and is_primary:
                # Before the config: a finished run is one with a result, of the config beside it.
                _set_result_aside(folder)
            if state == "new" or read_json(folder / "config.json") != given:
                opened.write_json("config.json", given)
            return opened
        except OSError as error:
            _release(lock)
            raise InputError(f"cannot use {folder} as --workdir: {error}") from error
        except BaseException:
            _release(lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the lock; may be called again."""
        _release(self._lock)
        self._lock = None

    def write_json(self, name: str, value: Any) -> None:
        """Writes `value` to the file `name`, whole or not at all; other processes write nothing.

        Raises:
            OSError: if the disk is full, with the bytes needed and free; an earlier file of that name
                is untouched.
        """
        if self.is_primary:
            files.write(self.path / name, files.to_json(value))

    def read_json(self, name: str) -> Any:
        """Returns what the file `name` holds.

        Raises:
            InputError: if it is missing or no JSON.
        """
        return read_json(self.path / name)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes result.json: the run is finished. To be called last."""
        self.write_json("result.json", result)


def environment_facts() -> dict[str, Any]:
    """Returns {"device", "versions", "git_revision"}: what a number of this run depends on.

    `device` is {"platform", "kind", "count"} over all processes; a package that is not installed
    has the version None; `git_revision` is that of the folder that holds this package.
    """
    devices = jax.devices()
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "versions": {**versions, "tl_jax": tl_jax.__version__},
        "git_revision": git_revision(Path(__file__).parent),
    }


def git_revision(folder: Path) -> str | None:
    """Returns the commit of the checkout that tracks `folder`, or None when no checkout does.

    "+dirty" is appended when any tracked file of the checkout is modified.
    """
    # A package in a virtual environment is inside a checkout that knows nothing of it.
    if not _git(folder, "ls-files", "--", "."):
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    if not revision:
        return None
    return revision + (
        "+dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else ""
    )


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _check_usable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir {folder} is a file; give a folder, new or of an earlier run")
    if not folder.is_dir() or (folder / "config.json").exists():
        return
    foreign = sorted(entry.name for entry in folder.iterdir() if not _is_ours(entry.name))
    if foreign:
        shown = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if foreign[5:] else "")
        raise InputError(
            f"--workdir {folder} is not the folder of a run (no config.json) and not empty: it "
            f"holds {shown}; give a new folder"
        )


def check_replaceable(folder: Path, marker: str) -> None:
    """Raises InputError if pages written into a folder could replace files of a user.

    Args:
        folder: new, empty, that of a run, or one that holds `marker`.
        marker: a file that is written with the pages.
    """
    if not (folder / marker).is_file():
        _check_usable(folder)


def _is_ours(name: str) -> bool:
    """Whether a start that was killed before config.json was written may have left the file or folder."""
    return name in (_LOCK, ".config.json.tmp", source.FOLDER, teacher.FOLDER, soup.FOLDER)


def _state(folder: Path, given: dict[str, Any], identity: Identity) -> str:
    if not (folder / "config.json").exists():
        return "new"
    found = upgraded(read_json(folder / "config.json"))
    differing = _differing(found, given, identity)
    is_finished = (folder / "result.json").exists()
    longer = _longer(differing, identity)
    if longer and identity.not_extendable_because:
        name, there, here = longer
        raise InputError(
            f"--workdir {folder} holds a run of {name}={there}, {here} is given, and it cannot be extended: "
            f"{identity.not_extendable_because}. To train on from its weights, give a new --workdir and "
            f"--config.init.weights={folder} --config.init.head=keep"
        )
    if differing and not longer:
        raise InputError(
            f"--workdir {folder} holds a run of another config; use another --workdir, or the same "
            "config to go on with it. These fields differ:\n"
            + "\n".join(
                f"{name}: {there} in the folder, {here} given"
                for name, (there, here) in differing.items()
            )
        )
    if is_finished:
        return "extended" if longer else "finished"
    return "interrupted"


def _differing(found: Any, given: dict[str, Any], identity: Identity) -> dict[str, tuple[str, str]]:
    """Returns {field: (JSON text in the folder, JSON text given)} where these make another run."""
    found, given = _fields("", found), _fields("", given)
    defaults = _fields("", identity.defaults) if identity.defaults else {}
    pairs = {
        name: tuple(config.get(name, defaults.get(name, "absent")) for config in (found, given))
        for name in sorted(found.keys() | given.keys())
    }
    return {
        name: (there, here)
        for name, (there, here) in pairs.items()
        if there != here and not any(fnmatch(name, known) for known in identity.without_effect)
    }


def _longer(
    differing: Mapping[str, tuple[str, str]], identity: Identity
) -> tuple[str, str, str] | None:
    """Returns (field, value there, value given) where a length that was raised is all that differs."""
    if len(differing) != 1:
        return None
    ((name, (there, here)),) = differing.items()
    if name not in identity.extendable or "absent" in (there, here):
        return None
    return (name, there, here) if 0 < json.loads(there) < json.loads(here) else None


def _set_result_aside(folder: Path) -> None:
    steps = read_json(folder / "result.json").get("steps", 0)
    (folder / "result.json").rename(folder / f"result_at_step_{steps}.json")


def _fields(prefix: str, value: Any) -> dict[str, str]:
    """Returns {field name: JSON text}: as text, NaN equals itself and 1 differs from 1.0."""
    if not isinstance(value, dict) or not value:
        return {prefix: json.dumps(value, sort_keys=True)}
    flat = {}
    for key, inner in value.items():
        flat.update(_fields(f"{prefix}.{key}" if prefix else str(key), inner))
    return flat


def read_json(path: Path) -> Any:
    """Returns what a JSON file of a run folder holds.

    Raises:
        InputError: if it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); it is left as it is") from error


def _acquire(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise InputError(
            f"--workdir {path.parent} is in use by {_holder(path)}; wait until it ends, stop it, "
            "or use another --workdir"
        ) from error
    except BaseException:
        os.close(lock)
        raise
    os.ftruncate(lock, 0)
    os.write(lock, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
    return lock


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
