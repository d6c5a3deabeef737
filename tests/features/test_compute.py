"""Activations are what the network computes, whatever the batches and the part of the data set."""

import functools

import jax
import numpy as np
import pytest

from tl_jax import features, models
from tl_jax.augment import augmentation, preprocessing
from tl_jax.compilation import PLAIN, Compilation
from tl_jax.data import InMemorySplit, stream
from tl_jax.features import ActivationSplit
from tl_jax.parallel import sharding

SIZE, CLASSES = 16, 4
MODEL = models.resnet.ResNet((1, 1), "basic", CLASSES, stem_kind="cifar", width=4, shortcut="pad")
SPEC = preprocessing.Preprocessing(SIZE)
SHIFTED = augmentation.Augmentation(crop_padding=2, flip=True)
VARIABLES = models.init_variables(MODEL, jax.random.key(0), (1, SIZE, SIZE, 3))
PARAMS, STATS = VARIABLES["params"], VARIABLES["batch_stats"]


def split(num_examples=11):
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (num_examples, SIZE, SIZE, 3)).astype(np.uint8)
    labels = random.randint(0, CLASSES, num_examples)
    return InMemorySplit(images, labels, "abcd")


def computed(split, examples, boundary="pool", views=1, batch_size=4, seed=0, devices=1):
    mesh = sharding.make_mesh(devices)
    prefix = features.make_prefix(
        MODEL, SPEC, boundary, views=views, seed=seed, dtype="float32", augmentation=SHIFTED
    )
    shape = features.shape_of(prefix, PARAMS, STATS, split.image_shape)
    out = np.full((len(split), views, *shape), np.nan, np.float32)
    done = []
    step = sharding.compile_eval_step(prefix, mesh)
    batches = stream.eval_batches(split, batch_size, sharding.local_rows(mesh, batch_size))
    features.compute(
        functools.partial(step, PARAMS, STATS),
        ({"image": batch["image"], "example": examples[batch["index"]]} for batch in batches),
        batch_size,
        out,
        show=done.append,
    )
    assert done == list(range(1, views * -(-len(split) // batch_size) + 1))
    return out


@pytest.mark.parametrize("boundary", ["stem", "stage1", "pool"])
def test_one_view_is_the_image_as_it_is(boundary):
    images = preprocessing.make_eval_transform(SPEC)(split().images)
    forward = models.make_forward(MODEL, stop=boundary)
    expected, _ = jax.jit(forward, static_argnames="train")(PARAMS, STATS, images, train=False)
    found = computed(split(), np.arange(11), boundary)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_views_differ_from_each_other_and_from_those_of_another_seed():
    found, other = (computed(split(), np.arange(11), views=3, seed=seed) for seed in (0, 1))
    assert len({view.tobytes() for view in found[0]}) == 3
    assert not np.array_equal(found, other)
    np.testing.assert_array_equal(found, computed(split(), np.arange(11), views=3))


def test_views_are_those_of_the_network_s_input_whatever_the_stored_size():
    transform = jax.jit(features.make_view_transform(SPEC, SHIFTED, 2, 5))
    rows = np.arange(16)
    found = [transform(rows, np.full((16, side, side, 3), 255, np.uint8)) for side in (8, SIZE, 40)]
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, atol=1e-5)
    assert len({view.tobytes() for view in np.asarray(found[1])}) > 4


def test_a_part_has_the_views_that_it_has_in_the_whole():
    rows = np.array([2, 3, 7])
    whole = computed(split(), np.arange(11), views=2)
    part = computed(split().subset(rows), rows, views=2)
    np.testing.assert_allclose(part, whole[rows], rtol=1e-6, atol=1e-7)


def test_any_batch_size_and_number_of_devices():
    expected = computed(split(), np.arange(11), views=2, batch_size=11)
    for batch_size, devices in ((4, 1), (8, 4)):
        found = computed(split(), np.arange(11), views=2, batch_size=batch_size, devices=devices)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def facts(split=None, params=None, spec=SPEC, compilation=PLAIN, **options):
    given = {"views": 1, "seed": 0, "dtype": "float32", "boundary": "pool"}
    given |= {"augmentation": SHIFTED} | options
    prefix = features.make_prefix(MODEL, spec, given.pop("boundary"), **given)
    split = split or globals()["split"]()
    program = features.facts_of_program(
        prefix, params or PARAMS, STATS, split.image_shape, compilation
    )
    return program | features.facts_of_images(split)


def test_facts_tell_apart_whatever_changes_activations():
    moved = jax.tree.map(np.array, PARAMS)
    moved["stem"]["conv"]["kernel"][0, 0, 0, 0] += 1e-7
    others = [
        facts(split(10)),
        facts(params=moved),
        facts(spec=preprocessing.Preprocessing(SIZE, mean=(0.5, 0.5, 0.5))),
        facts(spec=preprocessing.Preprocessing(SIZE, resize=SIZE + 2)),
        facts(boundary="stage1"),
        facts(dtype="bfloat16"),
        facts(views=2),
        facts(views=2, seed=1),
        facts(compilation=Compilation("high")),
        facts(compilation=Compilation("highest")),
        facts(compilation=Compilation(options={"xla_gpu_deterministic_ops": True})),
    ]
    texts = [str(sorted(given.items())) for given in (facts(), *others)]
    assert len(set(texts)) == len(texts)
    assert facts() == facts()
    # How many views there are is in the shape of the store.
    assert facts(views=2) == facts(views=3)
    # Labels and the augmentation that one view does not use change nothing.
    assert facts(augmentation=augmentation.NOTHING) == facts()


def test_a_split_of_activations():
    store = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    stored = ActivationSplit(store, [4, 0, 5], np.array([2, 0, 1]), "abc", "key", "train")
    assert len(stored) == 3 and stored.views == 2 and stored.image_shape == (2,)
    assert stored.num_bytes == 48
    assert stored.gather(np.array([0, 2])).tolist() == [[16, 17], [20, 21]]
    chosen = stored.gather_views(np.array([0, 1]), np.array([1, 0]))
    assert chosen.tolist() == [[18, 19], [0, 1]]
    np.testing.assert_array_equal(stored.activations, store[[4, 0, 5]])
    part = stored.subset(np.array([2, 1]))
    assert part.fingerprint() != stored.fingerprint() != "key"
    assert part.labels.tolist() == [1, 0]
    assert part.gather(np.array([0, 1])).tolist() == [[20, 21], [0, 1]]
    whole = ActivationSplit(store, np.arange(6), np.zeros(6), "abc", "key", "train")
    assert whole.activations is store
