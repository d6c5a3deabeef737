"""Classic classifiers on features, in one table, with every setting that was tried."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tl_jax import files
from tl_jax.reporting import pages, scatter
from tl_jax.reporting.tables import duration


def write_routes(
    folder: str | os.PathLike[str], content: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Writes `routes.json` and `routes.html` into `folder`, with the scatter plots that `scatter.npz` there holds.

    Args:
        folder: where to write.
        content: `title`; `features` (`boundary`, `pool`, `count`); `rows`, a mapping for each route: `method`,
            `chosen` {hyperparameter: value}, `components`, `cv_accuracy`, `cv_accuracy_std`, `top1_accuracy`,
            `top1_interval`, `macro_precision`, `macro_recall`, `macro_f1`, `search_seconds`, `fit_seconds`,
            `converged`, `not_converged_in_search`; `finetuned`, one such mapping without what only a search has,
            or None; `chosen`, the method; `folds`; `examples` (`train`, `of`, `searched`, `test`); `reported`;
            `settings` {method: rows}.

    Returns:
        The table as rows for `print_table`.
    """
    folder = pathlib.Path(folder)
    files.write(folder / "routes.json", files.to_json(dict(content)))
    table = [_shown(row) for row in (*content["rows"], content["finetuned"]) if row is not None]
    chosen = next(row for row in content["rows"] if row["method"] == content["chosen"])
    page = pages.render(
        "routes.html",
        table=table,
        best=chosen,
        warnings=[
            f"{row['method']}: {text}" for row in content["rows"] if (text := not_converged(row))
        ],
        scatter=scatter.write_plots(folder),
        **content,
    )
    files.write(folder / "routes.html", page)
    return table


def not_converged(row: Mapping[str, Any]) -> str:
    """Returns which fits of a route did not converge, in words; "" where all did."""
    parts = []
    if row["converged"] is False:
        parts.append("the last fit did not converge")
    if row["not_converged_in_search"]:
        parts.append(f"{row['not_converged_in_search']} fits of the search did not converge")
    return "; ".join(parts)


def setting(row: Mapping[str, Any]) -> str:
    """Returns the chosen hyperparameters of a route, such as "no PCA, shrinkage 0.1"."""
    values = dict(row["chosen"])
    pca = values.pop("pca")
    if pca == 0:
        first = "no PCA"
    elif pca < 1:
        first = f"PCA of {100 * pca:g}% ({row['components']} components)"
    else:
        first = f"PCA of {pca:g} components"
    return ", ".join([first, *(f"{name} {value:g}" for name, value in values.items())])


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of the table; a run that is shown beside the routes has no search."""
    low, high = row["top1_interval"]
    searched = "cv_accuracy" in row
    validated = ""
    if searched:
        validated = f"{100 * row['cv_accuracy']:.2f} ± {100 * row['cv_accuracy_std']:.2f}"
    return {
        "route": row["method"],
        "chosen": setting(row) if searched else "",
        "CV (%)": validated,
        "test top-1 (%)": f"{100 * row['top1_accuracy']:.2f} ({100 * low:.1f} to {100 * high:.1f})",
        "precision": f"{100 * row['macro_precision']:.1f}",
        "recall": f"{100 * row['macro_recall']:.1f}",
        "F1": f"{100 * row['macro_f1']:.1f}",
        "search": duration(row["search_seconds"]) if searched else "",
        "fit": duration(row["fit_seconds"]),
    }
