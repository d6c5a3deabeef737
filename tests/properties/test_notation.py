"""Cuts by percentage or by number leave no example out and take none twice, as in tfds."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tl_jax.data import notation

SIZES = st.integers(100, 100_000)


def bounds(text, num_examples):
    (part,) = notation.parse(text)
    return part.bounds(num_examples)


@given(SIZES, st.sets(st.integers(1, 99), min_size=1, max_size=8))
def test_percentages_cut_a_split_into_parts(num_examples, percents):
    cuts = ["", *(f"{percent}%" for percent in sorted(percents)), ""]
    found = [
        bounds(f"train[{start}:{stop}]", num_examples) for start, stop in itertools.pairwise(cuts)
    ]
    assert found[0][0] == 0 and found[-1][1] == num_examples
    for (_, stop), (start, _) in itertools.pairwise(found):
        assert stop == start


@given(SIZES, st.integers(1, 99))
def test_a_percentage_is_rounded_to_the_nearest_example(num_examples, percent):
    _, stop = bounds(f"train[:{percent}%]", num_examples)
    assert abs(stop - num_examples * percent / 100) <= 0.5
    start, _ = bounds(f"train[-{percent}%:]", num_examples)
    assert num_examples - start == stop


@given(st.integers(2, 1000), st.data())
def test_numbers_count_from_either_end(num_examples, data):
    cut = data.draw(st.integers(1, num_examples - 1))
    assert bounds(f"train[:{cut}]", num_examples) == (0, cut)
    assert bounds(f"train[{cut}:]", num_examples) == (cut, num_examples)
    assert bounds(f"train[-{cut}:]", num_examples) == (num_examples - cut, num_examples)
    assert bounds(f"train[:-{cut}]", num_examples) == (0, num_examples - cut)
