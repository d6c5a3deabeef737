"""The account of a port: the use of every source tensor and the origin of every leaf."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the account.

    Attributes:
        target: leaf name, such as `params/stem/conv/kernel`; empty if a source tensor is waived.
        source: name of the source tensor; empty if the leaf is reset.
        status: "filled", "reset" (the leaf keeps its fresh value) or "waived" (an unused tensor).
        layout: the change of layout, such as `OIHW->HWIO`, or "none".
        shape, dtype: of the leaf; of the source tensor where it is waived.
        source_shape, source_dtype: of the source tensor; empty where the leaf is reset.
        rule: why a leaf is reset or a tensor waived, and which cast was made; empty otherwise.
    """

    target: str
    source: str
    status: str
    layout: str
    shape: tuple[int, ...]
    dtype: str
    source_shape: tuple[int, ...]
    source_dtype: str
    rule: str


@dataclasses.dataclass(frozen=True)
class PortReport:
    """What was ported from where; written as `port_report.json`.

    Attributes:
        source: the file, empty where the tensors came from memory.
        sha256: of that file.
        naming: the scheme that was recognised.
        head: "keep" or "reset".
        unwrapped: wrappers and prefixes that were taken off, outermost first.
        beside: names of the entries next to a wrapper, which hold no weights.
        weights: the registry name, empty for a file of the user's.
        channel_order: of the images that the source's network took, "rgb" or "bgr"; the ported one takes RGB.
        entries: one row per leaf and per waived tensor.
    """

    naming: str
    head: str
    entries: tuple[Row, ...]
    source: str = ""
    sha256: str = ""
    unwrapped: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    weights: str = ""
    channel_order: str = "rgb"

    def counts(self) -> dict[str, int]:
        """Returns the number of leaves filled and reset and of source tensors waived."""
        statuses = [row.status for row in self.entries]
        return {status: statuses.count(status) for status in ("filled", "reset", "waived")}

    def rows(self) -> list[dict[str, Any]]:
        """Returns the entries as dicts."""
        return [dataclasses.asdict(row) for row in self.entries]

    def groups(self) -> list[dict[str, Any]]:
        """Returns the account summed up by part of the network and its use, for a table.

        Each row holds group, status, tensors, values (scalars in all), layout and rule.
        """
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for entry in self.entries:
            group = entry.target.split("/")[1] if entry.target else "not used"
            row = rows.setdefault(
                (group, entry.status, entry.rule),
                {
                    "group": group,
                    "status": entry.status,
                    "tensors": 0,
                    "values": 0,
                    "layout": set(),
                },
            )
            row["tensors"] += 1
            row["values"] += math.prod(entry.shape)
            row["layout"].add(entry.layout)
        return [
            {**row, "layout": ", ".join(sorted(row["layout"] - {"none", ""})), "rule": rule}
            for (_, _, rule), row in rows.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns the report as plain lists, dicts, strings and numbers."""
        fields = dataclasses.asdict(self)
        fields["entries"] = [
            {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}
            for row in self.rows()
        ]
        fields["unwrapped"], fields["beside"] = list(self.unwrapped), list(self.beside)
        return {"format": 1, "counts": self.counts(), **fields}

    def summary(self) -> str:
        """Returns one line: the source, its naming and the counts."""
        counts = ", ".join(f"{number} {status}" for status, number in self.counts().items())
        origin = self.weights or self.source or "tensors in memory"
        digest = f", sha256 {self.sha256[:12]}" if self.sha256 else ""
        return f"ported {origin} ({self.naming} naming, head {self.head}{digest}): {counts}"

    def table(self) -> str:
        """Returns the whole account as aligned plain text, one line per entry."""
        header = ("target", "source", "status", "layout", "shape", "dtype", "rule")
        lines = [header] + [
            (
                row.target or "-",
                row.source or "-",
                row.status,
                row.layout,
                "x".join(map(str, row.shape)) or "scalar",
                row.dtype,
                row.rule,
            )
            for row in self.entries
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
