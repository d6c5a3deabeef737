"""The head of weights alone, over the classes of the source."""

import numpy as np
import pytest
from fabricate import random_variables

from tl_jax import models, porting
from tl_jax.errors import InputError


def written(folder, naming, num_classes=7, name="resnet20_cifar", drop=()):
    """Returns a file of random weights, and what its head is."""
    model = models.create_model(name, num_classes)
    variables = random_variables(model)
    tensors = porting.export_state_dict(variables, naming=naming)
    path = folder / f"{naming}.safetensors"
    porting.save_state_dict(path, {key: tensors[key] for key in tensors if key not in drop})
    return path, variables["params"]["head"]


@pytest.mark.parametrize("naming", ["cifar", "tl_jax"])
def test_the_head_has_the_classes_of_the_source(tmp_path, naming):
    path, expected = written(tmp_path, naming)
    head = porting.load_head(path, models.create_model("resnet20_cifar", 3), image_size=8)
    assert sorted(head) == ["bias", "kernel"]
    for name, leaf in expected.items():
        assert head[name].dtype == np.float32
        np.testing.assert_array_equal(head[name], leaf, err_msg=name)


def test_logits_are_those_of_the_source_network(tmp_path):
    """Features of the ported backbone with this head, and the network as it was."""
    path, _ = written(tmp_path, "cifar")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    whole = models.create_model("resnet20_cifar", 7)
    variables, _ = porting.load_pretrained(path, whole, input_shape=images.shape)
    forward = models.make_forward(whole)
    expected, _ = forward(variables["params"], variables["batch_stats"], images, train=False)
    other = models.create_model("resnet20_cifar", 3)
    reset, _ = porting.load_pretrained(path, other, input_shape=images.shape, head="reset")
    forward = models.make_forward(other, stop="pool")
    features, _ = forward(reset["params"], reset["batch_stats"], images, train=False)
    head = porting.load_head(path, other, image_size=8)
    np.testing.assert_allclose(
        features @ head["kernel"] + head["bias"], expected, rtol=1e-5, atol=1e-5
    )


def test_packaged_weights_know_200_classes():
    head = porting.load_head(
        "resnet20_cifar.tin32", models.create_model("resnet20_cifar", 3), image_size=32
    )
    assert {name: leaf.shape for name, leaf in head.items()} == {
        "kernel": (64, 200),
        "bias": (200,),
    }


def test_a_head_of_several_layers_is_refused(tmp_path):
    """Files of Keras leave the head to the user: what is beside the backbone is of the head."""
    model = models.create_model("keras_resnet50", 3)
    tensors = porting.export_state_dict(random_variables(model), naming="keras")
    (last,) = {name.rsplit("/", 1)[0] for name in tensors if name.startswith("predictions")}
    path = tmp_path / "hidden.safetensors"
    porting.save_state_dict(path, tensors)
    assert porting.load_head(path, model, image_size=32)["kernel"].shape == (2048, 3)
    hidden = {"my_dense/kernel": np.zeros((2048, 2048)), "my_dense/bias": np.zeros(2048)}
    porting.save_state_dict(path, tensors | hidden)
    with pytest.raises(InputError, match=f"more layers: my_dense|{last}"):
        porting.load_head(path, model, image_size=32)


def test_weights_without_a_head_are_refused(tmp_path):
    path, _ = written(tmp_path, "cifar", drop=("linear.weight", "linear.bias"))
    with pytest.raises(
        InputError, match=r"has no head: no (linear|fc)\.(weight|bias); expected one dense"
    ):
        porting.load_head(path, models.create_model("resnet20_cifar", 3), image_size=8)


def test_a_head_of_other_features_is_refused(tmp_path):
    path, _ = written(tmp_path, "cifar")
    tensors = porting.read_source(path).tensors
    tensors = dict(tensors) | {"linear.weight": np.zeros((7, 5), np.float32)}
    porting.save_state_dict(path, tensors)
    with pytest.raises(
        InputError, match=r"has .*kernel \[5, 7\].*; expected one dense layer of the"
    ):
        porting.load_head(path, models.create_model("resnet20_cifar", 3), image_size=8)
