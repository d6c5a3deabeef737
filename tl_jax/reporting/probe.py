"""The result of a probe by logistic regression: a page with accuracy over regularisation."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import files
from tl_jax.reporting import intervals, pages, plots


def write_probe(
    folder: str | os.PathLike[str],
    title: str,
    rows: Sequence[Mapping[str, Any]],
    chosen: float,
    result: Mapping[str, Any],
) -> None:
    """Writes `probe.json`, `probe.html` and `plots/probe.png` into `folder`.

    Args:
        folder: where to write.
        title: of the page.
        rows: one mapping per strength: `strength`, `train_top1`, `validation_top1`, `evaluations`,
            `converged`.
        chosen: the strength that was refitted.
        result: with `splits`, whose `test` and `validation` have `top1_accuracy` and `examples`.
    """
    folder = pathlib.Path(folder)
    test = result["splits"]["test"]
    files.write(folder / "probe.json", files.to_json({"strengths": list(rows), "chosen": chosen}))
    figure = plots.over_values(
        "Top-1 accuracy (%)",
        "L2 strength",
        [row["strength"] for row in rows],
        {
            split: ([100 * row[f"{split}_top1"] for row in rows], None)
            for split in ("train", "validation")
        },
        chosen,
    )
    png = plots.to_png(figure)
    files.write(folder / "plots" / "probe.png", png)
    page = pages.render(
        "probe.html",
        title=title,
        picture={
            "src": pages.png_uri(png),
            "alt": "Accuracy over the strength of L2 regularisation",
        },
        rows=rows,
        chosen=chosen,
        splits=result["splits"],
        test_interval=intervals.of_accuracy(test["top1_accuracy"], test["examples"]),
        selection=result["selection"],
    )
    files.write(folder / "probe.html", page)
