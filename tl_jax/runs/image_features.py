"""The features that a network has of every image as it is: what probes and other classifiers are fitted to."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from tl_jax import models
from tl_jax.augment.preprocessing import make_eval_transform
from tl_jax.config import default_config
from tl_jax.data import Split, stream
from tl_jax.errors import InputError, unknown
from tl_jax.features.pooling import as_vectors
from tl_jax.features.saving import Features
from tl_jax.parallel import sharding
from tl_jax.runs import activation_cache
from tl_jax.runs.network import make_model
from tl_jax.runs.setup import Setup, prepare

# Activations that are pooled at a time, in bytes.
_CHUNK_BYTES = 256 << 20
# What says how a network is trained, and is not looked at where none is.
_OF_TRAINING = ("freeze", "augment", "objective", "optim", "solver", "average", "train")


def frozen(config: ml_collections.ConfigDict, boundary: str = "") -> ml_collections.ConfigDict:
    """Returns the config of a run that stores the activations of every image as it is.

    Args:
        config: of the model, weights and data.
        boundary: where they are stored; "" for the last one before the head.
    """
    plain = copy.deepcopy(config)
    plain.freeze.strategy, plain.freeze.patterns, plain.freeze.batch_norm = "backbone", (), "frozen"
    plain.augment.crop_padding, plain.augment.flip = 0, False
    plain.cache.boundary = boundary or models.before_head(make_model(config, 1))[-1]
    plain.cache.views = 1
    if "dropout" in models.get_architecture(config.model.name).options:
        plain.model.dropout = 0.0
    return plain


def without_training(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a config with the shortest training there is, and the defaults of what nothing else looks at."""
    plain, defaults = copy.deepcopy(config), default_config()
    for section in _OF_TRAINING:
        plain[section] = defaults[section]
    plain.train.steps = 1
    plain.train.deterministic = config.train.deterministic
    plain.model.batch_norm_rows = defaults.model.batch_norm_rows
    plain.data.batch_size = sharding.make_mesh(config.parallel.devices).size
    return plain


def setup_of(config: ml_collections.ConfigDict) -> Setup:
    """Returns what computes the features that `config.features` asks for.

    Of the rest of the config, the model, weights, data and devices count; what says how a network is trained
    (`augment` among it) is not looked at.

    Raises:
        InputError: if the boundary is unknown, or config, data or weights do not fit.
    """
    if jax.process_count() > 1:
        raise InputError(
            f"features are computed in one process, not in {jax.process_count()}; expected one"
        )
    choices = models.before_head(make_model(config, 1))
    boundary = config.features.boundary or choices[-1]
    if boundary not in choices:
        raise unknown("features.boundary", boundary, choices)
    plain = without_training(config)
    plain.phases = ()
    plain.cache.dtype = "float32"
    return prepare(frozen(plain, boundary))


def compute(
    setup: Setup, pool: str, stop_requested: Callable[[], bool] = lambda: False
) -> tuple[dict[str, Features], Setup]:
    """Returns the features of every split, and the setup with the facts of its stored activations.

    Args:
        setup: from `setup_of`.
        pool: of maps, see `features.pooling`.
        stop_requested: whether to stop; asked between batches.

    Raises:
        loops.Stopped: when asked to.
        OSError: if the disk is full.
    """
    setup = activation_cache.use(setup, stop_requested)
    found = {}
    for name, stored in setup.inputs.items():
        rows = max(1, _CHUNK_BYTES // (4 * int(np.prod(stored.image_shape))))
        parts = [
            as_vectors(stored.gather(np.arange(start, min(start + rows, len(stored)))), pool)
            for start in range(0, len(stored), rows)
        ]
        split = setup.splits[name]
        places = np.asarray(split.whole()[1], np.int64)
        found[name] = Features(np.concatenate(parts), split.labels, places, split.class_names)
    return found, setup


def count(setup: Setup, pool: str) -> int:
    """Returns how many features an example has, computing none."""
    assert setup.boundary is not None  # as `setup_of` asks
    shape = models.boundary_shapes(setup.model, setup.preprocessing.image_size)[setup.boundary]
    return int(shape[-1] if pool == "mean" else np.prod(shape))


def of_split(setup: Setup, params: Any, batch_stats: Any, split: Split) -> np.ndarray:
    """Returns the features after the last boundary before the head, float32 [N, F].

    Args:
        setup: of the run, on images or on stored activations.
        params: of the network.
        batch_stats: of the network.
        split: of images or of stored activations, as those of `setup.inputs`.
    """
    start = setup.boundary if setup.cache is not None else None
    last = models.before_head(setup.model)[-1]
    forward = models.make_forward(models.without_remat(setup.model), start=start, stop=last)
    transform = make_eval_transform(setup.preprocessing)
    if start is not None:
        transform = lambda stored: stored.astype("float32")

    def prefix(params, batch_stats, batch):
        return forward(params, batch_stats, transform(batch["image"]), train=False)[0].astype(
            "float32"
        )

    compiled = sharding.compile_eval_step(prefix, setup.mesh, setup.compilation)
    step = functools.partial(compiled, params, batch_stats)
    size = setup.evaluator.rows(split)
    rows = sharding.local_rows(setup.mesh, size)
    batches = stream.eval_batches(split, size, rows, setup.config.data.workers)
    parts = [as_vectors(np.asarray(step({"image": batch["image"]}))) for batch in batches]
    return np.concatenate(parts)[: len(split)]
