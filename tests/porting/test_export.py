"""The way back: names, layout, counters, and a file that is whole or absent."""

import numpy as np
import pytest
import safetensors.numpy
from fabricate import random_variables

from tl_jax import models, porting
from tl_jax.errors import InputError

MODEL = models.create_model("resnet20_cifar", 4)
VARIABLES = random_variables(MODEL)


def test_layout_and_counters():
    state_dict = porting.export_state_dict(VARIABLES)
    kernel = VARIABLES["params"]["stage2"]["block0"]["conv1"]["kernel"]
    assert state_dict["layer2.0.conv1.weight"].shape == (32, 16, 3, 3)
    assert state_dict["layer2.0.conv1.weight"][7, 5, 2, 1] == kernel[2, 1, 5, 7]
    assert state_dict["fc.weight"].shape == (4, 64)
    counter = state_dict["layer2.0.bn1.num_batches_tracked"]
    assert (counter.shape, counter.dtype) == ((), np.int64)
    assert "num_batches_tracked" not in "".join(
        porting.export_state_dict(VARIABLES, naming="tl_jax")
    )


def test_saved_values_survive_any_memory_layout(tmp_path):
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    path = porting.save_state_dict(
        tmp_path / "new" / "a.safetensors", {"a": transposed}, {"by": "us"}
    )
    np.testing.assert_array_equal(porting.read_source(path).tensors["a"], transposed)
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt", "by": "us"}
    assert [item.name for item in path.parent.iterdir()] == ["a.safetensors"]


def test_unknown_naming():
    with pytest.raises(InputError, match="unknown naming 'torch'; nearest: torchvision"):
        porting.export_state_dict(VARIABLES, naming="torch")


def test_equal_weights_are_equal_files(tmp_path):
    """The library writes metadata in the order of a hash map, which changes from call to call."""
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(3, np.float16)}
    metadata = {"tl_jax": "größe", "author": "x", "z": "{}"}
    contents = set()
    for number in range(20):
        path = porting.save_state_dict(tmp_path / f"{number}.safetensors", arrays, metadata)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    found = safetensors.numpy.load_file(path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "pt", **metadata}
