"""Compiled FLOPs of a training step under each freezing strategy, as multiples of the forward pass.

    python -m benchmarks.flops [--model=resnet20_cifar] [--image_size=32] [--batch_size=32] [--out=flops.json]

The figures are those of XLA's cost analysis of the compiled program: counted, not timed.
"""

import argparse

import jax
import jax.numpy as jnp

from benchmarks import record
from tl_jax import freezing, models, optim
from tl_jax.augment import augmentation, preprocessing
from tl_jax.training import steps
from tl_jax.training.state import TrainState


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet20_cifar", choices=models.list_models())
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=32)
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    recording.write(
        {
            "model": args.model,
            "image_size": args.image_size,
            "batch_size": args.batch_size,
            **measure(args.model, args.image_size, args.batch_size),
        }
    )


def measure(name: str, image_size: int, batch_size: int) -> dict[str, float]:
    """Returns MFLOP of the forward pass and of a step under each strategy, and their ratios."""
    model = models.create_model(name, 10)
    variables = models.init_variables(model, jax.random.key(0), (1, image_size, image_size, 3))
    batch = {
        "image": jnp.zeros((batch_size, image_size, image_size, 3), jnp.uint8),
        "label": jnp.zeros(batch_size, jnp.int32),
        "position": jnp.arange(batch_size, dtype=jnp.int32),
    }
    spec = preprocessing.Preprocessing(image_size)
    forward = models.make_forward(model)
    transform = preprocessing.make_eval_transform(spec)
    evaluate = steps.make_eval_step(forward, transform)
    masked = {**batch, "mask": jnp.ones(batch_size, bool)}
    base = _mflop(evaluate, variables["params"], variables["batch_stats"], masked)
    measured = {"forward_mflop": base}
    last_stage = model.boundaries[-3]
    before_last = f"stage{int(last_stage.removeprefix('stage')) - 1}"
    for strategy in ("backbone", f"up_to:{before_last}", "none"):
        step, state = make_train_step(model, variables, spec, strategy)
        measured[f"{strategy}_mflop"] = _mflop(step, state, batch)
        measured[f"{strategy}_ratio"] = measured[f"{strategy}_mflop"] / base
    return measured


def make_train_step(model, variables, spec, strategy):
    """Returns the training step under a freezing strategy, and the state of its first update."""
    params = variables["params"]
    mask = freezing.frozen_mask(params, strategy, boundaries=model.boundaries)
    tx = optim.make_optimizer(
        params,
        optim.make_schedule("constant", 0.1, 10),
        optim.Rule(weight_decay=1e-4, clip_norm=1.0),
        frozen_mask=mask,
    )
    forward = models.make_forward(model, frozen_norms=freezing.frozen_norms(params, mask))
    transform = augmentation.make_train_transform(
        spec, augmentation.Augmentation(crop_padding=4, flip=True)
    )
    step = steps.make_train_step(forward, transform, tx, frozen_mask=mask)
    state = TrainState(
        jnp.int32(0), jnp.int32(0), params, variables["batch_stats"], tx.init(params)
    )
    return step, state


def _mflop(function, *args) -> float:
    analysis = jax.jit(function).lower(*args).compile().cost_analysis()
    return analysis["flops"] / 1e6


if __name__ == "__main__":
    main()
