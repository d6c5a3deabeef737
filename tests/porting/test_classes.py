"""Classes of a head by name."""

import numpy as np
import pytest

from tl_jax import porting
from tl_jax.errors import InputError
from tl_jax.porting.report import PortReport, Row


def test_the_same_order_needs_none():
    assert porting.class_order(["cat", "dog"], ("cat", "dog")) is None
    # Names that are there twice do no harm where nothing is matched by them.
    assert porting.class_order(["crane", "crane"], ["crane", "crane"]) is None


def test_another_order_is_matched_by_name():
    """Column i of the new kernel is that of the class of this name."""
    order = porting.class_order(["cat", "dog", "owl"], ["owl", "cat", "dog"])
    assert order == [2, 0, 1]
    kernel, bias = np.arange(6.0).reshape(2, 3), np.array([10.0, 20.0, 30.0])
    stem = {"kernel": np.ones(3)}
    variables = {
        "params": {"head": {"kernel": kernel, "bias": bias}, "stem": stem},
        "batch_stats": {"mean": 1},
    }
    found = porting.reorder_head(variables, order)
    np.testing.assert_array_equal(found["params"]["head"]["kernel"], [[2, 0, 1], [5, 3, 4]])
    np.testing.assert_array_equal(found["params"]["head"]["bias"], [30, 10, 20])
    assert found["params"]["stem"] is stem and found["batch_stats"] == {"mean": 1}
    np.testing.assert_array_equal(variables["params"]["head"]["bias"], bias)


def test_other_names_are_listed_on_both_sides():
    with pytest.raises(InputError) as raised:
        porting.class_order(["cat", "dog", "goldfish, Carassius auratus"], ["dog", "bird"])
    assert str(raised.value).splitlines() == [
        "the head has 3 classes, the data 2, and their names differ:",
        "only in the weights: cat; goldfish, Carassius auratus",
        "only in the data: bird",
    ]


def test_names_that_are_there_twice_cannot_be_matched():
    with pytest.raises(InputError, match="more than once in the weights: crane\nmore than once"):
        porting.class_order(["crane", "ox", "crane"], ["crane", "crane", "ox"])


def test_a_long_list_is_cut():
    with pytest.raises(InputError, match="name19 and 5 more"):
        porting.class_order([], [f"name{number:02d}" for number in range(25)])


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["0", "1", "2"], False),
        (["1", "0"], True),
        (["cat"], True),
        ([], False),
        (["0", "2"], True),
    ],
)
def test_numbers_are_no_names(names, named):
    assert porting.are_named(names) is named


def test_the_account_says_that_classes_were_matched():
    rows = [
        Row(name, "source", "filled", "none", (2,), "float32", (2,), "float16", "cast")
        for name in ("params/head/bias", "params/stem/conv/kernel")
    ]
    report = porting.with_matched_head(PortReport("torchvision", "keep", tuple(rows)))
    assert [row.rule for row in report.entries] == [
        "cast; in the data's order of classes, matched by name",
        "cast",
    ]
