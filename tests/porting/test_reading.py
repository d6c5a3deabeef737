"""Files whole, damaged, wrapped, dangerous."""

import hashlib
import os
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from fabricate import random_variables

from tl_jax import models, porting
from tl_jax.errors import InputError
from tl_jax.porting.reading import strip_prefixes

ARRAYS = {
    "conv1.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fc.bias": np.ones(2, np.float16),
}


def save(path, arrays=ARRAYS):
    safetensors.numpy.save_file(arrays, path)
    return path


def test_safetensors(tmp_path):
    path = save(tmp_path / "a.safetensors", {**ARRAYS, "b": np.ones(2, ml_dtypes.bfloat16)})
    file = porting.read_source(path)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(file.tensors["conv1.weight"], ARRAYS["conv1.weight"])
    assert file.tensors["fc.bias"].dtype == np.float16
    assert file.tensors["b"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_a_truncated_safetensors_is_one_clear_error(tmp_path, kept):
    path = save(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"a\.safetensors is not a whole \.safetensors file"):
        porting.read_source(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        porting.read_source(tmp_path / "absent.safetensors")
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"unknown kind of weight file '.onnx'"):
        porting.read_source(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("names", "expected", "taken"),
    [
        (["module.conv1.weight", "module.fc.bias"], ["conv1.weight", "fc.bias"], ("module.",)),
        (["backbone.conv1.weight", "fc.bias"], ["conv1.weight", "fc.bias"], ("backbone.",)),
        (
            ["module.backbone.conv1.weight", "module.fc.bias"],
            ["conv1.weight", "fc.bias"],
            ("module.", "backbone."),
        ),
        (["model.conv1.weight", "model.fc.bias"], ["conv1.weight", "fc.bias"], ("model.",)),
        (["module.conv1.weight", "fc.bias"], ["module.conv1.weight", "fc.bias"], ()),
    ],
)
def test_prefixes(names, expected, taken):
    tensors, prefixes = strip_prefixes({name: np.zeros(1) for name in names})
    assert (list(tensors), prefixes) == (expected, taken)


def test_a_prefix_that_would_merge_two_tensors_is_an_error():
    with pytest.raises(
        InputError, match=r"with and without the prefix 'backbone.': backbone.fc.bias"
    ):
        strip_prefixes({"backbone.fc.bias": np.zeros(1), "fc.bias": np.zeros(1)})


def test_a_damaged_file_is_told_by_the_digest_in_its_name(tmp_path):
    path = tmp_path / "resnet18-f37072fd.pth"
    path.write_bytes(b"half a download")
    with pytest.raises(
        InputError, match="is damaged: its name states a SHA-256 that begins f37072fd"
    ):
        porting.read_source(path)


def test_without_torch_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "a.pth"
    path.write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        porting.read_source(path)
    assert str(caught.value) == f"reading {path} needs PyTorch: pip install tl_jax[torch]"


def tensors(torch):
    return {name: torch.from_numpy(array) for name, array in ARRAYS.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".bin"])
def test_torch_files(tmp_path, suffix):
    torch = pytest.importorskip("torch")
    path = tmp_path / f"a{suffix}"
    torch.save({**tensors(torch), "b": torch.ones(2, dtype=torch.bfloat16)}, path)
    file = porting.read_source(path)
    np.testing.assert_array_equal(file.tensors["conv1.weight"], ARRAYS["conv1.weight"])
    assert file.tensors["b"].dtype == ml_dtypes.bfloat16


def test_torch_wrappers(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pth"
    torch.save({"model": {"state_dict": tensors(torch)}, "epoch": 3, "optimizer": {}}, path)
    file = porting.read_source(path)
    assert file.unwrapped == ('["model"]', '["state_dict"]')
    assert file.beside == ("epoch", "optimizer")
    assert sorted(file.tensors) == sorted(ARRAYS)


def test_ambiguous_and_empty_torch_files(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pth"
    torch.save({"model": tensors(torch), "net": tensors(torch)}, path)
    with pytest.raises(InputError, match=r"several state dicts \(model, net\)"):
        porting.read_source(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="holds a list, expected a dict of named tensors"):
        porting.read_source(path)
    torch.save({**tensors(torch), "epoch": 3}, path)
    with pytest.raises(InputError, match="entries that are not tensors: epoch"):
        porting.read_source(path)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_that_would_run_code_runs_none(tmp_path):
    torch = pytest.importorskip("torch")
    trap = RunsCode()
    trap.folder = str(tmp_path / "pwned")
    path = tmp_path / "a.pth"
    torch.save({"state_dict": trap}, path)
    with pytest.raises(InputError, match="reading it would run code") as caught:
        porting.read_source(path)
    assert not (tmp_path / "pwned").exists()
    assert "weights_only=False" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 10, 300, -40])
def test_a_truncated_torch_file(tmp_path, kept):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pt"
    torch.save(tensors(torch), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"a\.pt "):
        porting.read_source(path)


def test_the_first_version_of_resnet_is_refused_by_its_config(tmp_path):
    model = models.create_model("resnet18", 3)
    state_dict = porting.export_state_dict(random_variables(model), naming="huggingface")
    path = porting.save_state_dict(tmp_path / "model.safetensors", state_dict)
    (tmp_path / "config.json").write_text('{"downsample_in_bottleneck": true}')
    with pytest.raises(InputError, match=r"config.json sets downsample_in_bottleneck"):
        porting.load_pretrained(path, model, input_shape=(1, 32, 32, 3))
    (tmp_path / "config.json").write_text('{"downsample_in_bottleneck": false}')
    _, report = porting.load_pretrained(path, model, input_shape=(1, 32, 32, 3))
    assert report.naming == "huggingface"
