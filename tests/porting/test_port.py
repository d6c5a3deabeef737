"""The strict merge: what is used, waived, reset, and the message about each misfit."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from fabricate import random_variables

from tl_jax import files, models, porting, trees
from tl_jax.errors import InputError

MODEL = models.create_model("resnet20_cifar", 4)
VARIABLES = random_variables(MODEL)


def source(naming="cifar"):
    return porting.export_state_dict(VARIABLES, naming=naming)


def zeros_like(variables):
    return jax.tree.map(np.zeros_like, variables)


def assert_same(left, right):
    assert trees.differences(left, right) == []
    left, right = trees.flatten(left), trees.flatten(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize("naming", ["cifar", "torchvision", "timm", "huggingface", "tl_jax"])
def test_out_and_back_is_the_identity(naming):
    ported, report = porting.port_state_dict(source(naming), zeros_like(VARIABLES))
    assert_same(ported, VARIABLES)
    assert report.naming == {"timm": "torchvision"}.get(naming, naming)


def test_the_report_accounts_for_every_tensor_and_leaf():
    state_dict = source()
    _, report = porting.port_state_dict(state_dict, VARIABLES)
    rows = report.rows()
    assert {row["source"] for row in rows} == set(state_dict)
    assert {row["target"] for row in rows} - {""} == set(trees.flatten(VARIABLES))
    # 19 convolutions with a BatchNorm each (kernel, scale, bias, mean, var) and the head's two.
    assert report.counts() == {"filled": 19 * 5 + 2, "reset": 0, "waived": 19}
    stem = next(row for row in rows if row["target"] == "params/stem/conv/kernel")
    assert (stem["source"], stem["layout"]) == ("conv1.weight", "OIHW->HWIO")
    assert (stem["source_shape"], stem["shape"]) == ((16, 3, 3, 3), (3, 3, 3, 16))
    waived = [row for row in rows if row["status"] == "waived"]
    assert all(row["source"].endswith("num_batches_tracked") and row["rule"] for row in waived)
    text = json.loads(json.dumps(report.to_json()))
    assert text["counts"]["filled"] == 97 and text["naming"] == "cifar"
    assert len(report.table().splitlines()) == 1 + len(rows)
    assert "97 filled, 0 reset, 19 waived" in report.summary()


def test_a_reset_head_keeps_its_fresh_values_and_waives_the_sources():
    other = models.create_model("resnet20_cifar", 7)
    fresh = random_variables(other, seed=9)
    ported, report = porting.port_state_dict(source(), fresh, head="reset")
    assert_same({"h": ported["params"]["head"]}, {"h": fresh["params"]["head"]})
    np.testing.assert_array_equal(
        ported["params"]["stem"]["conv"]["kernel"], VARIABLES["params"]["stem"]["conv"]["kernel"]
    )
    reset = [row for row in report.rows() if "head=reset" in row["rule"]]
    assert [(row["target"], row["source"], row["status"]) for row in reset] == [
        ("params/head/bias", "", "reset"),
        ("params/head/kernel", "", "reset"),
        ("", "linear.bias", "waived"),
        ("", "linear.weight", "waived"),
    ]


def test_a_reset_head_needs_no_source_head():
    headless = {name: a for name, a in source("torchvision").items() if not name.startswith("fc.")}
    _, report = porting.port_state_dict(headless, VARIABLES, head="reset")
    assert report.counts()["reset"] == 2


def test_a_model_without_head_waives_the_sources_head():
    shapes = {"params": {k: v for k, v in VARIABLES["params"].items() if k != "head"}}
    shapes["batch_stats"] = VARIABLES["batch_stats"]
    _, report = porting.port_state_dict(source(), shapes)
    waived = {row["source"]: row["rule"] for row in report.rows() if row["status"] == "waived"}
    assert waived["linear.weight"] == "the model has no head (num_classes=0)"


def test_other_classes_name_both_counts_and_the_way_on():
    other = random_variables(models.create_model("resnet20_cifar", 7))
    with pytest.raises(InputError) as caught:
        porting.port_state_dict(source(), other, head="keep")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and "2 differ" in lines[0]
    assert "linear.bias has 4 classes, the model has 7" in lines[1]
    assert all("head=reset" in line for line in lines[1:])


def test_all_misfits_come_sorted_in_one_error():
    state_dict = source()
    del state_dict["layer1.0.conv1.weight"]
    state_dict["layer1.0.conv3.weight"] = np.zeros((1, 2), np.float32)
    state_dict["layer2.0.conv1.weight"] = state_dict["layer2.0.conv1.weight"][:, :, :1]
    state_dict["bn1.weight"] = np.zeros(16, np.int32)
    state_dict["bn1.bias"] = np.zeros(15, np.float32)
    with pytest.raises(InputError) as caught:
        porting.port_state_dict(state_dict, VARIABLES)
    assert str(caught.value).splitlines()[1:] == [
        "missing: layer1.0.conv1.weight, for params/stage1/block0/conv1/kernel (3, 3, 16, 16)",
        "not expected: layer1.0.conv3.weight (1, 2)",
        "wrong shape: bn1.bias, for params/stem/bn/bias: (15,), expected (16,)",
        (
            "wrong shape: layer2.0.conv1.weight, for params/stage2/block0/conv1/kernel: "
            "(32, 16, 1, 3) (OIHW->HWIO: (1, 3, 16, 32)), expected (3, 3, 16, 32)"
        ),
        "wrong type: bn1.weight, for params/stem/bn/scale: int32, expected float32",
    ]


def test_option_b_shortcuts_do_not_fit_an_option_a_model():
    option_b = random_variables(models.create_model("resnet20_cifar_b", 4))
    with pytest.raises(
        InputError, match=r"not expected: layer2.0.shortcut.0.weight \(32, 16, 1, 1\)"
    ):
        porting.port_state_dict(porting.export_state_dict(option_b, naming="cifar"), VARIABLES)


def test_another_depth_is_one_error():
    deeper = random_variables(models.create_model("resnet32_cifar", 4))
    with pytest.raises(InputError, match=r"missing: layer1.3.bn1.bias") as caught:
        porting.port_state_dict(source(), deeper)
    # Two more blocks a stage, with two convolutions each and their BatchNorms.
    lines = str(caught.value).splitlines()
    assert f"{3 * 2 * 2 * 5} differ" in lines[0]
    assert [line.partition(":")[0] for line in lines[1:]] == ["missing"] * 11
    assert lines[-1] == "missing: 50 more"


def test_what_differs_otherwise_is_said_beside_a_long_list():
    deeper = random_variables(models.create_model("resnet32_cifar", 5))
    with pytest.raises(InputError, match=r"other classes: .*head=reset") as caught:
        porting.port_state_dict(source(), deeper)
    assert "missing: 50 more" in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_are_cast_and_recorded(dtype):
    state_dict = source()
    state_dict["bn1.weight"] = np.full(16, 1.5, dtype)
    ported, report = porting.port_state_dict(state_dict, VARIABLES)
    scale = ported["params"]["stem"]["bn"]["scale"]
    assert scale.dtype == np.float32 and np.all(np.asarray(scale) == 1.5)
    row = next(row for row in report.rows() if row["source"] == "bn1.weight")
    assert row["rule"] == f"cast {np.dtype(dtype)} to float32"
    assert row["source_dtype"] == str(np.dtype(dtype))


def test_arguments_are_checked():
    with pytest.raises(InputError, match="unknown treatment of the head 'rest'; nearest: reset"):
        porting.port_state_dict(source(), VARIABLES, head="rest")
    with pytest.raises(InputError, match="unknown naming"):
        porting.port_state_dict(source(), VARIABLES, naming="caffe")


def test_load_pretrained_initialises_a_fresh_head_from_the_key(tmp_path):
    path = porting.save_state_dict(tmp_path / "weights.safetensors", source())
    model = models.create_model("resnet20_cifar", 7)
    shape = (1, 32, 32, 3)

    def kernel(seed):
        variables, report = porting.load_pretrained(
            path, model, input_shape=shape, head="reset", key=jax.random.key(seed)
        )
        assert report.sha256 == files.digest(path)
        return np.asarray(variables["params"]["head"]["kernel"])

    own = jax.jit(lambda key: models.init_variables(model, key, shape)["params"]["head"]["kernel"])
    np.testing.assert_allclose(kernel(5), own(jax.random.key(5)), rtol=1e-6)
    assert np.any(kernel(5) != kernel(6))


def test_chosen_leaves_and_statistics_start_fresh_whatever_the_source_holds():
    fresh = zeros_like(VARIABLES)
    tensors = source()
    tensors["layer3.0.conv1.weight"] = np.ones((1, 2, 3, 3), np.float32)  # of another shape
    ported, report = porting.port_state_dict(
        tensors, fresh, reset=(r"stage3/.*/bn1/.*", "stage3/block0/conv1/kernel")
    )
    flat, expected = trees.flatten(ported), trees.flatten(VARIABLES)
    chosen = {
        name
        for name in flat
        if ("stage3" in name and "/bn1/" in name) or name.endswith("stage3/block0/conv1/kernel")
    }
    assert len(chosen) == 3 * 4 + 1
    for name, leaf in flat.items():
        np.testing.assert_array_equal(leaf, 0 * leaf if name in chosen else expected[name])
    rules = {row.target: row.rule for row in report.entries if row.status == "reset"}
    assert rules.keys() == chosen
    assert rules["params/stage3/block0/conv1/kernel"] == (
        "reset=stage3/block0/conv1/kernel: starts fresh"
    )
    waived = {row.source: row.rule for row in report.entries if row.status == "waived"}
    assert waived["layer3.1.bn1.running_var"] == "reset=stage3/.*/bn1/.*: starts fresh"
    with pytest.raises(InputError, match=r"pattern 'stag3/\.\*' matches no leaf; nearest: stage3"):
        porting.port_state_dict(source(), fresh, reset=("stag3/.*",))
