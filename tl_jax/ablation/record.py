"""What an ablation's folder says of itself: the spec, what was chosen, and when the test split was opened."""

import collections
import datetime
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import filelock

from tl_jax import files
from tl_jax.ablation.cells import Cell
from tl_jax.ablation.spec import Spec
from tl_jax.errors import InputError
from tl_jax.runs.run_folder import SEALED, environment_facts, read_json

CELLS = "cells"
_SPEC, _LOG, _LOCK = "spec.json", "test_log.jsonl", ".record.lock"
_TIMES = "times.jsonl"
# Of the spec, what makes it another one; what its cells are says the rest.
_OF_SPEC = ("reference", "metric", "question", "level")


class Record:
    """The folder of an ablation.

    Attributes:
        folder: of the ablation; `cells` below it has a run folder for every cell.
    """

    def __init__(self, folder: pathlib.Path):
        """Touches nothing."""
        self.folder = folder
        self._began: str | None = None  # digest of the spec that was begun here

    @property
    def sources(self) -> pathlib.Path:
        """The folder of the runs that cells start from."""
        return self.folder / "sources"

    def cell(self, cell: Cell) -> pathlib.Path:
        """Returns the run folder of a cell."""
        return self.folder / CELLS / cell.name

    def has_trained(self) -> bool:
        """Returns whether any cell is trained, of this spec or an earlier one."""
        names = (SEALED, "result.json")
        return any(
            next(self.folder.glob(f"{CELLS}/*/*/*/*/{name}"), None) is not None for name in names
        )

    def begin(self, spec: Spec, cells: list[Cell], amend: str = "") -> None:
        """Writes the spec. After the test split was opened it may change for a stated reason alone, which is logged.

        Args:
            spec: of the ablation.
            cells: of the spec.
            amend: why a spec is changed after test was opened; "" where it is not.

        Raises:
            InputError: as `check`.
        """
        self.check_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self.check(spec, cells, amend)
                digest = _digest(spec, cells)
                described = {"digest": digest, "spec": spec.to_json()}
                before = self._digest_there()
                if before is not None and before != digest and self._opened():
                    self._append("amended", digest=digest, reason=amend)
                if before != digest:
                    files.write(self.folder / _SPEC, files.to_json(described))
                self._began = digest
        except OSError as error:
            raise self._unusable(error) from error

    def check(self, spec: Spec, cells: list[Cell], amend: str = "", *, writes: bool = True) -> None:
        """Looks whether `begin` can write here, and writes nothing.

        Args:
            spec: of the ablation.
            cells: of the spec.
            amend: as of `begin`.
            writes: whether anything is to be written; an ablation that is there can be looked at without.

        Raises:
            InputError: if the spec was changed after test was opened, and no reason is given, or the folder holds
                something else, or cannot be written.
        """
        self.check_folder()
        before = self._digest_there()
        there = self._existing()
        if (writes or before is None) and not os.access(there, os.W_OK):
            raise self._unusable(f"{there} cannot be written")
        if before in (None, _digest(spec, cells)) or amend:
            return
        if opened := self._opened():
            raise InputError(
                f"{self.folder} holds another spec, and its test split was opened "
                f"({opened} runs): what is chosen now could be chosen by it. Expected the same spec, a new "
                "--workdir, or --amend=REASON, which is logged and shown with every table"
            )

    def check_folder(self) -> None:
        """Raises InputError if the folder is none, or holds something else than an ablation."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(
                f"--workdir {self.folder} is a file; give a folder, new or of an ablation"
            )
        if not self._existing().is_dir():
            raise InputError(
                f"--workdir {self.folder}: {self._existing()} is a file; give a new folder"
            )
        if self.folder.is_dir() and not (self.folder / _SPEC).is_file():
            foreign = sorted(p.name for p in self.folder.iterdir() if p.name != _LOCK)
            if foreign:
                raise InputError(
                    f"--workdir {self.folder} is not the folder of an ablation (no {_SPEC}) and not empty: it holds "
                    f"{', '.join(foreign[:5])}; give a new folder"
                )

    def holds(self, spec: Spec, cells: list[Cell]) -> bool:
        """Returns whether the spec that was begun here is this one.

        Raises:
            InputError: if the folder holds no ablation.
        """
        self.check_folder()
        there = self._digest_there()
        if there is None:
            raise InputError(
                f"--workdir {self.folder} holds no ablation; expected the folder of one"
            )
        return there == _digest(spec, cells)

    def _existing(self) -> pathlib.Path:
        """Returns the folder, or the nearest above it that is there."""
        above = self.folder.absolute()
        return next(path for path in (above, *above.parents) if path.exists())

    def note_openings_outside(self, cells: Iterable[Cell]) -> None:
        """Logs every cell whose test split was read by another command."""
        with self._locked():
            known = {line.get("cell") for line in self.log()}
            for cell in cells:
                name = str(cell.name)
                if name not in known and (self.cell(cell) / "result.json").is_file():
                    self._append("opened outside", cell=name)

    def opening(self, cells: Iterable[Cell]) -> None:
        """Logs that the test split is about to be read for cells, once for each.

        Raises:
            InputError: if another command has begun another spec here meanwhile.
        """
        with self._locked():
            if self._began is not None and self._digest_there() != self._began:
                raise InputError(
                    f"{self.folder} holds another spec now, begun by another command: test is not read for this one; "
                    "expected a --workdir of its own"
                )
            known = {line.get("cell") for line in self.log()}
            names = [str(cell.name) for cell in cells if str(cell.name) not in known]
            facts = environment_facts() if names else {}
            for name in names:
                self._append("opened", cell=name, **facts)

    def log(self) -> list[dict[str, Any]]:
        """Returns what was logged of the test split, in its order."""
        return self._lines(_LOG)

    def took(self, what: str, cells: Sequence[Cell], seconds: float) -> None:
        """Notes how long cells took that were made together, or until that was interrupted.

        Args:
            what: was done: "trained" or "test read".
            cells: one at least.
            seconds: from the preparation to the end.
        """
        line = {"what": what, "cells": [str(cell.name) for cell in cells], "seconds": seconds}
        with self._locked():
            self._write(_TIMES, line)

    def seconds(self, what: str) -> dict[str, float]:
        """Returns {name of a cell: its share of what `took` noted of it, all times together}."""
        found: dict[str, float] = collections.defaultdict(float)
        for line in self._lines(_TIMES):
            if line["what"] == what:
                for name in line["cells"]:
                    found[name] += line["seconds"] / len(line["cells"])
        return dict(found)

    def _append(self, what: str, **facts: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._write(_LOG, {"time": now, "what": what, **facts})

    def _write(self, name: str, line: dict[str, Any]) -> None:
        with (self.folder / name).open("ab+") as file:
            # A process that was killed may have left half a line.
            length = file.tell()
            file.seek(max(0, length - 1))
            start = "\n" if length and file.read() != b"\n" else ""
            file.write(f"{start}{json.dumps(line, sort_keys=True)}\n".encode())

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        if not path.is_file():
            return []
        found = []
        for text in filter(None, path.read_text().splitlines()):
            try:
                line = json.loads(text)
            except ValueError as error:
                cut_off = not text.endswith("}") or getattr(error, "pos", 0) >= len(text)
                if text.startswith("{") and cut_off:
                    continue  # by a process that was killed
                line = None
            if not isinstance(line, dict) or "what" not in line:
                raise InputError(
                    f"{path} has a line that no ablation has written: {text[:60]!r}; the file is left as it is"
                )
            found.append(line)
        return found

    def _digest_there(self) -> str | None:
        """Returns that of the spec that is there; None where none is."""
        path = self.folder / _SPEC
        if not path.is_file():
            return None
        there = read_json(path)
        if not isinstance(there, dict) or "digest" not in there:
            raise InputError(f"{path} is no spec that an ablation has written; it is left as it is")
        return str(there["digest"])

    def _opened(self) -> int:
        """Returns for how many cells test was opened, of this spec or an earlier one, logged or not."""
        logged = {line["cell"] for line in self.log() if "cell" in line}
        cells = self.folder / CELLS
        found = {str(path.parent.relative_to(cells)) for path in cells.glob("*/*/*/*/result.json")}
        return len(logged | found)

    def _unusable(self, why: object) -> InputError:
        return InputError(f"cannot use {self.folder} as --workdir: {why}")

    def _locked(self) -> filelock.BaseFileLock:
        return filelock.FileLock(self.folder / _LOCK)


def claims(path: pathlib.Path) -> filelock.BaseFileLock:
    """Returns the lock of a cell's run folder, which a launcher holds while it works there."""
    return filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)


def _digest(spec: Spec, cells: list[Cell]) -> str:
    facts: Iterator[Any] = (getattr(spec, name) for name in _OF_SPEC)
    opened, names = sorted(spec.opened), sorted(str(cell.name) for cell in cells)
    pairs = [f"{one} with {other}" for one, other in sorted(spec.pairs.items())]
    content = [*map(str, facts), "opened", *opened, *pairs, *names]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
