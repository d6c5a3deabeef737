"""Every example counts once, in the order of the split."""

import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax.data import InMemorySplit, stream
from tl_jax.parallel import sharding
from tl_jax.training import evaluation, metrics, steps

CLASSES = 3


def split_of(count):
    """Image `i` holds the value `i`; its label is `i` modulo 3."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    return InMemorySplit(images, np.arange(count) % CLASSES, ("a", "b", "c"), "counted")


def forward(params, batch_stats, inputs, *, train):
    """Predicts 0 always, by a logit that holds the image's value."""
    assert not train
    value = inputs[:, 0, 0, 0] + params["offset"]
    return jnp.stack([value, jnp.zeros_like(value), jnp.zeros_like(value)], axis=-1), batch_stats


def evaluate(count, batch_size, devices=1):
    mesh = sharding.make_mesh(devices)
    step = steps.make_eval_step(forward, lambda images: images.astype(jnp.float32))
    split = split_of(count)
    batches = stream.eval_batches(split, batch_size, sharding.local_rows(mesh, batch_size))
    variables = sharding.replicate(mesh, ({"offset": jnp.float32(1)}, {}))
    compiled = sharding.compile_eval_step(step, mesh)
    return evaluation.evaluate(compiled, *variables, batches, len(split))


@pytest.mark.parametrize(
    ("count", "batch_size", "devices"),
    [(10, 4, 1), (10, 4, 4), (8, 4, 1), (3, 8, 8), (1, 4, 2), (101, 4, 2)],
)
def test_each_example_counts_once_in_order(count, batch_size, devices):
    measured, logits = evaluate(count, batch_size, devices)
    assert measured["examples"] == count
    assert measured["top1_accuracy"] == -(-count // CLASSES) / count
    assert measured["top5_accuracy"] == 1.0
    assert logits.shape == (count, CLASSES) and logits.dtype == np.float32
    np.testing.assert_array_equal(logits[:, 0], 1 + np.arange(count))


def test_the_loss_is_the_mean_over_examples_not_over_batches():
    """10 examples in batches of 4: a mean of batch means would weigh the last two double."""
    measured, _ = evaluate(10, 4)
    values = 1.0 + np.arange(10)
    normaliser = np.log(np.exp(values) + 2)
    own = np.where(np.arange(10) % CLASSES == 0, values, 0)
    assert measured["loss"] == pytest.approx((normaliser - own).mean(), rel=1e-6)


@pytest.mark.parametrize("promised", [9, 11])
def test_a_lost_or_repeated_example_is_noticed(promised):
    def step(params, batch_stats, batch):
        logits = jnp.zeros((len(batch["label"]), CLASSES))
        return metrics.batch_sums(logits, batch["label"], batch["mask"]), logits

    with pytest.raises(AssertionError):
        evaluation.evaluate(step, {}, {}, stream.eval_batches(split_of(10), 4), promised)
