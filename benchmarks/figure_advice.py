"""The table of advice and what runs then showed, a function from the folder results/ to Markdown."""

import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks import figure_cells
from benchmarks.figure_cells import table


@table
def advice(results: pathlib.Path) -> str:
    """What was said of data sets that no finding is of, over seeds, and how often runs agreed."""
    path = results / "advice.json"
    if not path.is_file():
        return figure_cells.missing("advice")
    run = figure_cells.read(path)
    return f"{_body(run)}\n\n{figure_cells.caption(run)}"


def _body(run: Mapping[str, Any]) -> str:
    rows: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in run["rows"]:
        rows.setdefault((row["data"], row["question"], row["verdict"]), []).append(row)
    lines = [
        [
            f"`{data}`",
            question,
            f"`{verdict}`",
            str(len(of)),
            of[0]["compared"],
            f"{100 * of[0]['difference']:+.1f} "
            f"({100 * of[0]['interval'][0]:+.1f} to {100 * of[0]['interval'][1]:+.1f})",
            "yes" if of[0]["right"] else "no",
        ]
        for (data, question, verdict), of in rows.items()
    ]
    head = ["data", "question", "said", "for seeds", "compared", "difference, points", "right"]
    whole = figure_cells.markdown(head, lines, "lllrlrl")
    return (
        f"{whole}\n\n{run['right']} of {run['given']} verdicts were right, with {run['labels_per_class']} labels per "
        f"class and {len(run['seeds'])} seeds."
    )
