"""VGGs and ResNets v1 against those of Keras, per stage and for the logits, through files that Keras wrote."""

import json
import shutil

import jax
import keras_parity
import numpy as np
import pytest

from tl_jax import models, porting
from tl_jax.porting import keras_files

TOLERANCE = 1e-5
# Raised by Keras 3.15 on NumPy 2, when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def keras_installed(require):
    require("keras", "h5py")


@pytest.mark.parametrize(
    "case", [case for case in keras_parity.CASES if case.tested], ids=lambda case: case.id
)
def test_features_and_logits(case):
    errors = keras_parity.measure(case)
    worst = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    assert not worst, worst


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_a_trained_model_around_a_nested_backbone(tmp_path, suffix):
    """As Keras' guides build it: augmentation, backbone as one layer, pooling, dropout, a dense head; compiled."""
    import keras_reference

    keras = keras_reference.keras
    keras.utils.set_random_seed(0)
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.RandomFlip(),
            base,
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(3, name="top"),
        ]
    )
    net.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss="mse", metrics=["mae"])
    net.fit(np.ones((2, 32, 32, 3), np.float32), np.ones((2, 3), np.float32), verbose=0)
    path = tmp_path / f"model{suffix}"
    keras_reference.save(net, path)
    model = models.create_model("vgg16", 3, classifier="pooled")
    variables, report = porting.load_pretrained(path, model, input_shape=(1, 32, 32, 3))
    head = variables["params"]["head"]
    np.testing.assert_array_equal(head["kernel"], net.get_layer("top").weights[0].numpy())
    kernel = base.get_layer("block1_conv1").weights[0].numpy()
    np.testing.assert_array_equal(
        variables["params"]["stage1"]["conv1"]["kernel"], kernel[:, :, ::-1]
    )
    assert report.counts()["filled"] == 28
    rules = {row.rule for row in report.entries if row.status == "waived"}
    assert "variable of Keras' optimizer" in rules


def test_layers_without_names_are_counted_as_keras_does(tmp_path):
    """Files of Keras before 3.8 hold no names; `.keras` has them in its configuration."""
    import h5py
    import keras_reference

    case = keras_parity.Case("keras_resnet50", 32)
    model, variables, _ = keras_parity.make_ours(case)
    net = keras_reference.network(case.name, keras_parity.NUM_CLASSES, case.size, top=False)
    keras_reference.load(net, porting.export_state_dict(variables, naming="keras"))
    path = tmp_path / "model.weights.h5"
    keras_reference.save(net, path)
    shutil.copy(path, tmp_path / "plain.weights.h5")
    with h5py.File(tmp_path / "plain.weights.h5", "a") as file:
        named = []
        file.visititems(lambda name, item: named.append(item) if "name" in item.attrs else None)
        for item in named:
            del item.attrs["name"]
    loaded = {}
    for name in ("model", "plain"):
        loaded[name], report = porting.load_pretrained(
            tmp_path / f"{name}.weights.h5", model, input_shape=(1, 32, 32, 3)
        )
        assert report.naming == {"model": "keras", "plain": "keras_counted"}[name]
    for tree in loaded.values():
        jax.tree.map(np.testing.assert_array_equal, tree, variables)
    names = keras_files.layer_names(json.loads(net.to_json()))
    assert names["layers/conv2d_3"] == "conv2_block1_0_conv"
    assert names["layers/batch_normalization_52"] == "conv5_block3_3_bn"


def test_every_network_of_keras_is_compared():
    """Those of other libraries are compared in test_parity.py."""
    named = {name for name in models.list_models() if name.startswith("keras")}
    assert named | {"vgg16", "vgg19"} == {case.name for case in keras_parity.CASES}
