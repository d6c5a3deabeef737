"""What the report says about predictions: class by class, and the mistakes."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from tl_jax.reporting.run_files import Predictions
from tl_jax.training import metrics

_TOP_CONFUSIONS = 12
_MOST_MISTAKES = 36


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """One class of the table: its metrics as fractions and where its examples go instead.

    Attributes:
        name: the class.
        support: its examples.
        precision: of what was predicted as the class, the fraction that is.
        recall: of its examples, the fraction predicted as the class.
        f1: the harmonic mean of the two.
        mistaken_for: the class its examples are most often mistaken for; "" if never.
        mistaken: how often that happened.
    """

    name: str
    support: int
    precision: float
    recall: float
    f1: float
    mistaken_for: str
    mistaken: int


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A wrong answer and its picture, with the path of its image file, if it has one."""

    index: int
    true: str
    predicted: str
    confidence: float
    image: np.ndarray
    file: str = ""

    @property
    def caption(self) -> str:
        """What stands under the picture."""
        return f"true {self.true}, predicted {self.predicted} with {self.confidence:.2f}"

    @property
    def source(self) -> str:
        """Which example it is: its file with the folder that holds it, or its place in the split."""
        if not self.file:
            return f"example {self.index:,}"
        return "/".join(pathlib.PurePath(self.file).parts[-2:])


def class_rows(confusion: np.ndarray, class_names: tuple[str, ...]) -> list[ClassRow]:
    """Returns a row per class, lowest F1 first; classes without examples come last."""
    measured = metrics.per_class(confusion)
    mistakes = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    rows = []
    for place, name in enumerate(class_names):
        other = int(mistakes[place].argmax())
        count = int(mistakes[place, other])
        rows.append(
            ClassRow(
                name,
                int(measured["support"][place]),
                float(measured["precision"][place]),
                float(measured["recall"][place]),
                float(measured["f1"][place]),
                class_names[other] if count else "",
                count,
            )
        )
    return sorted(rows, key=lambda row: (row.support == 0, row.f1))


def top_confusions(confusion: np.ndarray, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Returns the most frequent mistakes: both classes, count, share of the true class."""
    mistakes = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    support = confusion.sum(axis=1)
    # Stable, so that equal counts come in the order of the classes.
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_TOP_CONFUSIONS]
    pairs = (divmod(int(cell), len(confusion)) for cell in order)
    return [
        {
            "true": class_names[row],
            "predicted": class_names[column],
            "count": int(mistakes[row, column]),
            "share": float(mistakes[row, column] / support[row]),
        }
        for row, column in pairs
        if mistakes[row, column]
    ]


def confident_mistakes(predictions: Predictions) -> list[Mistake]:
    """Returns the mistakes that there are pictures of, the most confident first."""
    rows = {int(index): row for row, index in enumerate(predictions.indices)}
    predicted, confidence = predictions.predicted, predictions.confidence
    found = []
    for index, image in predictions.images.items():
        row = rows.get(index)
        if row is None or predicted[row] == predictions.labels[row]:
            continue
        names = predictions.class_names
        found.append(
            Mistake(
                index,
                names[predictions.labels[row]],
                names[predicted[row]],
                float(confidence[row]),
                image,
                predictions.files.get(index, ""),
            )
        )
    return sorted(found, key=lambda mistake: -mistake.confidence)[:_MOST_MISTAKES]
