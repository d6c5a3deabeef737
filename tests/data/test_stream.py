import threading

import numpy as np
import pytest

from tl_jax.data import stream
from tl_jax.data.order import Order
from tl_jax.data.split import InMemorySplit
from tl_jax.errors import InputError


@pytest.fixture
def split() -> InMemorySplit:
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    return InMemorySplit(pixels, np.arange(10) % 3, "abc", "toy")


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "tl_jax batches"]


def test_batches_follow_the_order_and_say_where_they_come_from(split):
    found = list(stream.batches(split, Order(5, 4, len(split)), 2, 9))
    assert len(found) == 7
    for step, batch in zip(range(2, 9), found, strict=True):
        indices = Order(5, 4, 10).examples(step)
        np.testing.assert_array_equal(batch["index"], indices)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], indices)
        np.testing.assert_array_equal(batch["label"], indices % 3)
        assert batch["position"].tolist() == [0, 1, 2, 3]
    types = {name: str(values.dtype) for name, values in found[0].items()}
    assert types == {"image": "uint8", "label": "int32", "position": "int32", "index": "int32"}


def test_starting_at_a_step_gives_what_running_to_it_gives(split):
    whole = list(stream.batches(split, Order(0, 3, len(split)), 0, 12))
    later = list(stream.batches(split, Order(0, 3, len(split)), 7, 12))
    for first, second in zip(whole[7:], later, strict=True):
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


def test_the_rows_of_two_processes_make_up_the_batch(split):
    whole = next(stream.batches(split, Order(0, 6, len(split)), 3, 4))
    halves = [
        next(stream.batches(split, Order(0, 6, len(split)), 3, 4, rows))
        for rows in (slice(0, 3), slice(3, 6))
    ]
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), whole[name])


@pytest.mark.parametrize("batch_size", [3, 4, 5, 16])
def test_evaluation_sees_every_example_once(split, batch_size):
    found = list(stream.eval_batches(split, batch_size))
    seen = np.concatenate([batch["index"][batch["mask"]] for batch in found])
    assert seen.tolist() == list(range(10))
    assert {len(batch["image"]) for batch in found} == {batch_size}
    assert found[-1]["mask"].sum() == (10 % batch_size or batch_size)


def test_evaluation_gives_every_process_the_same_number_of_batches(split):
    halves = [list(stream.eval_batches(split, 8, rows)) for rows in (slice(0, 4), slice(4, 8))]
    assert [len(half) for half in halves] == [2, 2]
    assert [int(batch["mask"].sum()) for half in halves for batch in half] == [4, 2, 4, 0]


def test_wrong_sizes_are_refused_before_the_first_batch(split):
    with pytest.raises(InputError, match="batch size 11"):
        stream.batches(split, Order(0, 11, len(split)), 0, 5)
    with pytest.raises(InputError, match="batches of 0"):
        stream.eval_batches(split, 0)
    with pytest.raises(InputError, match="split 'toy' of 0 examples"):
        stream.eval_batches(split.subset(np.array([], int)), 4)


def test_closing_stops_the_thread(split):
    before = reading_threads()
    iterator = stream.batches(split, Order(0, 4, len(split)), 0, 10**6)
    next(iterator)
    assert len(reading_threads()) == len(before) + 1
    iterator.close()
    assert reading_threads() == before


def test_a_failure_comes_in_place_of_its_batch(split):
    class Failing(InMemorySplit):
        def gather(self, indices):
            if 0 in indices:
                raise OSError("unreadable")
            return super().gather(indices)

    failing = Failing(split.images, split.labels, "abc")
    good = next(step for step in range(10) if 0 in Order(0, 2, 10).examples(step))
    iterator = stream.batches(failing, Order(0, 2, len(failing)), 0, 10)
    for _ in range(good):
        next(iterator)
    with pytest.raises(OSError, match="unreadable"):
        next(iterator)
