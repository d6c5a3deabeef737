"""What `benchmarks.throughput` measures of this library: its sides."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.networks import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Network
from tl_jax import freezing, models, optim
from tl_jax.augment import make_train_transform, preprocessing
from tl_jax.models import convolution, cpu
from tl_jax.training import steps
from tl_jax.training.state import TrainState


@dataclasses.dataclass
class Side:
    """One of those compared.

    Attributes:
        logits: of the batch in inference, before any update.
        step: begins one step and returns its loss, or the logits in a forward row.
        wait: returns when all steps begun are done.
        mean: of what `step` returns, as a number.
    """

    logits: np.ndarray
    step: Callable[[], Any]
    wait: Callable[[], None]
    mean: Callable[[Any], float]


def make(
    network: Network,
    mode: str,
    variables: dict[str, Any],
    batch: dict[str, np.ndarray],
    precision: str,
    *,
    native_gradients: bool = False,
) -> Side:
    """Returns this library's side: the training step as runs compile it, or the forward pass.

    Args:
        network: to measure.
        mode: of `MODES`.
        variables: the weights; not changed.
        batch: "image" uint8 [B, H, W, 3], "label" int32 [B].
        precision: dtype of the computation.
        native_gradients: whether convolutions keep the gradients that JAX derives.
    """
    params, batch_stats = copied(variables)
    images = jax.device_put(
        {**batch, "position": np.arange(len(batch["label"]), dtype=np.int32)}, jax.devices()[0]
    )
    infer = make_inference(network, precision)
    choice = native_convolutions() if native_gradients else contextlib.nullcontext()
    with choice:
        inference = _compile(infer, params, batch_stats, images["image"])
        logits = np.asarray(inference(params, batch_stats, images["image"]))
        if mode == "forward":
            held = [inference(params, batch_stats, images["image"])]

            def run():
                held[0] = inference(params, batch_stats, images["image"])
                return held[0]

            return Side(logits, run, lambda: jax.block_until_ready(held[0]), mean)

        training = make_training(network, mode, variables, precision)
        held = [training.state]
        step = _compile(training.step, held[0], images, donate_argnums=0)

    def update():
        held[0], measured = step(held[0], images)
        return measured["loss"]

    return Side(logits, update, lambda: jax.block_until_ready(held[0]), mean)


@dataclasses.dataclass(frozen=True)
class Training:
    """A training step of this library as runs make it, not compiled yet.

    Attributes:
        model: the network.
        step: from a state and a batch to the next state and metrics.
        state: the first one.
        frozen_mask: tree of bools like the params, True where frozen.
    """

    model: Any
    step: Callable[..., Any]
    state: TrainState
    frozen_mask: dict[str, Any]


def make_training(
    network: Network, mode: str, variables: dict[str, Any], precision: str
) -> Training:
    """Returns the training step of a network, with what `mode` freezes; see `make`."""
    model = make_model(network, precision)
    params, batch_stats = copied(variables)
    mask = freezing.frozen_mask(params, _strategy(network, mode), boundaries=model.boundaries)
    tx = optim.make_optimizer(
        params,
        optim.make_schedule("constant", LEARNING_RATE, 1),
        optim.Rule(momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, decay_bias_and_norm=True),
        frozen_mask=mask,
    )
    forward = models.make_forward(model, frozen_norms=freezing.frozen_norms(params, mask))
    transform = make_train_transform(preprocessing.Preprocessing(network.image_size))
    step = steps.make_train_step(forward, transform, tx, frozen_mask=mask)
    state = TrainState(jnp.int32(0), jnp.int32(0), params, batch_stats, tx.init(params))
    return Training(model, step, state, mask)


def make_inference(network: Network, precision: str) -> Callable[..., jax.Array]:
    """Returns the forward pass in inference: from params, running statistics and uint8 images to logits."""
    forward = models.make_forward(make_model(network, precision))
    normalise = preprocessing.make_eval_transform(preprocessing.Preprocessing(network.image_size))

    def infer(params, batch_stats, images):
        return forward(params, batch_stats, normalise(images), train=False)[0]

    return infer


def make_model(network: Network, precision: str = "float32") -> Any:
    """Returns the network."""
    options = {"stem": network.stem, "dropout": network.dropout, "dtype": precision}
    return models.create_model(network.model, network.num_classes, **options)


def copied(variables: dict[str, Any]) -> tuple[Any, Any]:
    """Returns params and running statistics as arrays of the device's own.

    A CPU device may share NumPy's memory, and donation would write to it.
    """
    return jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))


@contextlib.contextmanager
def native_convolutions() -> Iterator[None]:
    """Convolutions traced inside keep the gradients that JAX derives, on a CPU too."""
    with mock.patch.object(convolution, "convolve", cpu.native_convolution):
        yield


def random_variables(network: Network) -> dict[str, Any]:
    """Returns random weights, and running statistics that are not those of a fresh network."""
    variables = models.init_variables(make_model(network), jax.random.key(0))
    rng = np.random.default_rng(0)
    # Near a fresh network's means of 0 and variances of 1: far from them, every ReLU would be dead.
    stats = jax.tree.map(
        lambda leaf: leaf + rng.uniform(-0.1, 0.1, leaf.shape).astype(np.float32),
        jax.tree.map(np.asarray, variables["batch_stats"]),
    )
    return {"params": jax.tree.map(np.asarray, variables["params"]), "batch_stats": stats}


def random_batch(network: Network, batch_size: int) -> dict[str, np.ndarray]:
    """Returns "image" uint8 [B, H, W, 3] and "label" int32 [B]."""
    rng = np.random.default_rng(1)
    size = network.image_size
    return {
        "image": rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8),
        "label": rng.integers(0, network.num_classes, batch_size).astype(np.int32),
    }


def _compile(function, *args, **options):
    return jax.jit(function, **options).lower(*args).compile()


def mean(value: jax.Array) -> float:
    """Returns the mean of an array as a number."""
    return float(np.asarray(value, np.float32).mean())


def _strategy(network: Network, mode: str) -> str:
    return {
        "full": "none",
        "frozen_late": f"up_to:stage{network.late}",
        "frozen_backbone": "backbone",
    }[mode]
