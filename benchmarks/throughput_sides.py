"""What `benchmarks.throughput` measures: the networks, and this library's sides."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import freezing, models, optim
from tl_jax.augment import make_train_transform, preprocessing
from tl_jax.models import convolution, cpu
from tl_jax.training import steps
from tl_jax.training.state import TrainState

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to measure.

    Attributes:
        model: its name in the registry.
        stem: of the registry; None for the architecture's own.
        image_size: pixels a side.
        num_classes: of the head.
        batch_sizes: by platform.
        late: the stage up to which "frozen_late" freezes.
    """

    model: str
    stem: str | None
    image_size: int
    num_classes: int
    batch_sizes: dict[str, int]
    late: int


NETWORKS = {
    "resnet20": Network("resnet20_cifar", None, 32, 10, {"cpu": 128, "gpu": 2048}, 2),
    "resnet18_32px": Network("resnet18", "cifar", 32, 10, {"cpu": 32, "gpu": 1024}, 3),
    "resnet18": Network("resnet18", None, 224, 1000, {"cpu": 16, "gpu": 256}, 3),
    "resnet50": Network("resnet50", None, 224, 1000, {"cpu": 8, "gpu": 256}, 3),
}
MODES = ("full", "frozen_late", "frozen_backbone", "forward")
ROWS = tuple(f"{network}/{mode}" for network in NETWORKS for mode in MODES)


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
    model = models.create_model(
        network.model, network.num_classes, stem=network.stem, dtype=precision
    )
    # Copies: a CPU device may share NumPy's memory, and donation would write to it.
    params, batch_stats = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
    spec = preprocessing.Preprocessing(network.image_size)
    images = jax.device_put(
        {**batch, "position": np.arange(len(batch["label"]), dtype=np.int32)}, jax.devices()[0]
    )
    forward = models.make_forward(model)
    normalise = preprocessing.make_eval_transform(spec)

    def infer(params, batch_stats, images):
        return forward(params, batch_stats, normalise(images), train=False)[0]

    choice = native_convolutions() if native_gradients else contextlib.nullcontext()
    with choice:
        inference = _compile(infer, params, batch_stats, images["image"])
        logits = np.asarray(inference(params, batch_stats, images["image"]))
        if mode == "forward":
            held = [inference(params, batch_stats, images["image"])]

            def run():
                held[0] = inference(params, batch_stats, images["image"])
                return held[0]

            return Side(logits, run, lambda: jax.block_until_ready(held[0]), _mean)

        mask = freezing.frozen_mask(params, _strategy(network, mode), boundaries=model.boundaries)
        tx = optim.make_optimizer(
            params,
            optim.make_schedule("constant", LEARNING_RATE, 1),
            optim.Rule(momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, decay_bias_and_norm=True),
            frozen_mask=mask,
        )
        train_forward = models.make_forward(model, frozen_norms=freezing.frozen_norms(params, mask))
        train_step = steps.make_train_step(
            train_forward, make_train_transform(spec), tx, frozen_mask=mask
        )
        held = [TrainState(jnp.int32(0), jnp.int32(0), params, batch_stats, tx.init(params))]
        step = _compile(train_step, held[0], images, donate_argnums=0)

    def update():
        held[0], measured = step(held[0], images)
        return measured["loss"]

    return Side(logits, update, lambda: jax.block_until_ready(held[0]), _mean)


@contextlib.contextmanager
def native_convolutions() -> Iterator[None]:
    """Convolutions traced inside keep the gradients that JAX derives, on a CPU too."""
    with mock.patch.object(convolution, "convolve", cpu.native_convolution):
        yield


def random_variables(network: Network) -> dict[str, Any]:
    """Returns random weights, and running statistics that are not those of a fresh network."""
    model = models.create_model(network.model, network.num_classes, stem=network.stem)
    variables = models.init_variables(model, jax.random.key(0))
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


def _mean(value: jax.Array) -> float:
    return float(np.asarray(value, np.float32).mean())


def _strategy(network: Network, mode: str) -> str:
    return {
        "full": "none",
        "frozen_late": f"up_to:stage{network.late}",
        "frozen_backbone": "backbone",
    }[mode]
