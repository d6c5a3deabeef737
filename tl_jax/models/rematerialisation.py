"""Memory against time: what a block's backward pass computes again instead of keeping it."""

import contextlib

import jax
from flax import linen as nn
from jax.experimental.xla_metadata import set_xla_metadata

from tl_jax.models import batch_norm, convolution, cpu

# From keeping everything to keeping least.
REMATS = ("", "dots", "blocks")

# The place of `train`, a Python bool, among the arguments of a block's `__call__`, `self` being 0.
_STATIC = (2,)


def rematerialised(block: type[nn.Module], remat: str) -> type[nn.Module]:
    """Returns the block's class, made to keep less for the backward pass; names and numbers stay.

    Args:
        block: whose `__call__` takes `(x, train)`; to be called within `kept_apart`.
        remat: "" keeps all activations; "dots" keeps the outputs of convolutions and the statistics of
            BatchNorm, and computes normalisation and ReLU again, which costs memory traffic and few FLOPs;
            "blocks" keeps only the block's input, at the price of a second forward pass.

    Source: Chen et al. 2016 (arXiv 1604.06174); `jax.checkpoint`.
    """
    if not remat:
        return block
    kept = {
        "dots": jax.checkpoint_policies.save_only_these_names(
            convolution.OUTPUT_NAME, batch_norm.STATISTICS_NAME
        ),
        "blocks": jax.checkpoint_policies.nothing_saveable,
    }
    lean = nn.remat(block, policy=kept[remat], static_argnums=_STATIC)
    return nn.jit(lean, static_argnums=_STATIC) if _needs_calls(remat) else lean


def kept_apart(remat: str) -> contextlib.AbstractContextManager:
    """Returns the context in which rematerialised blocks are called.

    XLA's CPU compiler (jaxlib 0.10.2) drops the barriers that `jax.checkpoint` puts around what is
    computed again, finds it equal to what was computed before, and keeps that after all. There, each
    block's backward pass is a call that is not inlined.
    """
    if _needs_calls(remat):
        return set_xla_metadata(inlineable="false")
    return contextlib.nullcontext()


def _needs_calls(remat: str) -> bool:
    return bool(remat) and cpu.in_use()
