"""Training here and in PyTorch: twenty steps of SGD with momentum, BatchNorm in training mode."""

import pytest

pytest.importorskip("torch")
training_parity = pytest.importorskip("training_parity")

TOLERANCE = 1e-4


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet18", "vgg16", "vgg16_bn"])
def test_twenty_steps_of_sgd(name, require):
    if name != "resnet20_cifar":
        require("torchvision")
    result = training_parity.measure(name)
    assert len(result["losses"]) == 20
    assert result["loss_error"] < TOLERANCE, result
    assert result["statistics_error"] < TOLERANCE, result
