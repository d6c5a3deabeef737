"""Operations in a step as it is lowered for accelerators."""

import pytest

from benchmarks.lowered import counts


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_counts(platform):
    full, late = (
        counts("resnet18", 32, 4, strategy, platform) for strategy in ("none", "up_to:stage3")
    )
    # Two forward and two backward for each of the twenty BatchNorms, and of the five in the last stage.
    assert full["sums over activations"] == 4 * 20
    assert late["sums over activations"] == 4 * 5
    assert full["reduces"] > full["sums over activations"]
    for found in (full, late):
        assert found["donated leaves"] == found["leaves"]
        assert found["scatters"] == 0 and found["gathers"] == 1
    assert full["conversions of activations"] > late["conversions of activations"] > 0
