"""A file that does not fit the model: the message names the network that it fits."""

import h5py
import jax
import keras_fabricate
import numpy as np
import pytest
from fabricate import random_variables

from tl_jax import models, porting, trees
from tl_jax.errors import InputError
from tl_jax.porting import fitting, get_naming, name_map


def leaves_of(name, num_classes=5, **options):
    model = models.create_model(name, num_classes, **options)
    return trees.flatten(
        jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0), (1, 224, 224, 3)))
    )


def file_of(name, naming, **options):
    """Returns tensors that take no memory, with the names and shapes of a file."""
    leaves = leaves_of(name, **options)
    entries = name_map(get_naming(naming, leaves), leaves)
    inverse = {"OIHW->HWIO": (3, 2, 0, 1), "transpose": (1, 0)}
    tensors = {}
    for leaf, entry in entries.items():
        shape, layout = leaves[leaf].shape, entry.layout.partition(",")[0]
        shape = tuple(shape[axis] for axis in inverse.get(layout, range(len(shape))))
        tensors[entry.source] = np.broadcast_to(np.float32(0), shape)
    return tensors


@pytest.mark.parametrize(
    ("file", "model", "expected"),
    [
        (("keras_resnet50", "keras"), "vgg16", "keras_resnet50: model.name=keras_resnet50"),
        (("keras_resnet50", "keras"), "resnet50", "keras_resnet50: model.name=keras_resnet50"),
        (("vgg16", "keras"), "vgg19", "vgg16: model.name=vgg16"),
        (("vgg19", "keras"), "vgg16", "vgg19: model.name=vgg19"),
        (("resnet18", "torchvision"), "vgg16", "resnet18: model.name=resnet18"),
    ],
)
def test_the_network_that_fits_is_named(file, model, expected):
    found = fitting.advice(file_of(*file), leaves_of(model), of_keras=file[1] == "keras")
    assert found == f"these are the weights of {expected}"


def test_options_that_change_parameters_are_named():
    tensors = file_of("vgg16", "keras", classifier="pooled")
    found = fitting.advice(tensors, leaves_of("vgg16"), of_keras=True)
    assert found.endswith(": model.name=vgg16, model.classifier=pooled")
    tensors = file_of("resnet18", "torchvision", stem="cifar")
    found = fitting.advice(tensors, leaves_of("resnet18"), of_keras=False)
    assert found.endswith(": model.name=resnet18, model.stem=cifar")


def test_of_a_file_whose_head_alone_differs_nothing_is_said():
    tensors = file_of("resnet18", "torchvision")
    assert fitting.advice(tensors, leaves_of("resnet18", 9), of_keras=False) == ""


def test_a_file_that_fits_no_network():
    """One tensor more or fewer is another network."""
    tensors = file_of("resnet20_cifar", "cifar")
    for changed in (
        {**tensors, "layer9.0.conv1.weight": np.zeros((3, 3, 3, 3), np.float32)},
        {name: array for name, array in tensors.items() if name != "bn1.weight"},
    ):
        found = fitting.advice(changed, leaves_of("vgg11"), of_keras=False)
        assert found == "they fit no registered network"


def test_a_file_of_another_network_is_told_when_it_is_loaded(tmp_path):
    variables = random_variables(models.create_model("resnet20_cifar", 3))
    porting.save_state_dict(
        tmp_path / "mine.safetensors", porting.export_state_dict(variables, naming="cifar")
    )
    with pytest.raises(InputError) as raised:
        porting.load_pretrained(
            tmp_path / "mine.safetensors", models.create_model("resnet32_cifar", 3)
        )
    message = str(raised.value)
    assert "missing: layer1.3.conv1.weight" in message
    assert message.endswith("the weights of resnet20_cifar: model.name=resnet20_cifar")


@pytest.mark.parametrize("layer", ["conv2d", "mine"])
def test_of_keras_the_networks_that_are_read_are_listed(tmp_path, layer):
    """Layers called as Keras counts them, and by the user."""
    with h5py.File(tmp_path / "own.h5", "w") as file:
        tensors = {f"{layer}/kernel": np.zeros((3, 3, 3, 4)), "dense/kernel": np.zeros((4, 2))}
        keras_fabricate.write_listed(file, tensors)
    with pytest.raises(InputError) as raised:
        porting.load_pretrained(tmp_path / "own.h5", models.create_model("small_cnn", 2))
    assert str(raised.value).endswith(fitting.OF_KERAS)
