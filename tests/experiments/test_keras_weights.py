"""Runs that start from files of Keras: from the command line, with preprocessing, on to weights of our own."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from running import arguments, tiny_config

import tl_jax
from tl_jax import models, porting
from tl_jax.runs import evaluate

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "porting"))
from fabricate import random_variables
from keras_fabricate import write_listed

pytestmark = pytest.mark.usefixtures("small_networks")
h5py = pytest.importorskip("h5py")

CASES = {
    # Name of the network: its classifier, and whether the file has the names of Keras 1.
    "keras_resnet50": ("", False),
    "vgg16": ("pooled", True),
}
SIZE = {"data__image_size": 32, "preprocess__resize": 32, "optim__learning_rate": 0.001}


@pytest.fixture(scope="module")
def published(small_networks, tmp_path_factory):
    """Returns {network: (file like the one that Keras publishes, with the head of 1000 classes, its variables)}."""
    folder = tmp_path_factory.mktemp("keras")
    found = {}
    for name, (_, keras1) in CASES.items():
        variables = random_variables(models.create_model(name, 1000))
        path = folder / f"{name}_weights_tf_dim_ordering_tf_kernels.h5"
        with h5py.File(path, "w") as file:
            tensors = porting.export_state_dict(variables, naming="keras")
            write_listed(file, tensors, keras1=keras1)
        found[name] = path, variables
    return found


def config_of(name, path, **fields):
    changes = {
        "model__name": name,
        "model__classifier": CASES[name][0],
        "init__weights": str(path),
        "preprocess__weights": f"{name}.keras_in1k",
        **SIZE,
    }
    return tiny_config(**changes | fields)


@pytest.mark.parametrize("name", CASES)
def test_a_run_takes_the_backbone_and_its_preprocessing(published, tmp_path, name):
    path, variables = published[name]
    frozen = {"freeze__strategy": "backbone", "augment__crop_padding": 0, "train__steps": 2}
    run = tl_jax.finetune(config_of(name, path, **frozen), tmp_path / "run")
    first = run.model.boundaries[0]
    jax.tree.map(
        np.testing.assert_array_equal, run.variables["params"][first], variables["params"][first]
    )
    report = json.loads((tmp_path / "run" / "port_report.json").read_text())
    assert (report["naming"], report["channel_order"], report["head"]) == ("keras", "bgr", "reset")
    waived = {row["source"]: row["rule"] for row in report["entries"] if row["status"] == "waived"}
    assert waived["predictions/kernel"] == "head=reset: the head starts fresh"
    assert ("fc1/kernel" in waived) == (name == "vgg16")
    used = json.loads((tmp_path / "run" / "preprocessing.json").read_text())
    np.testing.assert_allclose(np.multiply(used["mean"], 255), [123.68, 116.779, 103.939])
    np.testing.assert_allclose(np.multiply(used["std"], 255), 1)
    assert any("taken as BGR, as Keras' own" in line for line in run.result["deviations"])


def test_the_order_of_channels_can_be_said(published, tmp_path):
    path, variables = published["keras_resnet50"]
    fields = {"freeze__strategy": "backbone", "train__steps": 1, "init__channel_order": "rgb"}
    run = tl_jax.finetune(config_of("keras_resnet50", path, **fields), tmp_path / "run")
    np.testing.assert_array_equal(
        run.variables["params"]["stem"]["conv"]["kernel"],
        variables["params"]["stem"]["conv"]["kernel"][:, :, ::-1],
    )
    assert not any("BGR" in line for line in run.result["deviations"])


def test_finetuned_weights_are_taken_and_evaluated_as_any(published, tmp_path):
    """All of a ResNet of Keras is trained; its export has our names, and another run starts from it."""
    path, _ = published["keras_resnet50"]
    run = tl_jax.finetune(config_of("keras_resnet50", path), tmp_path / "run")
    expected = run.result["splits"]["test"]
    assert np.isfinite(expected["loss"])
    fields = {"init__head": "keep", "preprocess__weights": ""}
    config = config_of("keras_resnet50", tmp_path / "run", **fields)
    again = evaluate.evaluate_weights(config, tmp_path / "again")
    assert again["splits"]["test"]["top1_accuracy"] == expected["top1_accuracy"]
    np.testing.assert_allclose(again["splits"]["test"]["loss"], expected["loss"], rtol=1e-6)
    report = json.loads((tmp_path / "again" / "port_report.json").read_text())
    assert (report["naming"], report["channel_order"]) == ("tl_jax", "rgb")


def test_the_command_takes_a_file_of_keras(published, tmp_path, launcher):
    path, _ = published["vgg16"]
    flags = arguments(
        model__name="vgg16",
        model__classifier="pooled",
        init__weights=path,
        preprocess__weights="vgg16.keras_in1k",
        data__examples_per_class=2,
        data__batch_size=10,
        train__steps=1,
        train__epochs=0.0,
        optim__warmup_steps=0,
        **SIZE,
    )
    command = ["--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}", *flags]
    code, out, err = launcher.run("finetune", *command, small=True)
    assert code == 0, err
    assert "(keras naming, head reset" in out + err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 1
    # A damaged file: nothing is made.
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(path.read_bytes()[:-1])
    command = ["--config=configs/quickstart.py", f"--workdir={tmp_path / 'new'}", *flags]
    code, _, err = launcher.run(
        "finetune", *command, f"--config.init.weights={damaged}", small=True
    )
    assert code == 2 and "damaged.h5 is not a whole HDF5 file" in err and "Traceback" not in err
    assert not (tmp_path / "new").exists()
