"""From evidence to advice: sentences, each with the number behind it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_jax import statistics
from tl_jax.advice.evidence import Evidence, Judged
from tl_jax.advice.findings import Finding, nearest

TRANSFER, DEPTH, STRATEGY, COST = "transfer", "depth", "strategy", "cost"
QUESTIONS = {
    TRANSFER: "Does transfer pay here?",
    DEPTH: "How deep to freeze?",
    STRATEGY: "Which strategy first?",
    COST: "What will it cost?",
}
# An update takes the network forward once and backward, which is about twice as much.
_PASSES_OF_UPDATE = 3


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A piece of advice.

    Attributes:
        question: of `QUESTIONS`.
        text: what it says, with its numbers.
        verdict: what a program may act on, such as "yes", "freeze.strategy=backbone" or the name of a strategy; ""
            where it only informs.
        numbers: those of the text, by name.
    """

    question: str
    text: str
    verdict: str = ""
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)


def say(evidence: Evidence, findings: Sequence[Finding]) -> tuple[Sentence, ...]:
    """Returns the advice, question by question.

    Args:
        evidence: of the data and weights.
        findings: of the shipped ablations.
    """
    near = nearest(findings, evidence.labels_per_class)
    return (
        *_of_transfer(evidence),
        *_of_depth(evidence, near),
        *_of_strategy(near),
        *_of_cost(evidence),
    )


def best(judged: Sequence[Judged]) -> Judged:
    """Returns the boundary whose features logistic regression does best with, the last of equals."""
    return max(reversed(judged), key=lambda one: one.logistic.mean())


def _of_transfer(evidence: Evidence) -> list[Sentence]:
    ours, control = best(evidence.pretrained), best(evidence.random)
    difference, interval = statistics.bootstrap_difference(ours.logistic, control.logistic)
    verdict = "yes" if interval[0] > 0 else "no" if interval[1] < 0 else "unclear"
    opening = {
        "yes": "Yes: features of the weights tell the classes apart better than random ones",
        "no": "No: features of the weights tell the classes apart worse than random ones",
        "unclear": "No difference is seen between features of the weights and random ones",
    }[verdict]
    numbers: dict[str, Any] = {
        "pretrained": float(ours.logistic.mean()),
        "random": float(control.logistic.mean()),
        "difference": difference,
        "interval": interval,
    }
    sentences = [
        Sentence(
            TRANSFER,
            f"{opening}: logistic regression has {_percent(numbers['pretrained'])} after {ours.boundary}, and "
            f"{_percent(numbers['random'])} on the best of a random network ({_points(difference, interval)}; "
            f"{evidence.images:,} images, each judged by the others; chance {_percent(1 / evidence.classes)}).",
            verdict,
            numbers,
        )
    ]
    neighbors = [float(best(of).neighbors.mean()) for of in (evidence.pretrained, evidence.random)]
    sentences.append(
        Sentence(
            TRANSFER,
            f"Five nearest neighbours have {_percent(neighbors[0])} and {_percent(neighbors[1])}.",
            numbers={"pretrained": neighbors[0], "random": neighbors[1]},
        )
    )
    if evidence.shift is not None:
        sentences.append(
            Sentence(
                TRANSFER,
                f"What these images make of a channel of BatchNorm is {evidence.shift:.2f} standard deviations away "
                "from what the weights have seen (0: the same).",
                numbers={"shift": evidence.shift},
            )
        )
    return sentences


def _of_depth(evidence: Evidence, near: Sequence[Finding]) -> list[Sentence]:
    depths = [finding for finding in near if finding.spec.endswith("_depth")]
    found = [
        _found(DEPTH, [finding for finding in depths if finding.spec == spec])
        for spec in dict.fromkeys(finding.spec for finding in depths)
    ]
    return [_of_features(evidence, _deeper(evidence, depths)), *found]


def _deeper(evidence: Evidence, depths: Sequence[Finding]) -> Finding | None:
    """Returns what an ablation of depths of the same network found better than the head alone, the best of it."""
    better = [
        finding
        for finding in depths
        if finding.network == evidence.network
        and finding.freeze
        and finding.interval is not None
        and finding.interval[0] > 0
    ]
    return max(better, key=lambda finding: finding.accuracy, default=None)


def _of_features(evidence: Evidence, deeper: Finding | None) -> Sentence:
    """Returns where to freeze: where earlier features are better, there; else what trained deeper was better."""
    last, top = evidence.pretrained[-1], best(evidence.pretrained)
    compared = (
        f"no features are better than the last ones, after {last.boundary}, with "
        f"{_percent(last.logistic.mean())}"
    )
    numbers: dict[str, Any] = {"last": float(last.logistic.mean())}
    if top is not last:
        difference, interval = statistics.bootstrap_difference(top.logistic, last.logistic)
        numbers |= {
            "boundary": top.boundary,
            "best": float(top.logistic.mean()),
            "difference": difference,
            "interval": interval,
        }
        compared = (
            f"features after {top.boundary} have {_percent(numbers['best'])}, those before the head "
            f"{_percent(numbers['last'])} ({_points(difference, interval)})"
        )
        if interval[0] > 0:
            return Sentence(
                DEPTH,
                f"Freeze up to {top.boundary} and train what follows, which is the source's rather than yours: "
                f"{compared}.",
                f"freeze.strategy=up_to:{top.boundary}",
                numbers,
            )
        compared += ", no difference that is seen"
    if deeper is not None and deeper.interval is not None and deeper.difference is not None:
        return Sentence(
            DEPTH,
            f"Train more than the head, freeze.strategy={deeper.freeze}: {compared}, but with {deeper.shots} labels "
            f"per class {deeper.variant} was better than {deeper.reference} "
            f"({_points(deeper.difference, deeper.interval)}; {deeper.spec}).",
            f"freeze.strategy={deeper.freeze}",
            numbers | {"shots": deeper.shots, "deeper": deeper.difference},
        )
    return Sentence(
        DEPTH,
        f"Freeze all but the head to begin with: {compared}.",
        "freeze.strategy=backbone",
        numbers,
    )


def _of_strategy(near: Sequence[Finding]) -> list[Sentence]:
    """Returns what the ablations of strategies found: the best on average over data sets, then each of these."""
    of = [finding for finding in near if finding.spec.endswith("_strategies")]
    if not of:
        return [Sentence(STRATEGY, "No shipped ablation compares strategies yet.")]
    specs = list(dict.fromkeys(finding.spec for finding in of))
    differences: dict[str, list[float]] = {}
    for finding in of:
        differences.setdefault(finding.variant, []).append(finding.difference or 0.0)
    everywhere = {
        name: float(np.mean(values))
        for name, values in differences.items()
        if len(values) == len(specs)
    }
    first = max(everywhere, key=lambda name: everywhere[name])
    reference = of[0].reference
    sentences = [
        Sentence(
            STRATEGY,
            f"{first}: of {len(everywhere)} strategies it has the highest accuracy on average over "
            f"{' and '.join(specs)}, {100 * everywhere[first]:+.1f} points from {reference}.",
            first,
            {"strategy": first, "difference": everywhere[first]},
        )
    ]
    sentences += [
        _found(STRATEGY, [finding for finding in of if finding.spec == spec]) for spec in specs
    ]
    return sentences


def _found(question: str, findings: Sequence[Finding]) -> Sentence:
    """Returns what an ablation found at a number of labels: its best variant, compared with its reference."""
    top = max(findings, key=lambda finding: finding.accuracy)
    where = f"{top.network} on {top.data} with {top.shots} labels per class ({top.spec})"
    numbers = dataclasses.asdict(top)
    if top.difference is None or top.interval is None:
        return Sentence(
            question,
            f"Found for {where}: nothing was better than {top.variant}, {_percent(top.accuracy)} on test.",
            numbers=numbers,
        )
    seen = "" if top.interval[0] > 0 else ", no difference that is seen"
    return Sentence(
        question,
        f"Found for {where}: {top.variant} was best, {_percent(top.accuracy)} on test, "
        f"{_points(top.difference, top.interval)} from {top.reference}{seen}.",
        numbers=numbers,
    )


def _of_cost(evidence: Evidence) -> list[Sentence]:
    forward = evidence.train_images / evidence.images_per_second
    images = evidence.updates * evidence.batch_size
    whole = _PASSES_OF_UPDATE * images / evidence.images_per_second
    numbers = {
        "images_per_second": evidence.images_per_second,
        "features_seconds": forward,
        "updates_seconds": whole,
        "updates": evidence.updates,
        "batch_size": evidence.batch_size,
    }
    return [
        Sentence(
            COST,
            f"On this machine {evidence.images_per_second:,.0f} images pass through the network in a second: "
            f"features of all {evidence.train_images:,} training images, for a head that is solved, take about "
            f"{_seconds(forward)}; {evidence.updates:,} updates of {evidence.batch_size:,} images of the whole "
            f"network about {_seconds(whole)}, without compilation.",
            numbers=numbers,
        )
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(difference: float, interval: Sequence[float]) -> str:
    low, high = (100 * end for end in interval)
    return f"{100 * difference:+.1f} points, {low:+.1f} to {high:+.1f}"


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds >= 120 else f"{seconds:,.1f} s"
