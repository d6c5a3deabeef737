"""Precision and determinism of a run: how its programs are compiled, and what is not deterministic there."""

from typing import Any

import jax
import ml_collections

from tl_jax import compilation
from tl_jax.config import naming_fields
from tl_jax.errors import InputError

# {platform: {what XLA computes there in no fixed order: what it comes from, and what to use}}.
# Source: openxla/xla pull request 15229 (determinism.md), google/flax issue 4233.
_NOT_DETERMINISTIC = {
    "gpu": {
        "stablehlo.select_and_scatter": "the gradient of a max-pool (flax.linen.max_pool, "
        "jax.lax.reduce_window); tl_jax.models.pooling.max_pool has another one",
    }
}


def make_compilation(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> compilation.Compilation:
    """Returns how the programs of a run are compiled on the devices of `mesh`.

    Raises:
        InputError: if the run is to be deterministic, and the compiler takes no option for it.
    """
    with naming_fields(config, "train.deterministic"):
        return compilation.make(
            platform_of(mesh), config.model.precision, config.train.deterministic
        )


def platform_of(mesh: jax.sharding.Mesh) -> str:
    """Returns the platform of the devices, such as "cpu" or "gpu"."""
    return mesh.devices.flat[0].platform


def check_deterministic(config: ml_collections.ConfigDict, lowered: Any, platform: str) -> None:
    """Refuses a step that is known not to be deterministic, where `train.deterministic` asks for it.

    Args:
        config: of the run.
        lowered: the step, as `jit` or `pmap` lowers it.
        platform: of the devices.

    Raises:
        InputError: naming the operation, and what it comes from.
    """
    known = _NOT_DETERMINISTIC.get(platform, {})
    if not (config.train.deterministic and known):
        return
    text = lowered.as_text()
    for operation, origin in known.items():
        if operation in text:
            raise InputError(
                f"train.deterministic=True: the training step has {operation.partition('.')[2]}, which has no "
                f"deterministic kernel on a {platform.upper()}: {origin}; expected another network, or "
                "train.deterministic=False"
            )
