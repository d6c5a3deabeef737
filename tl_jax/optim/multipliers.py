"""Learning-rate multipliers per leaf: by pattern and by depth."""

from collections.abc import Sequence
from typing import Any

from tl_jax import freezing, trees
from tl_jax.errors import InputError
from tl_jax.models.network import OBJECTIVE
from tl_jax.optim._checks import Problems, is_number


def lr_multipliers(
    params: trees.Tree,
    patterns: Sequence[str] = (),
    layerwise_decay: float = 1.0,
    *,
    boundaries: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Returns the tree of floats by which each leaf's learning rate is multiplied.

    Args:
        params: nested dict of arrays.
        patterns: strings such as `stage[12]/.*=0.1`: a regular expression matched in full against
            leaf names, and a positive number after the last `=`. In order, the first match of a
            leaf wins; a leaf without a match gets 1.
        layerwise_decay: within (0, 1]. The head keeps 1, the group before it gets it once, the one before
            that twice, and so on down to the input; multiplied with the number from `patterns`. Parameters of
            objectives keep 1, as the head does.
        boundaries: of the network, from input to head; needed where `layerwise_decay` is not 1.

    Raises:
        InputError: listing every pattern that is malformed, matches nothing, or comes too late to
            have an effect; or if `layerwise_decay` is out of range.

    Source: layer-wise decay, Clark et al. 2020 (ELECTRA, arXiv:2003.10555), appendix A; per group
    of the network here, not per layer.
    """
    problems = Problems()
    problems.need(
        is_number(layerwise_decay) and 0 < layerwise_decay <= 1,
        "layerwise_decay",
        layerwise_decay,
        "a number in (0, 1]",
    )
    problems.raise_any()
    names = list(trees.flatten(params))
    numbers = dict.fromkeys(names, 1.0) | trees.numbers(
        patterns, names, "learning-rate multiplier", "to hold leaves still, freeze them"
    )
    if layerwise_decay == 1:
        return trees.unflatten(numbers)
    if boundaries is None:
        raise InputError("layerwise_decay needs the boundaries of the network, in order")
    order = [group for group in freezing.groups(params, boundaries) if group != OBJECTIVE]
    depths = {group: len(order) - 1 - index for index, group in enumerate(order)} | {OBJECTIVE: 0}
    return trees.unflatten(
        {name: numbers[name] * layerwise_decay ** depths[name.split("/", 1)[0]] for name in names}
    )
