"""Networks against numbers that PyTorch (`record_golden.py`) and Keras (`record_keras_golden.py`) gave."""

import importlib.util
import json

import numpy as np
import pytest
from fabricate import boundary_features, random_images, random_variables
from golden_features import GOLDEN, errors
from sgd import VGGS, batches, make_vgg, train_ours

from tl_jax import models

TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("name", "file", "options"),
    [
        ("resnet18", "resnet18", {}),
        ("resnet20_cifar", "resnet20_cifar", {}),
        ("vgg11_bn", "vgg11_bn", {}),
        ("keras_resnet50", "keras_resnet50_of_keras", {}),
        ("vgg16", "vgg16_of_keras", {"classifier": "pooled"}),
    ],
)
def test_features_and_logits(name, file, options):
    golden = json.loads((GOLDEN / f"{file}.json").read_text())
    model = models.create_model(name, 10, **options)
    size = golden["image_size"]
    features = boundary_features(model, random_variables(model), random_images((2, size, size, 3)))
    assert set(golden["boundaries"]) == set(model.boundaries)
    for boundary, error in errors(features, golden).items():
        assert error < TOLERANCE, boundary


@pytest.mark.skipif(
    all(importlib.util.find_spec(name) is not None for name in ("torch", "torchvision")),
    reason="live, in test_training_parity.py",
)
@pytest.mark.parametrize("name", VGGS)
def test_twenty_steps_of_sgd(name):
    """Losses that PyTorch had from the same weights on the same batches."""
    golden = json.loads((GOLDEN / f"{name}_training.json").read_text())
    size, learning_rate, weight_decay, batch_size = VGGS[name]
    model = make_vgg(name)
    images, labels = batches(size, batch_size)
    losses, _ = train_ours(
        model, random_variables(model), images, labels, learning_rate, weight_decay
    )
    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-4)
