"""Maps as vectors."""

import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.features.pooling import as_vectors

MAPS = np.array([[[[1, 10], [2, 20]], [[3, 30], [6, 60]]]], np.float64)  # [1, 2, 2, 2]


@pytest.mark.parametrize(
    ("pool", "expected"),
    [("mean", [[3.0, 30.0]]), ("flatten", [[1, 10, 2, 20, 3, 30, 6, 60]])],
)
def test_maps_become_vectors(pool, expected):
    found = as_vectors(MAPS, pool)
    assert found.dtype == np.float32 and found.tolist() == expected


@pytest.mark.parametrize("pool", ["mean", "flatten"])
def test_vectors_stay_what_they_are(pool):
    assert as_vectors(np.array([[1.0, 2.0]]), pool).tolist() == [[1.0, 2.0]]


def test_an_unknown_pool_is_named():
    with pytest.raises(InputError, match=r"unknown features\.pool 'max'.*mean"):
        as_vectors(MAPS, "max")
