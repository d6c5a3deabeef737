"""The preprocessing of the weights, as far as the config leaves it alone."""

import pytest
from small import config_with

from experiments import weights

TRAINED_WITH = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.1],
    "interpolation": "bicubic",
    "image_size": 224,
    "resize": 256,
}
INITIAL = weights.Initial({}, TRAINED_WITH, None)


def made(**changes):
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    config = config_with({"data.image_size": 0} | fields)
    return weights.make_preprocessing(config, INITIAL, (32, 32, 3))


def test_the_weights_decide():
    spec, deviations = made()
    assert weights.describe_preprocessing(spec) == TRAINED_WITH
    assert deviations == []


@pytest.mark.parametrize(("size", "resize"), [(112, 128), (100, 114), (448, 512)])
def test_another_image_size_keeps_the_share_of_the_crop(size, resize):
    spec, deviations = made(data__image_size=size)
    assert (spec.image_size, spec.resize) == (size, resize)
    assert len(deviations) == 1 and deviations[0].startswith("preprocessing image_size")


def test_what_the_config_says_is_a_deviation():
    spec, deviations = made(preprocess__mean=(0.1, 0.2, 0.3), preprocess__resize=300)
    assert (spec.mean, spec.resize) == ((0.1, 0.2, 0.3), 300)
    assert [line.split()[1] for line in deviations] == ["mean", "resize"]
