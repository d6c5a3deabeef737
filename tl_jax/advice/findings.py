"""What the shipped ablations found, as advice looks it up; `python -m benchmarks.findings` takes it from results."""

import dataclasses
import importlib.resources
import json
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a variant reached on the test split of a data set.

    Attributes:
        spec: the ablation, such as "cifar10_strategies".
        data: the name of the data set.
        network: the name of the network.
        shots: labelled images per class.
        variant: its name; of the specs of strategies, the strategy's with "_" for ":".
        seeds: how many runs.
        accuracy: their mean, from 0 to 1.
        reference: the variant that it is compared with.
        difference: the mean paired difference to it; None of the reference itself.
        interval: of the difference, 95%; None as above.
        seconds: a run took, on the machine of the results.
        freeze: its `freeze.strategy`; "" where it has phases, which have their own.
    """

    spec: str
    data: str
    network: str
    shots: int
    variant: str
    seeds: int
    accuracy: float
    reference: str
    difference: float | None
    interval: tuple[float, float] | None
    seconds: float | None
    freeze: str


def load_findings() -> tuple[Finding, ...]:
    """Returns all findings that come with the package."""
    text = importlib.resources.files("tl_jax.advice").joinpath("findings.json").read_text("utf-8")
    return tuple(
        Finding(**{**row, "interval": None if row["interval"] is None else tuple(row["interval"])})
        for row in json.loads(text)
    )


def nearest(findings: Sequence[Finding], labels: int) -> tuple[Finding, ...]:
    """Returns, of each spec, the findings at the number of labels per class nearest to `labels`, by their ratio.

    Args:
        findings: of one or more specs.
        labels: per class, 1 or more.
    """
    chosen: list[Finding] = []
    for spec in dict.fromkeys(finding.spec for finding in findings):
        of = [finding for finding in findings if finding.spec == spec]
        best = min(
            {finding.shots for finding in of if finding.shots},
            key=lambda shots: (max(shots / labels, labels / shots), shots),
            default=None,
        )
        chosen += [finding for finding in of if finding.shots == best]
    return tuple(chosen)
