"""The key of stored activations changes with every weight, every statistic and every pixel."""

import functools

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_jax import features, models, trees
from tl_jax.augment import preprocessing
from tl_jax.data import InMemorySplit

MODEL = models.resnet.ResNet((1,), "basic", 3, stem_kind="cifar", width=2)
IMAGES = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
SPEC = preprocessing.Preprocessing(image_size=8)


@functools.cache
def start():
    variables = models.init_variables(MODEL, jax.random.key(0), (1, 8, 8, 3))
    return {
        kind: trees.flatten(features.prefix_of(MODEL, "stage1", variables[kind]))
        for kind in ("params", "batch_stats")
    }


def facts(params, batch_stats, images=IMAGES):
    prefix = features.make_prefix(MODEL, SPEC, "stage1", views=1, seed=0, dtype="float32")
    split = InMemorySplit(images, np.zeros(len(images), np.int32), ("one",))
    variables = trees.unflatten(params), trees.unflatten(batch_stats)
    program = features.facts_of_program(prefix, *variables, split.image_shape)
    return program | features.facts_of_images(split)


@functools.cache
def original():
    return facts(**start())


def test_the_same_weights_and_pixels_have_the_same_facts():
    assert facts(**start()) == original()


@settings(max_examples=10)
@given(st.data())
def test_any_weight_or_statistic_changes_them(data):
    kind = data.draw(st.sampled_from(("params", "batch_stats")))
    changed = {name: dict(leaves) for name, leaves in start().items()}
    name = data.draw(st.sampled_from(sorted(changed[kind])))
    leaf = np.array(changed[kind][name])
    place = data.draw(st.integers(0, leaf.size - 1))
    leaf.reshape(-1)[place] += 0.5
    changed[kind][name] = leaf
    found = facts(**changed)
    assert {fact for fact in found if found[fact] != original()[fact]} == {"weights"}


@settings(max_examples=10)
@given(st.integers(0, IMAGES.size - 1))
def test_any_pixel_changes_them(place):
    images = IMAGES.copy()
    images.reshape(-1)[place] += 1
    found = facts(**start(), images=images)
    assert {fact for fact in found if found[fact] != original()[fact]} == {"images"}
