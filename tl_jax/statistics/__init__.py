"""Intervals and tests of accuracies: over seeds, in pairs, and over the images of a split; how far runs agree."""

from tl_jax.statistics.agreement import agreement, cohens_kappa
from tl_jax.statistics.images import bootstrap_difference, discordant, mcnemar
from tl_jax.statistics.intervals import (
    LEVEL,
    Mean,
    PairedDifference,
    mean_over_seeds,
    paired_difference,
    wilson_interval,
)
from tl_jax.statistics.paired import holm, paired_t_test, sign_flip_test
from tl_jax.statistics.power import power_of_pairs, seeds_needed

__all__ = [
    "LEVEL",
    "Mean",
    "PairedDifference",
    "agreement",
    "bootstrap_difference",
    "cohens_kappa",
    "discordant",
    "holm",
    "mcnemar",
    "mean_over_seeds",
    "paired_difference",
    "paired_t_test",
    "power_of_pairs",
    "seeds_needed",
    "sign_flip_test",
    "wilson_interval",
]
