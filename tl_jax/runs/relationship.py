"""The relationship of the classes of source and data, learned when a run begins: what Co-Tuning trains towards.

N: training images; S: classes of the source; K: classes of the data.

Source: You, Kou, Long and Wang 2020, "Co-Tuning for Transfer Learning" (NeurIPS 2020), section 3.2, and
https://github.com/thuml/CoTuning, `module/relationship_learning.py`: regression without intercept, the strengths,
the choice by validation accuracy (the weakest of equals) and the calibration of the regression are as there. Two
things are not: means and marginals are over training images alone, where the code takes those of validation with
them, since validation chooses the step here; and the temperature of the source is a field, where the code multiplies
the logits by 0.884, that of one network.
"""

import dataclasses
from typing import Any

import numpy as np

from tl_jax import console
from tl_jax.errors import InputError
from tl_jax.objectives import relationship as related
from tl_jax.runs.image_features import of_split
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup
from tl_jax.runs.source_head import Relationship
from tl_jax.training import logistic

RELATIONSHIP_FILE = "relationship.json"  # in the folder of a run that needs one
# Inverse strengths of the regression, from the weakest penalty to the strongest.
_INVERSE_STRENGTHS = tuple(
    float(f"{digit}e{power}")
    for power in range(4, -5, -1)
    for digit in (3, 1)
    if (digit, power) != (3, 4)
)
# Of the training images of a class, the share that is held out of the regression where no validation is.
_HELD_OUT = 5
_NEAREST = 5
# Of the largest entry of the gradient: the scale of the scores follows from them, and few images leave it flat.
_TOLERANCE = 1e-6


def use(setup: Setup, learned: dict[Any, Relationship] | None = None) -> Setup:
    """Returns the run with the relationship of its classes, learned now; one that needs none as it is.

    The training images pass through the source network as they are, not augmented. The same run learns the same
    again when it is resumed.

    Args:
        setup: of the run, on images.
        learned: by earlier phases of the run, to which this one is added; None for none.

    Raises:
        InputError: if a class has no training image, or too few for the regression.
    """
    if not setup.minimised.needs_relationship or setup.relationship is not None:
        return setup
    section = setup.config.objective
    key = section.relationship, section.source_temperature
    learned = {} if learned is None else learned
    if key not in learned:
        learned[key] = _learned(setup, *key)
        rows, columns = learned[key].probabilities.shape
        console.say(
            f"relationship: {columns:,} classes of the source for each of {rows:,} labels, learned by the {key[0]} "
            f"approach ({RELATIONSHIP_FILE})"
        )
    return dataclasses.replace(setup, relationship=learned[key])


def write(folder: RunFolder, learned: dict[Any, Relationship]) -> None:
    """Writes what phases learned; nothing where none needed it."""
    if learned:
        folder.write_json(RELATIONSHIP_FILE, [one.facts for one in learned.values()])


def source_logits(setup: Setup, role: str) -> np.ndarray:
    """Returns the logits of the source network for the images of a split, float64 [N, S].

    Args:
        setup: of the run, on images.
        role: "train" or "validation".
    """
    assert setup.minimised.source_head is not None and setup.cache is None
    head, split = setup.minimised.source_head.params, setup.splits[role]
    # Of the start of the run, whatever phase this is.
    variables = setup.initial.variables
    found = of_split(setup, variables["params"], variables["batch_stats"], split)
    logits = found.astype(np.float64) @ head["kernel"].astype(np.float64)
    return logits + head["bias"] if "bias" in head else logits


def _learned(setup: Setup, method: str, temperature: float) -> Relationship:
    split, source = setup.splits["train"], setup.minimised.source_head
    assert source is not None
    labels, names = np.asarray(split.labels), split.class_names
    logits = source_logits(setup, "train")
    if not np.isfinite(logits).all():
        raise InputError(
            "the source network has logits of training images that are not finite; expected other weights"
        )
    probabilities = related.calibrated(logits, temperature)
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(empty):
        raise InputError(
            f"objective.relationship={method}: class {names[empty[0]]!r} has no training image, so that nothing is "
            "known of its classes of the source; expected one at least"
        )
    facts: dict[str, Any] = {}
    if method == related.DIRECT:
        found = related.direct(probabilities, labels, len(names))
    else:
        found, facts = _reversed(setup, probabilities, temperature)
    entropies = related.entropies(found)
    nearest = np.argsort(-found, axis=1, kind="stable")[:, :_NEAREST]
    rows = [
        {
            "class": name,
            "entropy": float(entropies[row]),
            "nearest": [
                {"class": source.class_names[place], "probability": float(found[row, place])}
                for place in nearest[row]
            ],
        }
        for row, name in enumerate(names)
    ]
    return Relationship(
        found.astype(np.float32),
        {
            "method": method,
            "source_temperature": temperature,
            "shape": list(found.shape),
            "images": len(labels),
            **facts,
            "classes": rows,
        },
    )


def _reversed(
    setup: Setup, probabilities: np.ndarray, temperature: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns the relationship by regression and Bayes' rule, float64 [K, S], and how it was found."""
    split = setup.splits["train"]
    labels, count = np.asarray(split.labels), len(split.class_names)
    if "validation" in setup.splits:
        judge = "validation"
        fitted = probabilities, labels
        judged = (
            related.calibrated(source_logits(setup, "validation"), temperature),
            np.asarray(setup.splits["validation"].labels),
        )
    else:
        judge = "training images held out of the regression"
        held = held_out(labels)
        fitted, judged = (
            (probabilities[places], labels[places])
            for places in (np.flatnonzero(~held), np.flatnonzero(held))
        )
    if not len(judged[1]):
        raise InputError(
            "objective.relationship=reverse: no validation images, and one training image of each class, so that "
            "nothing chooses the regression; expected objective.relationship=direct, or more images"
        )
    strengths = [1 / value for value in _INVERSE_STRENGTHS]
    solution = logistic.fit(
        *fitted,
        count,
        strengths,
        tolerance=_TOLERANCE,
        intercept=False,
        compilation=setup.compilation,
    )
    top1 = logistic.top1_accuracy(solution.kernel, solution.bias, *judged)
    chosen = int(np.argmax(top1))
    scores = solution.kernel[chosen].astype(np.float64)
    scale = 1 / related.fit_temperature(judged[0] @ scores, judged[1])
    found = related.reverse(scale * scores, probabilities.mean(0))
    return found, {
        "inverse_strength": _INVERSE_STRENGTHS[chosen],
        "scale": scale,
        "chosen_by": judge,
        "chosen_by_images": len(judged[1]),
        "top1_accuracy": float(top1[chosen]),
    }


def held_out(labels: np.ndarray) -> np.ndarray:
    """Returns which images are held out: of every class of two or more the last fifth, one at least; bool [N]."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - first[labels[order]]
    sizes = np.where(counts > 1, np.maximum(1, counts // _HELD_OUT), 0)
    return ranks >= (counts - sizes)[labels]
