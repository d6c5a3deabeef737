"""Whatever the shape, square ones too: a tensor keeps every value on its way in and out."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_jax import models, porting, trees
from tl_jax.errors import InputError
from tl_jax.porting import naming as names

SIDES = st.integers(1, 4)
NAMINGS = ("cifar", "torchvision", "huggingface", "tl_jax")


def numbered(*shape):
    """Returns an array in which no two values are equal."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@given(SIDES, SIDES)
def test_dense_kernels_are_transposed(outputs, inputs):
    theirs = numbered(outputs, inputs)
    ours = names.to_ours(theirs, "transpose")
    assert ours.shape == (inputs, outputs)
    for row, column in np.ndindex(ours.shape):
        assert ours[row, column] == theirs[column, row]
    np.testing.assert_array_equal(names.to_theirs(ours, "transpose"), theirs)


@given(SIDES, SIDES, SIDES, SIDES)
def test_convolution_kernels_are_permuted(outputs, inputs, height, width):
    theirs = numbered(outputs, inputs, height, width)
    ours = names.to_ours(theirs, "OIHW->HWIO")
    assert ours.shape == (height, width, inputs, outputs)
    for o, i, h, w in np.ndindex(theirs.shape):
        assert ours[h, w, i, o] == theirs[o, i, h, w]
    np.testing.assert_array_equal(names.to_theirs(ours, "OIHW->HWIO"), theirs)


def network(width, classes, shortcut="projection"):
    """Returns a network whose head has 2 * width features, and variables without equal values."""
    model = models.resnet.ResNet(
        (1, 1), "basic", classes, stem_kind="cifar", width=width, shortcut=shortcut
    )
    shapes = jax.eval_shape(
        lambda key: models.init_variables(model, key, (1, 8, 8, 3)), jax.random.key(0)
    )
    flat, count = {}, 0
    for name, leaf in trees.flatten(shapes).items():
        flat[name] = numbered(*leaf.shape) + np.float32(count)
        count += leaf.size
    return model, trees.unflatten(flat)


@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(0, 3), st.sampled_from(NAMINGS))
def test_out_and_back_keeps_every_value(width, extra, naming):
    """With as many classes as features (`extra` 0), the head's kernel is square."""
    features = 2 * width
    _, variables = network(width, features + extra)
    state_dict = porting.export_state_dict(variables, naming=naming)
    empty = jax.tree.map(np.zeros_like, variables)
    ported, _ = porting.port_state_dict(state_dict, empty, naming=naming)
    given, found = trees.flatten(variables), trees.flatten(ported)
    assert sorted(given) == sorted(found)
    for name, leaf in given.items():
        np.testing.assert_array_equal(leaf, found[name], err_msg=name)


def test_a_square_head_computes_what_pytorch_computes():
    """`torch.nn.Linear` is x W^T + b, for a square W too."""
    _, variables = network(2, 4)
    weight = porting.export_state_dict(variables, naming="torchvision")["fc.weight"]
    kernel = variables["params"]["head"]["kernel"]
    assert kernel.shape == weight.shape == (4, 4)
    np.testing.assert_array_equal(weight, kernel.T)
    assert (weight != kernel).any()


@settings(max_examples=8)
@given(st.data())
def test_a_tensor_too_many_or_too_few_is_named(data):
    _, variables = network(1, 3)
    state_dict = porting.export_state_dict(variables, naming="cifar")
    tensors = sorted(name for name in state_dict if not name.endswith("num_batches_tracked"))
    without = data.draw(st.sampled_from(tensors))
    extra = f"{data.draw(st.sampled_from(tensors)).rpartition('.')[0]}.momentum"
    with pytest.raises(InputError, match=f"not expected: {extra}"):
        porting.port_state_dict(state_dict | {extra: numbered(2)}, variables)
    del state_dict[without]
    with pytest.raises(InputError, match=f"missing: {without}"):
        porting.port_state_dict(state_dict, variables, naming="cifar")
