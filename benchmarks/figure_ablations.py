"""The tables of ablations and of what their engine is worth, each a function from the folder results/ to Markdown."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks import figure_cells, record
from benchmarks.figure_cells import table


@table
def ablations(results: pathlib.Path) -> str:
    """Sixty cells one by one and as an ablation; killed; how often intervals hold the truth."""

    def body(run: Mapping[str, Any]) -> str:
        one, other = (run["cells"]["seconds"][kind] for kind in ("one_by_one", "ablation"))
        furthest = max(run["cells"]["largest_difference"].values())
        killed, simulated = run["killed"], run["simulated"]
        at = ", ".join(map(str, killed["killed_at"]))
        rows = [
            [
                f"{run['cells']['cells']} cells, one after the other as ordinary runs",
                f"{one:.0f} s",
            ],
            [
                f"the same cells as an ablation, {run['cells']['opened']} of them with test, with tables and figures",
                f"{other:.0f} s ({one / other:.1f}x)",
            ],
            [
                "cells whose losses and accuracies are the same to the bit",
                f"{run['cells']['same_to_the_bit']} of {run['cells']['cells']}",
            ],
            ["largest difference of a loss or accuracy", figure_cells.error(furthest)],
            [
                f"killed with SIGKILL at {at} of {killed['cells']} cells: the same tables",
                "yes" if killed["same_tables"] and killed["read_once"] else "no",
            ],
        ]
        for seeds, held in simulated["coverage_by_seeds"].items():
            shown = ", ".join(f"{name} {100 * share:.1f}%" for name, share in held.items())
            rows.append([f"95% intervals over {seeds} seeds hold the truth", shown])
        images, null = simulated["bootstrap_over_images"], simulated["null_specs"]
        rows += [
            ["95% bootstrap intervals over images do", f"{100 * images['coverage']:.1f}%"],
            [
                f"specs of nothing but noise that are marked, at a level of {null['level']}",
                f"{null['marked']} of {null['specs']}",
            ],
        ]
        return figure_cells.markdown(["", ""], rows, "lr")

    return figure_cells.by_variant(results, "ablations", body)


def _shipped(results: pathlib.Path, name: str) -> str:
    path = results / "ablations" / f"{name}.json"
    if not path.is_file():
        return (
            f"Not measured yet: `python -m benchmarks.shipped_ablations --spec={name} "
            f"--workdir=DIR --out=results/ablations/{name}.json`."
        )
    run = figure_cells.read(path)
    several = len({row["shots"] for row in run["test"]}) > 1
    tuned = any(row["values"] for row in run["test"])
    head = ["variant", "n", "test, %", "difference, points", "p", "", "time of a run"]
    head = [*(["labels per class"] if several else []), *head, *(["chosen"] if tuned else [])]
    lines = []
    for row in run["test"]:
        of = row["difference"]
        values = ", ".join(f"{field}={value}" for field, value in row["values"].items())
        lines.append(
            [
                *([str(row["shots"] or "all")] if several else []),
                f"`{row['variant']}`",
                str(row["test"]["n"]),
                _estimate(row["test"]),
                "compared with" if of is None else _estimate(of, signed=True),
                "" if of is None or of["p"] is None else f"{of['p']:.2g}",
                {None: "", True: "differs", False: "noise"}[of and of["differs"]],
                _time_of_a_run(run, row),
                *([f"`{values}` (of {row['trials']})" if values else ""] if tuned else []),
            ]
        )
    seconds = run["seconds_of_cells"], run["seconds_of_test"]
    said = (
        f"{len(run['runs'])} runs, {len(run['seeds'])} seeds; training and validation "
        f"{figure_cells.duration(seconds[0])}, reading test {figure_cells.duration(seconds[1])}; cells of revision "
        + ", ".join(f"`{revision[:10]}`" for revision in run["revisions_of_cells"])
    )
    align = "r" * several + "lrrrrlr" + "l" * tuned
    return f"{figure_cells.markdown(head, lines, align)}\n\n{said}. {figure_cells.caption(run)}"


def _time_of_a_run(run: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Returns the mean time of the runs of a variant with a number of labels, those of all trials."""
    times = [
        of["seconds"]
        for of in run["runs"]
        if (of["variant"], of["shots"]) == (row["variant"], row["shots"]) and of["seconds"]
    ]
    return f"{sum(times) / len(times):.1f} s" if times else "-"


def _estimate(estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    """Returns "mean (low to high)" in percent."""
    if estimate["mean"] is None:
        return "not finite"
    sign = "+" if signed else ""
    mean = f"{100 * estimate['mean']:{sign}.2f}"
    if estimate["interval"] is None:
        return mean
    low, high = (100 * bound for bound in estimate["interval"])
    return f"{mean} ({low:{sign}.2f} to {high:{sign}.2f})"


# A table for each spec that is shipped, such as `ablation_null`.
for _path in (record.REPOSITORY / "configs" / "ablations").glob("*.py"):
    figure_cells.TABLES[f"ablation_{_path.stem}"] = functools.partial(_shipped, name=_path.stem)
