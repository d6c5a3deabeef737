"""Whether a run on stored activations begins as the run on images does."""

import dataclasses

import jax
import numpy as np

from tl_jax import console, features, trees
from tl_jax.parallel import sharding
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import Setup


def verified(setup: Setup, updates: int) -> Setup:
    """Returns the run, having trained a few updates from its start both ways: on activations, on images.

    The largest difference of a parameter or statistic is printed, and becomes part of the
    cache statistics.

    Args:
        setup: on activations.
        updates: how many; no more than the run has are made.
    """
    order, split, stored = setup.order, setup.splits["train"], setup.inputs["train"]
    rows = sharding.local_rows(setup.mesh, order.batch_size)
    numbers = split.whole()[1]
    as_is = features.make_view_transform(
        setup.preprocessing, setup.augmentation, order.views, setup.config.cache.view_seed
    )
    on_images = dataclasses.replace(setup, cache=None)
    steps = [
        sharding.StreamedStep(make_pure_step(setup), setup.mesh, compilation=setup.compilation),
        sharding.StreamedStep(
            make_pure_step(on_images, lambda key, rows, images: as_is(rows, images)),
            setup.mesh,
            compilation=setup.compilation,
        ),
    ]
    states = [setup.initial_state(), setup.initial_state()]
    updates = min(updates, setup.total_steps - setup.first_step)
    for number in range(setup.first_step, setup.first_step + updates):
        examples, views = np.divmod(order.rows(number)[rows], order.views)
        inputs = [
            (stored.gather_views(examples, views), np.arange(order.batch_size)[rows]),
            (split.gather(examples), numbers[examples] * order.views + views),
        ]
        for i, (images, positions) in enumerate(inputs):
            batch = {
                "image": images,
                "label": split.labels[examples],
                "position": positions.astype(np.int32),
            }
            states[i], _ = steps[i](states[i], steps[i].place(batch))
        jax.block_until_ready(states)
    cached, plain = (
        trees.flatten({"params": state.params, "batch_stats": state.batch_stats})
        for state in states
    )
    differences = {
        name: float(np.max(np.abs(np.asarray(leaf) - np.asarray(cached[name]))))
        for name, leaf in plain.items()
    }
    name = max(differences, key=differences.__getitem__)
    console.say(
        f"cache.verify: after {updates} updates on activations and on images the largest difference is "
        f"{differences[name]:.2e} ({name})"
    )
    found = {"updates": updates, "largest_difference": differences[name], "leaf": name}
    return dataclasses.replace(setup, cache={**(setup.cache or {}), "verified": found})
