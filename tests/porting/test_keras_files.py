"""Files of Keras whole, damaged and hostile, in each of their layouts."""

import io
import sys
import zipfile

import numpy as np
import pytest
from keras_fabricate import write_archive, write_listed, write_numbered

from tl_jax import porting
from tl_jax.errors import InputError
from tl_jax.porting.keras_files import layer_names

KERNEL = np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2)
BIAS = np.array([1, 2], np.float32)
NORM = {
    f"bn/{name}": np.full(2, value, np.float32)
    for value, name in enumerate(("gamma", "beta", "moving_mean", "moving_variance"))
}
CONV = {"low/kernel": KERNEL, "low/bias": BIAS}
STATISTICS = [*NORM.values()]


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py")


def assert_holds(path, expected, unwrapped=()):
    file = porting.read_source(path)
    assert sorted(file.tensors) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(file.tensors[name], array, err_msg=name)
    assert file.unwrapped == unwrapped


def test_the_names_of_keras_1(tmp_path, h5py):
    """As in the published files of VGG, written by Keras 1."""
    path = tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    with h5py.File(path, "w") as file:
        write_listed(file, CONV, keras1=True)
        assert "low/low_W_1:0" in file
    assert_holds(path, CONV)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_weights_in_the_layout_of_keras_2(tmp_path, h5py, suffix):
    path = tmp_path / f"weights{suffix}"
    with h5py.File(path, "w") as file:
        write_listed(file, CONV | NORM)
        assert "bn/bn/moving_variance:0" in file
    assert_holds(path, CONV | NORM)


def test_a_whole_model_around_a_model_with_its_optimizer(tmp_path, h5py):
    """The names of the inner layers are in those of the weights, listed in parts where they are many."""
    path = tmp_path / "model.h5"
    momentum = np.ones(2, np.float32)
    with h5py.File(path, "w") as file:
        write_listed(file.create_group("model_weights"), CONV | NORM, nested="vgg16", part=4)
        file["optimizer_weights/sgd/momentum"] = momentum
    expected = CONV | NORM | {"optimizer_weights/sgd/momentum": momentum}
    assert_holds(path, expected, ('["model_weights"]',))


def test_keras_3_with_names_of_layers(tmp_path, h5py):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        layers = {
            "layers/functional/layers/conv2d": ([KERNEL, BIAS], "low"),
            "layers/functional/layers/batch_normalization": (STATISTICS, "bn"),
            "layers/normalization": ([BIAS, BIAS, np.int32(3)], "scaling"),
            "layers/dropout/seed_generator": ([np.array([1, 2], np.uint32)], "seed_generator"),
            "optimizer": ([np.int64(7)], "sgd"),
        }
        write_numbered(file, layers)
    other = {
        "scaling/0": BIAS,
        "scaling/1": BIAS,
        "scaling/2": 3,
        "layers/dropout/seed_generator/vars/0": [1, 2],
        "optimizer/vars/0": 7,
    }
    assert_holds(path, CONV | NORM | other)


def test_numbers_of_variables_are_no_text(tmp_path, h5py):
    """Eleven arrays: "10" comes after "9", not after "1"."""
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        write_numbered(file, {"layers/own": ([np.float32(i) for i in range(11)], "own")})
    assert_holds(path, {f"own/{i}": i for i in range(11)})


def layer(kind, name, *layers):
    return {"class_name": kind, "config": {"name": name, "layers": list(layers)}}


CONFIG = layer(
    "Sequential",
    "model",
    layer("Functional", "vgg16", layer("InputLayer", "in"), layer("Conv2D", "low")),
    layer("BatchNormalization", "bn"),
    layer("Lambda", "code"),
    layer("Dense", "top"),
    layer("Dense", "last"),
)


def test_an_archive_whose_configuration_names_the_layers(tmp_path, h5py):
    """Keras before 3.8 kept no names beside the arrays."""

    def write(file):
        layers = {
            "layers/functional/layers/conv2d": ([KERNEL, BIAS], None),
            "layers/batch_normalization": (STATISTICS, None),
            "layers/dense_1": ([KERNEL[0, 0], BIAS], None),
        }
        write_numbered(file, layers)

    path = write_archive(tmp_path / "model.keras", write, CONFIG)
    head = {"last/kernel": KERNEL[0, 0], "last/bias": BIAS}
    assert_holds(path, CONV | NORM | head, ("model.weights.h5",))
    assert layer_names(CONFIG)["layers/functional/layers/input_layer"] == "in"
    assert layer_names("no configuration") == layer_names({"config": {"layers": 3}}) == {}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("layers/conv2d_3", "conv2d_3"),
        ("_layer_checkpoint_dependencies/conv2d_3", "conv2d_3"),  # Keras 2.13
        ("layers\\conv2d_3", "conv2d_3"),  # on Windows
        ("base/layers/conv2d_3", "conv2d_3"),  # an attribute of a user's class
    ],
)
def test_layers_without_names_are_called_by_their_class(tmp_path, h5py, path, name):
    file_path = tmp_path / "a.weights.h5"
    separator = "\\" if "\\" in path else "/"
    with h5py.File(file_path, "w") as file:
        file[f"{path}{separator}vars{separator}0"] = KERNEL
    assert_holds(file_path, {f"{name}/kernel": KERNEL})


def test_two_layers_of_one_name_are_called_by_their_paths(tmp_path, h5py):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        write_numbered(file, {f"{model}/layers/conv2d": ([KERNEL], None) for model in "ab"})
    assert_holds(path, {f"{model}/layers/conv2d/kernel": KERNEL for model in "ab"})


def test_without_h5py_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    path = tmp_path / "a.h5"
    path.write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        porting.read_source(path)
    assert str(caught.value) == f"reading {path} needs h5py: pip install tl_jax[keras]"


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("kept", [0, 4, 700, -1])
def test_a_truncated_file_is_one_clear_error(tmp_path, h5py, suffix, kept):
    path = tmp_path / f"a{suffix}"
    if suffix == ".keras":
        write_archive(path, lambda file: write_listed(file, CONV))
    else:
        with h5py.File(path, "w") as file:
            write_listed(file, CONV)
    path.write_bytes(path.read_bytes()[:kept])
    kind = ".keras" if suffix == ".keras" else "HDF5"
    with pytest.raises(InputError, match=rf"a{suffix} is not a whole {kind} file \(\d+ bytes\)"):
        porting.read_source(path)


def test_files_of_something_else_are_refused(tmp_path, h5py):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["images/train"] = KERNEL
    with pytest.raises(
        InputError, match=r"no weights of Keras: neither .* groups called vars, but images"
    ):
        porting.read_source(path)
    archive = tmp_path / "a.keras"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("model.weights.npz", b"")
    with pytest.raises(InputError, match=r"holds no model.weights.h5, only model.weights.npz"):
        porting.read_source(archive)


def test_a_list_of_arrays_that_are_not_there(tmp_path, h5py):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        write_listed(file, CONV)
        del file["low/low/bias:0"]
    with pytest.raises(InputError, match="lists low/low/bias:0, which it does not hold"):
        porting.read_source(path)


def test_a_file_reads_no_other_file(tmp_path, h5py):
    """Links and arrays outside of the file are not followed."""
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["array"] = BIAS
    (tmp_path / "raw").write_bytes(BIAS.tobytes())
    linking, outside = tmp_path / "linking.weights.h5", tmp_path / "outside.weights.h5"
    with h5py.File(linking, "w") as file:
        write_numbered(file, {"layers/conv2d": ([KERNEL], "low")})
        file["layers/conv2d/vars/1"] = h5py.ExternalLink(str(secret), "array")
    assert_holds(linking, {"low/kernel": KERNEL})
    with h5py.File(outside, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.create_dataset("0", (2,), "f4", external=[(str(tmp_path / "raw"), 0, 8)])
    with pytest.raises(InputError, match="arrays stored outside of the file: layers/conv2d/vars/0"):
        porting.read_source(outside)


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path, h5py):
    path = tmp_path / "a.keras"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(101 << 20))
    path.write_bytes(content.getvalue())
    with pytest.raises(InputError, match="would take 105906176 bytes, packed in"):
        porting.read_source(path)
