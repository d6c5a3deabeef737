"""Rows as a table: on the terminal and in Markdown."""

import csv
import datetime
import io
import math
import numbers
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import rich.box
import rich.console
import rich.table
import rich.text

from tl_jax import console

Rows = Sequence[Mapping[str, Any]]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
# Wider than any table of ours: without a terminal there is nothing to wrap to.
_PLAIN_WIDTH = 400


def print_table(
    title: str,
    rows: Rows,
    *,
    level: str = "verbose",
    stream: TextIO | None = None,
    as_named: bool = False,
) -> None:
    """Prints rows as a table, the columns being all their keys in order of appearance.

    Args:
        title: the line above the table.
        rows: one mapping per row; a key that a row lacks leaves its cell empty.
        level: of `console.LEVELS`, at which it is printed; "normal" for what was asked for.
        stream: where to write; standard output by default.
        as_named: whether the keys are the headings as they are: names that a user gave, not fields.
    """
    if not console.shows(level):
        return
    terminal = rich.console.Console(file=sys.stdout if stream is None else stream)
    if not terminal.is_terminal:
        terminal.width = _PLAIN_WIDTH
    table = rich.table.Table(
        title=rich.text.Text(title), title_justify="left", box=rich.box.SIMPLE_HEAD, pad_edge=False
    )
    for name in columns(rows):
        table.add_column(
            rich.text.Text(name if as_named else label(name)),
            justify="right" if is_numeric(rows, name) else "left",
        )
    for row in rows:
        table.add_row(*(rich.text.Text(format_value(row.get(name))) for name in columns(rows)))
    terminal.print(table)


def format_markdown(rows: Rows, *, as_named: bool = False) -> str:
    """Returns rows as a GitHub-flavoured Markdown table, numbers to the right.

    Args:
        rows: as for `print_table`.
        as_named: likewise.

    Example:
        >>> print(format_markdown([{"method": "linear_probe", "images": 45000}]))
        | method | images |
        |---|---:|
        | linear_probe | 45,000 |
    """
    names = columns(rows)
    lines = [
        [name if as_named else label(name) for name in names],
        *([format_value(row.get(name)) for name in names] for row in rows),
    ]
    header, *body = ["| " + " | ".join(map(_escape_markdown, cells)) + " |" for cells in lines]
    rule = "|" + "|".join("---:" if is_numeric(rows, name) else "---" for name in names) + "|"
    return "\n".join([header, rule, *body])


def format_latex(rows: Rows) -> str:
    r"""Returns rows as a LaTeX table for the package booktabs, numbers to the right.

    Example:
        >>> print(format_latex([{"method": "linear_probe", "share": "5%"}]))
        \begin{tabular}{ll}
        \toprule
        method & share \\
        \midrule
        linear\_probe & 5\% \\
        \bottomrule
        \end{tabular}
    """
    names = columns(rows)
    lines = [
        [label(name) for name in names],
        *([format_value(row.get(name)) for name in names] for row in rows),
    ]
    header, *body = [" & ".join(map(_escape_latex, cells)) + r" \\" for cells in lines]
    kinds = "".join("r" if is_numeric(rows, name) else "l" for name in names)
    parts = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", header, r"\midrule", *body]
    return "\n".join([*parts, r"\bottomrule", r"\end{tabular}"])


def format_csv(rows: Rows) -> str:
    """Returns rows as comma-separated values, numbers in full.

    Example:
        >>> print(format_csv([{"method": "a, b", "images": 45000}]), end="")
        method,images
        "a, b",45000
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def columns(rows: Rows) -> list[str]:
    """Returns every key of the rows once, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def label(name: str) -> str:
    """Returns a field name as a heading: "optimizer_state_bytes" as "optimizer state bytes"."""
    words = re.sub(r"\btop(\d)", r"top-\1", name.replace("_", " "))
    return re.sub(r"\bf1\b", "F1", words)


def is_numeric(rows: Rows, name: str) -> bool:
    """Returns whether the column holds numbers only (and at least one)."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return bool(values) and all(
        isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values
    )


def format_value(value: Any) -> str:
    """Returns a cell: 45000 as "45,000", 0.123456 as "0.1235", None as ""."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case numbers.Integral():
            return f"{int(value):,}"
        case numbers.Real():
            number = float(value)
            if math.isfinite(number) and abs(number) >= 1000:
                return f"{number:,.0f}"
            return f"{number:.4g}"
        case list() | tuple():
            return ", ".join(format_value(item) for item in value)
        case _:
            return str(value)


def format_setting(value: Any) -> str:
    """Returns a setting as it would be written: no digit of a number is rounded away.

    Example:
        >>> format_setting(0.000123456), format_setting(["a", "b"]), format_setting([])
        ('0.000123456', 'a, b', 'none')
    """
    if isinstance(value, list):
        return ", ".join(format_setting(item) for item in value) or "none"
    return "none" if value is None or value == "" else str(value)


def number(value: Any) -> float:
    """Returns a JSON value as a float: NaN for null and anything that is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def duration(seconds: float) -> str:
    """Returns seconds as "12.3 s", "1:15 min" or "1:06:40 h"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    text = str(datetime.timedelta(seconds=round(seconds)))
    return f"{text} h" if seconds >= 3600 else f"{text.removeprefix('0:').removeprefix('0')} min"


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
