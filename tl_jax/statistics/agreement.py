"""How often two runs predict the same class, right or wrong.

Shapes: N images.
"""

import numpy as np

from tl_jax.errors import InputError


def agreement(predicted: np.ndarray, other: np.ndarray) -> float:
    """Returns the share of images of which two runs predict the same class, in [0, 1].

    Args:
        predicted: int [N], the classes that the one predicts.
        other: int [N], those of the other.

    Raises:
        InputError: without images, or if there are not as many of both.

    Example:
        >>> agreement(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
        0.75
    """
    _check(predicted, other)
    return float(np.mean(predicted == other))


def cohens_kappa(predicted: np.ndarray, other: np.ndarray) -> float | None:
    """Returns the agreement beyond chance: (a - c) / (1 - c) for an agreement a.

    c is the agreement of two runs that predict each class as often as these do, but independently of each other.

    Args:
        predicted: int [N], the classes that the one predicts.
        other: int [N], those of the other.

    Returns:
        None where c is 1: both predict the same single class.

    Raises:
        InputError: as `agreement`.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales".

    Example:
        >>> cohens_kappa(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
        0.5
    """
    _check(predicted, other)
    classes = np.union1d(predicted, other)
    by_chance = sum(float(np.mean(predicted == each) * np.mean(other == each)) for each in classes)
    if len(classes) == 1:
        return None
    return (agreement(predicted, other) - by_chance) / (1 - by_chance)


def _check(predicted: np.ndarray, other: np.ndarray) -> None:
    if predicted.ndim != 1 or predicted.shape != other.shape or not len(predicted):
        raise InputError(
            f"predictions of images {list(predicted.shape)} and {list(other.shape)}: expected the same images, at "
            "least one"
        )
