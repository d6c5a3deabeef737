"""What a protocol is: its terms, what a run does of them, and the deviations between the two."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from tl_jax.errors import taken, unknown

TRIALS = "number of trials"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a run does, as far as protocols ask.

    Attributes:
        config: of the run, or of its last phase.
        phases: of the run: one, or as many as it has; each a config.
        steps: updates of the run, or of its last phase.
        preprocessing: mean, std, interpolation, image_size and resize of its input.
        native: the same of what its weights were trained with; None where that is unknown.
        train_examples: images that it trains on.
        validation_examples: images that it is selected by; 0 for none.
        trials: combinations of hyper-parameters among which this one was chosen, itself included.
    """

    config: ml_collections.ConfigDict
    phases: tuple[ml_collections.ConfigDict, ...]
    steps: int
    preprocessing: Mapping[str, Any]
    native: Mapping[str, Any] | None
    train_examples: int
    validation_examples: int
    trials: int = 1


@dataclasses.dataclass(frozen=True)
class Term:
    """A condition of a protocol.

    Attributes:
        name: what it is about, such as "resolution".
        expected: what the protocol says, in words.
        found: returns what a run does.
        holds: whether that is what the protocol says.
        assignments: of the fields that make a config meet it; () where no field can.
    """

    name: str
    expected: str
    found: Callable[[Facts], Any]
    holds: Callable[[Any], bool]
    assignments: tuple[str, ...] = ()

    def deviation(self, facts: Facts) -> dict[str, Any] | None:
        """Returns `term`, `expected` and `found`, texts, of a run that does otherwise; None of one that does not."""
        found = self.found(facts)
        if self.holds(found):
            return None
        return {"term": self.name, "expected": self.expected, "found": str(found)}


@dataclasses.dataclass(frozen=True)
class Claim:
    """A number of the source, which nobody has measured here.

    Attributes:
        what: was measured, such as "ResNet-50, fine-tuned".
        data: the data set.
        accuracy: top-1 on its test split, in percent.
        source: where the number stands.
    """

    what: str
    data: str
    accuracy: float
    source: str


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A published experiment.

    Attributes:
        name: by which `report.protocol` names it.
        summary: what is done, in a sentence.
        source: paper and section, or code.
        terms: that are compared with a run.
        claims: the numbers of the source.
        unchecked: what the source does besides, which is not compared or cannot be repeated; a sentence each.
    """

    name: str
    summary: str
    source: str
    terms: tuple[Term, ...]
    claims: tuple[Claim, ...] = ()
    unchecked: tuple[str, ...] = ()


_PROTOCOLS: dict[str, Protocol] = {}


def register(protocol: Protocol, *, replace: bool = False) -> None:
    """Makes a protocol available to configs as `report.protocol`.

    Args:
        protocol: to be named.
        replace: whether it takes the place of another one of that name.

    Raises:
        InputError: if the name is taken and `replace` is False.
    """
    if protocol.name in _PROTOCOLS and not replace:
        raise taken("protocol", protocol.name)
    _PROTOCOLS[protocol.name] = protocol


def list_protocols() -> list[str]:
    """Returns the names that `report.protocol` may have."""
    return list(_PROTOCOLS)


def get(name: str) -> Protocol:
    """Returns the protocol of a name.

    Raises:
        InputError: if there is none.
    """
    if name not in _PROTOCOLS:
        raise unknown("protocol", name, _PROTOCOLS)
    return _PROTOCOLS[name]


def assignments(name: str) -> tuple[str, ...]:
    """Returns the assignments that name a protocol and fill in those of its terms that fields can meet.

    Raises:
        InputError: if there is no such protocol.
    """
    filled = [text for term in get(name).terms for text in term.assignments]
    return (f"report.protocol={name}", *dict.fromkeys(filled))


def report(name: str, facts: Facts) -> dict[str, Any]:
    """Returns what `result.json` says of a run that names a protocol.

    Returns:
        `name`; `conforms`; `deviations`, each a dict of `term`, `expected` and `found`; `source`, `unchecked` and
        `claims` of the protocol.

    Raises:
        InputError: if there is no such protocol.
    """
    protocol = get(name)
    found = [term.deviation(facts) for term in protocol.terms]
    deviations = [deviation for deviation in found if deviation is not None]
    return {
        "name": name,
        "source": protocol.source,
        "conforms": not deviations,
        "deviations": deviations,
        "unchecked": list(protocol.unchecked),
        "claims": [dataclasses.asdict(claim) for claim in protocol.claims],
    }


def with_trials(reported: Mapping[str, Any], trials: int) -> dict[str, Any]:
    """Returns what `report` said of a single run, which is now known to be one of several trials.

    Args:
        reported: of one run.
        trials: combinations of hyper-parameters among which it was chosen.
    """
    terms = [term for term in get(reported["name"]).terms if term.name == TRIALS]
    kept = [found for found in reported["deviations"] if found["term"] != TRIALS]
    kept += [
        {"term": term.name, "expected": term.expected, "found": str(trials)}
        for term in terms
        if not term.holds(trials)
    ]
    return {**reported, "conforms": not kept, "deviations": kept}


def lines(reported: Mapping[str, Any] | None) -> list[str]:
    """Returns what `report` said, in words: a line that the run conforms, or one for each deviation; [] for None."""
    if reported is None:
        return []
    name = reported["name"]
    if reported["conforms"]:
        return [f"protocol {name}: conforms"]
    return [
        f"protocol {name}: {found['term']}: expected {found['expected']}, found {found['found']}"
        for found in reported["deviations"]
    ]


def page() -> str:
    """Returns all protocols in Markdown, a section each."""
    return "\n\n".join(_section(protocol) for protocol in _PROTOCOLS.values()) + "\n"


def _section(protocol: Protocol) -> str:
    terms = ["| term | expected |", "|---|---|"]
    terms += [f"| {term.name} | {term.expected} |" for term in protocol.terms]
    claims = [
        f"- {claim.what}, {claim.data}: {claim.accuracy:g}% ({claim.source})"
        for claim in protocol.claims
    ]
    paragraphs = [
        f"### {protocol.name}",
        f"{protocol.summary} {protocol.source}",
        "\n".join(terms),
        *(["\n".join(["Numbers of the source:", "", *claims])] if claims else []),
        *([f"Not compared: {' '.join(protocol.unchecked)}"] if protocol.unchecked else []),
    ]
    return "\n\n".join(paragraphs)
