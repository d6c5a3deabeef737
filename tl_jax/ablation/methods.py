"""The ablation that a config asks for in `config.compare`: methods over seeds."""

import copy

import ml_collections

from tl_jax.ablation.cells import expand
from tl_jax.ablation.spec import Spec
from tl_jax.config import check, default_config
from tl_jax.errors import InputError, unknown


def spec_of(config: ml_collections.ConfigDict) -> Spec:
    """Returns the ablation whose variants are the methods of `config.compare`.

    Args:
        config: of the comparison, whose other fields are what methods change.

    Raises:
        InputError: if it names no methods or seeds, a method sets what does not exist, or a value is out of range.
    """
    check(config)
    section = config.compare
    baseline, methods = section.baseline, dict(section.methods)
    if not (methods and section.seeds):
        raise InputError("compare.methods and compare.seeds: expected at least one of each")
    if baseline not in methods:
        raise unknown("compare.baseline", baseline, methods)
    base = copy.deepcopy(config)
    base.compare = default_config().compare
    # A ConfigDict gives its names in alphabetical order; the baseline is what others are compared with.
    names = sorted(methods, key=lambda name: name != baseline)
    try:
        made = Spec(
            base,
            {name: methods[name] for name in names},
            section.seeds,
            baseline=baseline,
            further_metrics=section.metrics,
        )
        expand(made)
    except InputError as error:
        raise InputError(f"config.compare: {error}") from error
    return made
