"""What a user adds from outside of the package, all in one run through the public API.

An own network without BatchNorm, an own objective on the features of the network's start, an own operation, an own
mixing, an own kind of data, an own optimizer and an own callback; nothing of the package is edited or patched.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import tl_jax
from tl_jax import augment, data, objectives
from tl_jax.errors import InputError


class Plain(nn.Module):
    """Two convolutions and a linear head; no BatchNorm."""

    num_classes: int

    boundaries = ("first", "second", "pool", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        """Returns the features after `stop`."""
        names = list(self.boundaries)
        begin = 0 if start is None else names.index(start) + 1
        end = len(names) if stop is None else names.index(stop) + 1
        for name in names[begin:end]:
            if name in ("first", "second"):
                x = nn.relu(nn.Conv(8, (3, 3), name=name)(x))
            elif name == "pool":
                x = x.mean((1, 2))
            else:
                x = nn.Dense(self.num_classes, name="head")(x)
        return x


def stay_close(outputs):
    """Cross-entropy, and the distance of the first features to those at the start."""
    distance = jnp.square(outputs.features["first"] - outputs.source.features["first"]).mean()
    loss, _ = objectives.CrossEntropy()(outputs)
    return loss + 0.1 * distance, {"distance": distance}


OBJECTIVE = objectives.Own(
    stay_close, "stay_close", needs=("source.features",), boundaries=("first",)
)


def darker(key, image, strength):
    """Returns the image times a number in [1 - strength, 1]."""
    return image * jax.random.uniform(key, minval=1 - strength, maxval=1.0)


def half_and_half(key, images, targets, alpha):
    """Returns the mean of every image with its neighbour's, and of their targets."""
    del key, alpha
    return (images + images[::-1]) / 2, (targets + targets[::-1]) / 2


class Stripes:
    """Two classes of images: stripes from left to right, or from top to bottom."""

    name = "stripes"
    split_names = ("train", "test")
    notes = ()

    def split(self, name):
        """Returns 120 images of 8 x 8 pixels for training, 40 for the test."""
        rng = np.random.default_rng(self.split_names.index(name))
        labels = np.arange(120 if name == "train" else 40, dtype=np.int32) % 2
        stripes = np.broadcast_to(np.arange(8) % 2 * 200, (8, 8))
        images = np.stack([stripes if label else stripes.T for label in labels])
        images = images + rng.integers(0, 50, images.shape)
        rgb = np.repeat(images[..., None], 3, -1).astype(np.uint8)
        return data.InMemorySplit(rgb, labels, ("down", "across"), f"stripes {name}")


def config_of(**fields):
    return tl_jax.default_config(
        **{
            "data__batch_size": 16,
            "parallel__devices": 1,
            "train__steps": 30,
            "train__log_every_steps": 1,
            "optim__learning_rate": 0.01,
            "report__html": False,
            "report__tensorboard": False,
            **fields,
        }
    )


PARTS = {
    "data": Stripes(),
    "model": Plain,
    "objective": OBJECTIVE,
    "operations": [augment.Operation("darker", darker, 0.3)],
    "mixing": [augment.Mixing("half_and_half", half_and_half, 0.5)],
    "optimizer": optax.adam,
}


def test_everything_of_ones_own_in_one_run(tmp_path):
    logged = []

    def callback(step, split, metrics):
        logged.append((step, split, metrics))

    run = tl_jax.finetune(config_of(), tmp_path / "run", callbacks=[callback], **PARTS)
    assert run.result["splits"]["test"]["top1_accuracy"] > 0.9
    assert run.config.model.name == "own:Plain"
    assert run.config.objective.name == "own:stay_close"
    assert run.config.augment.operations == ["own:darker=0.3"]
    assert run.config.augment.mixing == ["own:half_and_half=0.5"]
    assert run.config.optim.name == "own:adam"
    assert run.config.data.name == "stripes"
    training = [metrics for _, split, metrics in logged if split == "train"]
    assert len(training) == 30
    assert training[0]["distance"] == 0.0 and training[-1]["distance"] > 0  # moved from the start
    assert {split for _, split, _ in logged} == {"train", "validation"}
    assert "batch_stats" not in "".join(
        json.loads((run.workdir / "port_report.json").read_text())
        if (run.workdir / "port_report.json").exists()
        else ""
    )
    images = Stripes().split("test").images
    probabilities = run.predict(images)
    assert probabilities.shape == (40, 2)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_the_objects_are_needed_again_and_named(tmp_path):
    run = tl_jax.finetune(config_of(train__steps=2), tmp_path / "run", **PARTS)
    again = tl_jax.finetune(config_of(train__steps=2), tmp_path / "run", **PARTS)
    assert again.result == run.result
    # Loaded with its network, it predicts; without it, the message says what is missing.
    images = Stripes().split("test").images[:3]
    loaded = tl_jax.load_run(tmp_path / "run", model=Plain)
    np.testing.assert_array_equal(loaded.predict(images), run.predict(images))
    with pytest.raises(InputError, match=r"own:Plain.*model="):
        tl_jax.load_run(tmp_path / "run").predict(images)


def test_own_parts_on_stored_activations(tmp_path):
    """With its first convolution frozen, the network trains on what is stored behind it."""
    frozen = {"freeze__strategy": "up_to:first", "cache__dir": ""}
    parts = {name: part for name, part in PARTS.items() if name not in ("operations", "mixing")}
    plain = {"augment__flip": False, "augment__crop_padding": 0, "train__steps": 6}
    stored = tl_jax.finetune(
        config_of(**frozen, **plain, cache__boundary="first"), tmp_path / "stored", **parts
    )
    images = tl_jax.finetune(config_of(**frozen, **plain), tmp_path / "images", **parts)
    assert stored.result["cache"]["boundary"] == "first"
    ours, theirs = (jax.tree.leaves(one.variables["params"]) for one in (stored, images))
    for leaf, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-6)
