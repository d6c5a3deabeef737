"""Images with something to learn, where no data are given: `data.name="synthetic:COUNT,SIZE"`."""

import numpy as np

from tl_jax import data

NUM_CLASSES = 10
# A fifth as many are test.
_TEST_SHARE = 5


def open_synthetic(rest: str) -> data.Source:
    """Returns a source of COUNT training images of SIZE pixels a side: a pattern per class, and noise."""
    count, size = map(int, rest.split(","))
    random = np.random.default_rng(0)
    # Coarse ones, of a colour in each quarter: a pretrained network tells them apart.
    half = -(-size // 2)
    patterns = random.integers(0, 256, (NUM_CLASSES, 2, 2, 3))
    patterns = patterns.repeat(half, axis=1).repeat(half, axis=2)[:, :size, :size]

    def split(number: int) -> tuple[np.ndarray, np.ndarray]:
        labels = (np.arange(number) % NUM_CLASSES).astype(np.int32)
        noise = random.integers(0, 256, (number, size, size, 3), dtype=np.uint8)
        return ((noise.astype(np.uint16) + patterns[labels]) // 2).astype(np.uint8), labels

    return data.Arrays(
        {"train": split(count), "test": split(max(NUM_CLASSES, count // _TEST_SHARE))}
    )


def register() -> None:
    """Makes it a kind of data set."""
    data.register("synthetic", open_synthetic)
