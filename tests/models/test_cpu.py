"""Which updates are kept out of loops on a CPU."""

import pytest

from tl_jax.models import cpu

HEAD_ONLY = {"stem": {"kernel": True}, "head": {"kernel": False}}
ALL = {"stem": {"kernel": False}, "head": {"kernel": False}}
NORM_ALONE = {"stem": {"kernel": True, "scale": False}, "head": {"kernel": True}}


@pytest.mark.parametrize(
    ("mask", "grouped", "platform", "expected"),
    [
        (ALL, True, "cpu", True),
        (NORM_ALONE, True, "cpu", True),  # its gradient passes through the convolutions above it
        (HEAD_ONLY, True, "cpu", False),
        ({"head": {"kernel": False}}, True, "cpu", False),
        (ALL, False, "cpu", False),
        (ALL, True, "gpu", False),
    ],
)
def test_gradients_of_grouped_convolutions_are_slow_in_loops(mask, grouped, platform, expected):
    assert cpu.slow_in_loops(mask, grouped=grouped, platform=platform) == expected
