"""The JSON of a stage: written whole after every row, read again when the command goes on."""

import dataclasses
import hashlib
import json
import math
import pathlib
from typing import Any

from benchmarks.accelerator.rows import Row
from tl_jax import files

MEASURED, INCOMPLETE, FAILED, NOT_RUN = "measured", "incomplete", "failed", "not run"


class StageFile:
    """The rows of a stage, and their file.

    A row is {"status", "seconds", "identity", ...}. Status is "measured"; "incomplete" where a part of it
    failed; "failed"; or "not run" with its "reason".

    Attributes:
        rows: by name.
        facts: what all rows have in common: device, versions, revision, ...
        not_run: reasons, by the names of the rows that this call had no time for.
    """

    def __init__(self, path: pathlib.Path, facts: dict[str, Any]):
        """Reads what an earlier call left; an unreadable file is set aside under another name.

        Args:
            path: of the file.
            facts: that are written with the rows; those that are None are kept from the earlier call.
        """
        self._path = path
        earlier = _read(path)
        self.rows: dict[str, dict[str, Any]] = earlier.get("rows", {})
        self.facts = {
            name: earlier.get(name) if value is None else value for name, value in facts.items()
        }
        self.not_run: dict[str, str] = {}
        self.summary: dict[str, Any] = {}

    def is_measured(self, name: str, identity: str) -> bool:
        """Returns whether a row was measured under this identity."""
        row = self.rows.get(name, {})
        return row.get("status") == MEASURED and row.get("identity") == identity

    def write(self) -> None:
        """Writes the file whole."""
        table = {
            **self.facts,
            "summary": self.summary,
            "not_run": self.not_run,
            "rows": self.rows,
        }
        files.write(self._path, json.dumps(as_json(table), indent=1, allow_nan=False) + "\n")


def identity(row: Row, facts: dict[str, Any]) -> str:
    """Returns a digest of what a row measures and what its figures depend on."""
    names = ("code", "device", "versions")
    content = [dataclasses.asdict(row), {name: facts.get(name) for name in names}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def code_digest(repository: pathlib.Path) -> str:
    """Returns a digest of all code that a figure can depend on, in a checkout or in a copy without one."""
    digest = hashlib.sha256()
    for folder in ("benchmarks", "configs", "tests/porting", "tl_jax"):
        for path in sorted((repository / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(repository).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def as_json(value: Any) -> Any:
    """Returns a value with numbers that are not finite as text: JSON has none of these."""
    if isinstance(value, dict):
        return {str(name): as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _read(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("rows", {}), dict):
        path.replace(path.with_name(f"{path.name}.unreadable"))
        return {}
    return found
