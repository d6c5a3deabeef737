"""What is in a data set: a page with its leakage, its classes and examples of them."""

import os
import pathlib
from typing import Any

from tl_jax import files
from tl_jax.data import Inspection, inspection
from tl_jax.reporting import pages

PAGE, FACTS = "inspection.html", "inspection.json"
_PAIRS_SHOWN = 24
_LINES_SHOWN = 200
_SIDE = 64  # of a picture, in pixels
_WORDS = {"bytes": "byte for byte", "pixels": "same pixels", "near": "nearly the same"}


def write_inspection(
    folder: str | os.PathLike[str], found: Inspection, examples: int = 8
) -> pathlib.Path:
    """Writes `inspection.json` and `inspection.html` into `folder`; returns the page.

    Args:
        folder: where to write.
        found: see `data.inspect`.
        examples: pictures shown of each class, of the first split.
    """
    folder = pathlib.Path(folder)
    facts = found.to_json()
    files.write(folder / FACTS, files.to_json(facts))
    split = next(iter(found.splits))
    pictures = inspection.examples(found.splits[split], examples, _SIDE)
    counts = found.counts()
    # The same images before those that look alike; in two splits, and with two labels, first.
    pairs = sorted(
        found.pairs,
        key=lambda pair: (
            pair.kind == "near",
            pair.first[0] == pair.second[0],
            not pair.other_class,
        ),
    )
    page = pages.render(
        "inspection.html",
        title=found.name,
        leaks=facts["leakage"].startswith("leakage") and len(found.splits) > 1,
        facts=facts,
        words=_WORDS,
        class_rows=[
            {"class": name, **{split: int(of[label]) for split, of in counts.items()}}
            for label, name in enumerate(found.class_names)
        ],
        sheets=[
            {
                "name": name,
                "src": pages.strip_uri(pictures[label]) if pictures.get(label) else "",
            }
            for label, name in enumerate(found.class_names)
        ],
        split=split,
        pairs=[_pair(found, pair) for pair in pairs[:_PAIRS_SHOWN]],
        number_of_pairs=len(pairs),
        unreadable=facts["unreadable"][:_LINES_SHOWN],
        side=_SIDE,
    )
    path = folder / PAGE
    files.write(path, page)
    return path


def _pair(found: Inspection, pair: inspection.Pair) -> dict[str, Any]:
    row = found.describe(pair)
    shown = (
        inspection.picture(found.splits[split], place, _SIDE)
        for split, place in (pair.first, pair.second)
    )
    row["src"] = pages.strip_uri([pixels for pixels in shown if pixels is not None])
    return row
