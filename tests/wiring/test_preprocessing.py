"""The preprocessing of the weights, as far as the config leaves it alone."""

import pytest
from small import config_with

from tl_jax import data, models
from tl_jax.errors import InputError
from tl_jax.runs import weights
from tl_jax.runs.optimisation import make_schedule
from tl_jax.runs.splits import make_splits, make_test_split

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


class Asked(Exception):
    """Ends a load of data once its arguments are known."""


@pytest.mark.parametrize("make", [make_splits, make_test_split])
@pytest.mark.parametrize(("interpolation", "resize"), [("bilinear", 110), ("bicubic", None)])
def test_the_host_is_asked_for_the_preprocessing_of_the_weights(
    monkeypatch, make, interpolation, resize
):
    """Images of mixed sizes are brought to the size before the centre crop, as the device would."""

    def load_splits(source, selection, decoding, **_):
        raise Asked(decoding)

    monkeypatch.setattr(data, "load_splits", load_splits)
    names = ["resnet50.tv_in1k", *models.list_pretrained()]  # trained with resize 256, size 224
    name = next(n for n in names if models.get_pretrained(n).interpolation == interpolation)
    known = models.get_pretrained(name)
    config = config_with({"preprocess.weights": name, "data.image_size": 96})
    with pytest.raises(Asked) as asked:
        make(config)
    (decoding,) = asked.value.args
    assert decoding.interpolation == interpolation
    expected = resize or round(known.resize_size * 96 / known.image_size)
    assert decoding.image_size == expected


def test_the_advice_about_a_long_warmup_is_taken():
    """2.996 epochs, of 1,000 updates each: 3 would be refused again."""
    fields = {"optim.warmup_epochs": 5.0, "data.batch_size": 1, "train.steps": 2996}
    with pytest.raises(InputError, match=r"or at most 2\.99$"):
        make_schedule(config_with(fields), 0.1, 2996, 1000)
    fields["optim.warmup_epochs"] = 2.99
    make_schedule(config_with(fields), 0.1, 2996, 1000)
