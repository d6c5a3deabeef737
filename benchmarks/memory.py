"""Temporary memory and FLOP of a full training step under each `model.remat`, of the compiled program.

    python -m benchmarks.memory [--out=FILE]

Both are what XLA says of the compiled program: counted, not timed.
"""

import argparse
import sys

import jax
import jax.numpy as jnp

from benchmarks import flops, record
from tl_jax import models
from tl_jax.augment import preprocessing

# name: (model, stem, image size, batch size)
NETWORKS = {
    "ResNet-20, 32 px": ("resnet20_cifar", None, 32, 128),
    'ResNet-18 `stem="cifar"`, 32 px': ("resnet18", "cifar", 32, 128),
    "ResNet-50, 224 px": ("resnet50", None, 224, 8),
}
REMATS = ("", "dots", "blocks")


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_arguments(parser)
    recording = record.Recording(parser, parser.parse_args())
    rows = []
    for network, case in NETWORKS.items():
        for remat in REMATS:
            print(f"{network}, remat={remat!r} ...", file=sys.stderr, flush=True)
            rows.append({"network": network, "remat": remat, **measure(*case, remat)})
    recording.write({"rows": rows})


def measure(model_name: str, stem: str | None, size: int, batch_size: int, remat: str) -> dict:
    """Returns the temporary bytes and the FLOP of the compiled step."""
    model = models.create_model(model_name, 10, stem=stem, remat=remat)
    variables = models.init_variables(model, jax.random.key(0), (1, size, size, 3))
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        "position": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }
    spec = preprocessing.Preprocessing(size)
    step, state = flops.make_train_step(model, variables, spec, "none")
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    return {
        "batch_size": batch_size,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "flops": compiled.cost_analysis()["flops"],
    }


if __name__ == "__main__":
    main()
