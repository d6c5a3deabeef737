"""The features of a network as files: those of every image as it is, computed as the network does."""

import json

import numpy as np
import pytest
from running import tiny_config, tree_of

from tl_jax import models
from tl_jax.augment import preprocessing
from tl_jax.errors import InputError
from tl_jax.features import saving
from tl_jax.runs import features, image_features


@pytest.fixture(scope="module")
def make_config(small_networks, tmp_path_factory):
    store = tmp_path_factory.mktemp("activations")

    def make(**fields):
        given = {
            "data__validation_fraction": 0.1,
            "data__examples_per_class": 4,
            # A fine-tuning config as it is: what says how it trains plays no part.
            "data__batch_size": 100_000,
            "model__batch_norm_rows": 100,
            "train__steps": 0,
            "augment__operations": ("rotation=15",),
            "phases": (("train.steps=3",), ()),
            "cache__dir": str(store),
        }
        config = tiny_config("quickstart", **(given | fields))
        return config

    return make


@pytest.fixture(scope="module")
def saved(make_config, tmp_path_factory):
    config = make_config(features__boundary="stage2")
    workdir = tmp_path_factory.mktemp("features") / "run"
    return config, workdir, features.run(config, workdir)


def test_what_the_command_leaves(saved):
    _, workdir, result = saved
    assert {path.name for path in workdir.iterdir()} == {
        ".lock", "config.json", "preprocessing.json", "class_names.json", "result.json",
        "train.npz", "validation.npz", "test.npz",
    }  # fmt: skip
    assert json.loads((workdir / "result.json").read_text()) == json.loads(json.dumps(result))
    assert (result["boundary"], result["pool"], result["format"]) == ("stage2", "mean", "npz")
    rows = {row["split"]: row for row in result["files"]}
    assert rows["train"] == {
        "split": "train", "file": "train.npz", "examples": 40, "features": 8
    }  # fmt: skip
    assert rows["validation"]["examples"] == 130 and rows["test"]["examples"] == 500


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_features_are_the_networks_means_of_its_maps(saved, split):
    config, workdir, _ = saved
    found = saving.load(workdir / f"{split}.npz")
    setup = image_features.setup_of(config)
    images, pixels = (
        setup.splits[split].images,
        preprocessing.make_eval_transform(setup.preprocessing),
    )
    maps = setup.model.apply(
        setup.initial.variables, pixels(images), train=False, start=None, stop="stage2"
    )
    np.testing.assert_allclose(found.features, np.mean(maps, axis=(1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.labels, setup.splits[split].labels)
    # Where each image is in the data set.
    whole = setup.splits[split].whole()[0]
    np.testing.assert_array_equal(whole.images[found.indices], images)
    assert found.class_names == tuple(map(str, range(10)))


def test_again_they_are_the_same_bytes(saved, make_config, tmp_path):
    """Activations computed anew, in another folder."""
    config, workdir, _ = saved
    again = make_config(features__boundary="stage2", cache__dir="")
    features.run(again, tmp_path / "run")
    for split in ("train", "validation", "test"):
        name = f"{split}.npz"
        assert (tmp_path / "run" / name).read_bytes() == (workdir / name).read_bytes()
    before = tree_of(workdir)
    assert features.run(config, workdir)["status"] == "finished"
    assert tree_of(workdir) == before


def test_whole_maps_and_the_last_boundary(make_config, tmp_path):
    config = make_config(
        features__pool="flatten", features__boundary="stem", features__format="tfds"
    )
    result = features.run(config, tmp_path / "maps")
    assert {row["features"] for row in result["files"]} == {8 * 8 * 4}
    assert (tmp_path / "maps" / "features" / "1.0.0" / "dataset_info.json").is_file()
    shape = models.boundary_shapes(image_features.setup_of(config).model, 8)["stem"]
    assert shape == (8, 8, 4)
    setup = image_features.setup_of(make_config())
    assert setup.boundary == "pool" and image_features.count(setup, "mean") == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features__boundary": "stage9"}, "unknown features.boundary 'stage9'"),
        ({"features__boundary": "head"}, "unknown features.boundary 'head'"),
        ({"features__format": "csv"}, "unknown features.format 'csv'"),
        ({"init__weights": "nothing.safetensors"}, "nothing.safetensors"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_made(make_config, tmp_path, fields, message):
    with pytest.raises(InputError) as raised:
        features.run(make_config(**fields), tmp_path / "new")
    assert message in str(raised.value)
    assert tree_of(tmp_path) == {}
