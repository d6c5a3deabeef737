"""The order of examples, as arithmetic: no iterator state exists, so there is none to lose.

The examples of update `t` are places `t * batch_size` to `(t + 1) * batch_size` of an endless sequence:
permutations of the split, one per epoch; the split as it is stored; or classes in turn. A batch may span
two epochs. Resuming at `t` needs only `t`.
"""

import dataclasses
import functools
import math

import numpy as np

from tl_jax.errors import InputError, unknown

DRAWS = ("cycle", "random")
SHUFFLED, STORED, BALANCED = "shuffled", "stored", "balanced"
ORDERS = (SHUFFLED, STORED, BALANCED)
# Tell the uses of a seed from each other.
_VIEWS, _CLASS_TURNS, _CLASS_EXAMPLES, _PLACES = 5 << 40, 6 << 40, 7 << 40, 8 << 40


def examples_by_class(labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the examples of each class that has some, int64 [n] in stored order.

    Args:
        labels: int [N].

    Example:
        >>> [examples.tolist() for examples in examples_by_class(np.array([3, 0, 3]))]
        [[1], [0, 2]]
    """
    by_class = np.argsort(labels, kind="stable")
    _, starts = np.unique(np.asarray(labels)[by_class], return_index=True)
    return tuple(np.split(by_class, starts[1:]))


@dataclasses.dataclass(frozen=True)
class Order:
    """Which rows of a training split each update sees: a pure function of the update.

    It is the same on every machine and numpy version. Without repeats, every run of N places of a shuffled or stored
    order that starts at a multiple of N holds each example once.

    Attributes:
        seed: of the order.
        batch_size: global.
        num_examples: N, of the split.
        views: V, stored views of each example; row r of the N * V is view r % V of example r // V.
        draw: how an example's view is chosen when it comes round: "cycle", each in turn, beginning
            with another one from example to example; or "random", one of them by chance.
        kind: "shuffled", another permutation of all examples in every epoch; "stored", the order of the
            split in every epoch; or "balanced": classes take turns, so that in every batch the numbers of
            any two differ by one at most, and each draws its examples in permutations of its own. N places
            of a balanced order hold examples of small classes several times, of large ones not all.
        repeats: R, how many times in a row each example comes. A pass over all examples then takes R
            epochs of N places. Where R does not divide the batch, a batch ends with a part of an example's
            repeats, and the numbers of two classes may differ by up to R.
        classes: the examples of each class, as `examples_by_class` gives them; of "balanced" alone.

    Raises:
        InputError: if the batch does not fit into one epoch, or an argument is out of range.

    Source: repeats, Hoffer et al. 2020 (arXiv:1901.09335), section 3. `timm.data.RepeatAugSampler` draws a
    new permutation every epoch and sees N / R of its examples; here the permutation goes on, so that all
    examples come equally often.

    Example:
        >>> sorted(int(i) for step in range(3) for i in Order(0, 2, 6).examples(step))
        [0, 1, 2, 3, 4, 5]
        >>> order = Order(0, 3, 6, kind="stored", repeats=2)
        >>> order.examples(0).tolist(), order.examples(1).tolist()
        ([0, 0, 1], [1, 2, 2])
    """

    seed: int
    batch_size: int
    num_examples: int
    views: int = 1
    draw: str = "cycle"
    kind: str = SHUFFLED
    repeats: int = 1
    classes: tuple[np.ndarray, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_batch_size(self.batch_size, self.num_examples)
        for name in ("views", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.draw not in DRAWS:
            raise unknown("draw of views", self.draw, DRAWS)
        if self.kind not in ORDERS:
            raise unknown("order of examples", self.kind, ORDERS)
        held = sum(map(len, self.classes))
        if self.kind == BALANCED and held != self.num_examples:
            raise InputError(
                f"the classes of a balanced order hold {held} examples, the split {self.num_examples}"
            )

    def examples(self, step: int) -> np.ndarray:
        """Returns the examples of update `step`: int64 [B]."""
        return self._examples_and_visits(step)[0]

    def rows(self, step: int) -> np.ndarray:
        """Returns the rows of update `step`: int64 [B]."""
        return self.rows_of(step, 1)[0]

    def rows_of(self, step: int, updates: int) -> np.ndarray:
        """Returns the rows of consecutive updates, `step` and those after it: int64 [U, B]."""
        by_chance = self.views > 1 and self.draw == "random"
        if updates > 1 and (by_chance or self.kind == BALANCED):  # each is drawn by itself
            return np.concatenate([self.rows_of(step + i, 1) for i in range(updates)])
        examples, visits = self._examples_and_visits(step, updates)
        if by_chance:
            entropy = np.random.SeedSequence((self.seed, step, _VIEWS))
            bits = np.random.Philox(entropy).random_raw(self.batch_size)
            chosen = (bits % np.uint64(self.views)).astype(np.int64)
        else:
            chosen = (visits + examples) % self.views
        return (examples * self.views + chosen).reshape(updates, self.batch_size)

    def _examples_and_visits(self, step: int, updates: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples of consecutive updates, and how often each came before: int64 [U * B] both.

        Args:
            step: the first of them.
            updates: U; 1 of a balanced order.
        """
        _check_seed_and_step(self.seed, step)
        places = step * self.batch_size + np.arange(updates * self.batch_size)
        turns, repetition = np.divmod(places, self.repeats)
        examples, passes = self._balanced(turns) if self.kind == BALANCED else self._passes(turns)
        visits = passes * self.repeats + repetition
        if self.kind != BALANCED:
            return examples, visits
        # Or microbatches, which take every k-th row, would hold some of the classes only.
        places = shuffled(self.batch_size, self.seed, step, _PLACES)
        return examples[places], visits[places]

    def _passes(self, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples at consecutive turns, and in which pass over the split they come."""
        passes, examples = np.divmod(turns, self.num_examples)
        if self.kind == STORED:
            return examples, passes
        first = int(turns[0])
        count = int(turns[-1]) + 1 - first
        drawn = _shuffled_places(self.seed, first, count, self.num_examples)
        return drawn[turns - first], passes

    def _balanced(self, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples at consecutive turns, and in which pass over its class each comes."""
        count = len(self.classes)
        rounds, slots = np.divmod(turns, count)  # in a round every class has one turn
        # The order of classes in a round may change where rounds and batches begin together: elsewhere a batch
        # could hold a class twice more than another one.
        blocks = turns // math.lcm(self.batch_size, count)
        numbers = np.empty_like(turns)
        for block in np.unique(blocks):
            inside = blocks == block
            class_turns = shuffled(count, self.seed, int(block), _CLASS_TURNS)
            numbers[inside] = class_turns[slots[inside]]
        sizes = np.array([len(examples) for examples in self.classes])[numbers]
        passes, offsets = np.divmod(rounds, sizes)
        found = np.empty_like(turns)
        for number, turn in np.unique(np.stack([numbers, passes]), axis=1).T.tolist():
            inside = (numbers == number) & (passes == turn)
            examples = self.classes[number]
            permutation = _class_permutation(self.seed, number, turn, len(examples))
            found[inside] = examples[permutation[offsets[inside]]]
        return found, passes


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


def _check_seed_and_step(seed: int, step: int) -> None:
    if seed < 0 or step < 0:
        raise InputError(
            f"seed and step must be integers from 0; given seed {seed} and step {step}"
        )


def _shuffled_places(seed: int, start: int, count: int, num_examples: int) -> np.ndarray:
    """Returns `count` places from `start` on of the permutations one after the other."""
    epochs = range(start // num_examples, -(-(start + count) // num_examples))
    starts = [start - epoch * num_examples for epoch in epochs]
    return np.concatenate(
        [
            _permutation(seed, epoch, num_examples)[max(0, first) : first + count]
            for epoch, first in zip(epochs, starts, strict=True)
        ]
    )


# Four: two splits read side by side, each with a batch that spans two epochs.
@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    permutation = shuffled(num_examples, seed, epoch)
    permutation.flags.writeable = False
    return permutation


# All classes of ImageNet twice: a batch takes one or two permutations of each class in it.
@functools.lru_cache(maxsize=2048)
def _class_permutation(seed: int, number: int, turn: int, count: int) -> np.ndarray:
    permutation = shuffled(count, seed, number, turn, _CLASS_EXAMPLES)
    permutation.flags.writeable = False
    return permutation
