"""The result of a sweep: every member as JSON, a page with the chosen combination and all others."""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tl_jax import files, statistics
from tl_jax.reporting import intervals, pages, plots, tables

_TOP1 = "best_validation_top1"
_HYPERPARAMETERS = ("learning_rate", "weight_decay", "label_smoothing", "l2_sp")


def write_sweep(folder: str | os.PathLike[str], content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Writes `sweep.json` and `sweep.html` into `folder`.

    Args:
        folder: where to write.
        content: `title`; `fields`, the hyperparameters with several values; `members`, a mapping each:
            the hyperparameters, `seed`, `best_validation_top1`, `best_step`, `stopped_at`, `diverged`
            and, where the test accuracy was measured, `test_top1` (for all seeds of the chosen
            combination at least); `chosen`, the hyperparameters and the `place` of the best seed of the
            chosen combination; `over_seeds`, of this combination `validation` and `test`, the fields of
            a `statistics.Mean` each; `test_was_read`, for which members; `validation_examples`;
            `test_examples`; `seconds` {part: number}; and other values for `sweep.json`.

    Returns:
        A row per combination of hyperparameters, the best mean over seeds first.
    """
    folder = pathlib.Path(folder)
    files.write(folder / "sweep.json", files.to_json(dict(content)))
    members, fields = content["members"], content["fields"]
    rows = combinations(members, fields)
    chosen = members[content["chosen"]["place"]]
    figure = _figure(members, fields, chosen)
    picture = None
    if figure is not None:
        png = plots.to_png(figure)
        files.write(folder / "plots" / "sweep.png", png)
        picture = {"src": pages.png_uri(png), "alt": _alt(fields)}
    over_seeds = {name: statistics.Mean(**fields) for name, fields in content["over_seeds"].items()}
    page = pages.render(
        "sweep.html",
        title=content["title"],
        rows=rows,
        columns=tables.columns(rows),
        picture=picture,
        chosen={name: chosen[name] for name in _HYPERPARAMETERS},
        over_seeds=over_seeds,
        test_was_read=content["test_was_read"],
        best_seed=chosen["seed"],
        validation_top1=chosen[_TOP1],
        test_top1=chosen["test_top1"],
        test_interval=intervals.of_accuracy(chosen["test_top1"], content["test_examples"]),
        best_step=chosen["best_step"],
        validation_examples=content["validation_examples"],
        test_examples=content["test_examples"],
        seconds=content["seconds"],
        members=[
            {
                **{name: member[name] for name in (*fields, "seed")},
                "validation top-1 (%)": 100 * member[_TOP1],
                "best step": member["best_step"],
                "stopped at": member["stopped_at"],
                "diverged": member["diverged"],
                "test top-1 (%)": 100 * member["test_top1"] if "test_top1" in member else None,
            }
            for member in members
        ],
    )
    files.write(folder / "sweep.html", page)
    return rows


def combinations(
    members: Sequence[Mapping[str, Any]], fields: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns a row per combination: its fields, seeds and validation mean with interval, the best first.

    Example:
        >>> runs = [{"learning_rate": 0.1, "seed": s, "best_validation_top1": v, "diverged": False}
        ...         for s, v in [(0, 0.5), (1, 0.7)]]
        >>> row = combinations(runs, ["learning_rate"])[0]
        >>> row["validation top-1 (95%)"], row["seeds"]
        ('60.00% (-67.06 to 187.06)', 2)
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for member in members:
        groups.setdefault(tuple(member[name] for name in fields), []).append(member)
    # Sorted in place of being chosen: the first of equals stays first.
    ordered = sorted(groups.items(), key=lambda item: -_percent(item[1])[0])
    return [
        {
            **dict(zip(fields, values, strict=True)),
            "seeds": len(own),
            "validation top-1 (95%)": intervals.mean(_estimate(own)),
            "best seed": f"{100 * max(member[_TOP1] for member in own):.2f}%",
            "diverged": sum(member["diverged"] for member in own),
        }
        for values, own in ordered
    ]


def _figure(members, fields, chosen):
    """Returns the picture of the first two swept fields, the others as chosen; None where none is swept."""
    shown, others = fields[:2], fields[2:]
    if not shown:
        return None
    own = [m for m in members if all(m[name] == chosen[name] for name in others)]
    axes = [sorted({member[name] for member in own}) for name in shown]
    found = [
        [member for member in own if [member[name] for name in shown] == list(place)]
        for place in _places(axes)
    ]
    mean, half = np.array([_percent(group) for group in found]).T
    title = "Validation top-1 (%)"
    if others:
        title += "\nat " + ", ".join(f"{tables.label(name)} {chosen[name]:g}" for name in others)
    place = [values.index(chosen[name]) for values, name in zip(axes, shown, strict=True)]
    labels = [tables.label(name) for name in shown]
    if len(shown) == 1:
        bars = half if np.isfinite(half).all() else None
        return plots.over_values(
            title, labels[0], axes[0], {"validation": (mean, bars)}, chosen[shown[0]]
        )
    shape = (len(axes[0]), len(axes[1]))
    return plots.heatmap(
        title,
        (labels[1], axes[1]),
        (labels[0], axes[0]),
        mean.reshape(shape),
        half.reshape(shape),
        (place[0], place[1]),
    )


def _places(axes: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    if len(axes) == 1:
        return [(value,) for value in axes[0]]
    return [(first, second) for first in axes[0] for second in axes[1]]


def _estimate(members: Sequence[Mapping[str, Any]]) -> statistics.Mean:
    return statistics.mean_over_seeds([member[_TOP1] for member in members])


def _percent(members: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Returns the mean over seeds and half its interval, in percent; NaN for that of one seed."""
    estimate = _estimate(members)
    mean = math.nan if estimate.mean is None else 100 * estimate.mean
    return mean, math.nan if estimate.interval is None else 100 * estimate.interval[1] - mean


def _alt(fields: Sequence[str]) -> str:
    return "Validation accuracy by " + " and ".join(tables.label(name) for name in fields[:2])
