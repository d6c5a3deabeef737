"""What is in a training step as it is lowered for GPUs and TPUs, which need not be there.

    python -m benchmarks.lowered [--model=resnet50] [--image_size=224] [--batch_size=64] [--out=FILE]

Counted in the StableHLO of the step in bfloat16, before the compiler of the platform sees it. What this command wrote
at an earlier revision, copied there, is in results/lowered_before.json.
"""

import argparse
import re
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks import record
from benchmarks.flops import make_train_step
from tl_jax import models
from tl_jax.augment import preprocessing

PLATFORMS = ("cuda", "tpu")
STRATEGIES = {"full": "none", "late frozen": "up_to:stage3"}


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50", choices=models.list_models())
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=64)
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    rows = [
        {"platform": platform, "trained": name}
        | counts(args.model, args.image_size, args.batch_size, strategy, platform)
        for platform in PLATFORMS
        for name, strategy in STRATEGIES.items()
    ]
    found = {"model": args.model, "image_size": args.image_size, "batch_size": args.batch_size}
    recording.write({**found, "rows": rows})


def counts(
    name: str, image_size: int, batch_size: int, strategy: str, platform: str
) -> dict[str, int]:
    """Returns how many operations of each kind are in the step, and how many leaves of the state are donated."""
    with mock.patch("jax.default_backend", return_value="gpu"):  # no workaround for CPUs
        model = models.create_model(name, 10, dtype=jnp.bfloat16)
        variables = jax.eval_shape(
            lambda: models.init_variables(model, jax.random.key(0), (1, image_size, image_size, 3))
        )
        variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
        spec = preprocessing.Preprocessing(image_size)
        step, state = make_train_step(model, variables, spec, strategy)
        batch = {
            "image": jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
            "position": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }
        traced = jax.jit(step, donate_argnums=0).trace(state, batch)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
    activations = rf"tensor<{batch_size}x\d+x\d+x\d+x"
    return {
        "reduces": len(re.findall(r"stablehlo\.reduce\b", text)),
        "sums over activations": len(
            re.findall(rf"stablehlo\.reduce\(.*dimensions = \[0, 1, 2\] : \({activations}", text)
        ),
        "scatters": len(re.findall(r'"stablehlo\.(?:select_and_)?scatter"', text)),
        "gathers": text.count('"stablehlo.gather"'),
        "conversions of activations": len(
            re.findall(
                rf"stablehlo\.convert [^:]*: \({activations}(?:bf16>\) -> {activations}f32|f32>\) -> "
                rf"{activations}bf16)",
                text,
            )
        ),
        "donated leaves": text.count("tf.aliasing_output"),
        "leaves": len(jax.tree.leaves(state)),
    }


if __name__ == "__main__":
    main()
