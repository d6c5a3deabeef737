"""The order of examples, as arithmetic: no iterator state exists, so there is none to lose.

The examples of update `t` are places `t * batch_size` to `(t + 1) * batch_size` of an endless
concatenation of permutations of the split, one per epoch, so a batch may span two epochs. Resuming
at `t` needs only `t`.
"""

import dataclasses
import functools

import numpy as np

from tl_jax.errors import InputError, unknown

DRAWS = ("cycle", "random")
# Tells the choice of views from the other uses of a seed.
_VIEWS = 5 << 40


def batch_indices(seed: int, step: int, batch_size: int, num_examples: int) -> np.ndarray:
    """Returns the indices of the examples of update `step`: int64 [batch_size].

    A pure function of its arguments, the same on every machine and numpy version. Every run of
    `num_examples` places that starts at a multiple of `num_examples` holds each example once.

    Args:
        seed: integer from 0; another seed gives another order.
        step: number of updates completed before this one, from 0.
        batch_size: global batch size, from 1 to `num_examples`.
        num_examples: size of the split.

    Raises:
        InputError: if the batch does not fit into one epoch, or an argument is out of range.

    Example:
        >>> sorted(int(i) for step in range(3) for i in batch_indices(0, step, 2, 6))
        [0, 1, 2, 3, 4, 5]
    """
    check_batch_size(batch_size, num_examples)
    if seed < 0 or step < 0:
        raise InputError(
            f"seed and step must be integers from 0; given seed {seed} and step {step}"
        )
    epoch, offset = divmod(step * batch_size, num_examples)
    first = _permutation(seed, epoch, num_examples)[offset : offset + batch_size]
    if len(first) == batch_size:
        return first.copy()
    rest = _permutation(seed, epoch + 1, num_examples)[: batch_size - len(first)]
    return np.concatenate([first, rest])


@dataclasses.dataclass(frozen=True)
class Order:
    """Which rows of a training split each update sees: a pure function of the update.

    Attributes:
        seed: of the order.
        batch_size: global.
        num_examples: N, of the split.
        views: V, stored views of each example; row r of the N * V is view r % V of example r // V.
        draw: how an example's view is chosen when it comes round: "cycle", each in turn, beginning
            with another one from example to example; or "random", one of them by chance.

    Raises:
        InputError: if the batch does not fit into one epoch, or an argument is out of range.
    """

    seed: int
    batch_size: int
    num_examples: int
    views: int = 1
    draw: str = "cycle"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_batch_size(self.batch_size, self.num_examples)
        if self.views < 1:
            raise InputError(f"views={self.views}: expected at least 1")
        if self.draw not in DRAWS:
            raise unknown("draw of views", self.draw, DRAWS)

    def examples(self, step: int) -> np.ndarray:
        """Returns the examples of update `step`: int64 [B]."""
        return batch_indices(self.seed, step, self.batch_size, self.num_examples)

    def rows(self, step: int) -> np.ndarray:
        """Returns the rows of update `step`: int64 [B]."""
        examples = self.examples(step)
        if self.views == 1:
            return examples
        if self.draw == "random":
            entropy = np.random.SeedSequence((self.seed, step, _VIEWS))
            bits = np.random.Philox(entropy).random_raw(self.batch_size)
            chosen = (bits % np.uint64(self.views)).astype(np.int64)
        else:
            places = step * self.batch_size + np.arange(self.batch_size)
            chosen = (places // self.num_examples + examples) % self.views
        return examples * self.views + chosen


def check_batch_size(batch_size: int, num_examples: int) -> None:
    """Raises InputError unless 1 <= batch_size <= num_examples."""
    if not 1 <= batch_size <= num_examples:
        raise InputError(
            f"batch size {batch_size} does not fit the split of {num_examples} examples; "
            f"expected an integer from 1 to {num_examples}"
        )


def shuffled(num: int, *entropy: int) -> np.ndarray:
    """Returns a permutation of range(num), int64, that depends only on `num` and `entropy`.

    It sorts raw generator output, which numpy promises to keep; `Generator.permutation` may change
    between numpy releases (NEP 19), and with it every recorded result.
    """
    bits = np.random.Philox(np.random.SeedSequence(entropy)).random_raw(num)
    return np.argsort(bits, kind="stable")


# Four: two splits read side by side, each with a batch that spans two epochs.
@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    permutation = shuffled(num_examples, seed, epoch)
    permutation.flags.writeable = False
    return permutation
