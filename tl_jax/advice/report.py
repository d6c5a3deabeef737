"""Advice as a command gives it: sentences on the terminal, a page and a file."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections

from tl_jax import console, files
from tl_jax.advice.evidence import Evidence, Judged, gather
from tl_jax.advice.findings import load_findings
from tl_jax.advice.sentences import QUESTIONS, Sentence, say
from tl_jax.config import check
from tl_jax.reporting import pages, tables
from tl_jax.runs import run_folder

PAGE, FACTS = "advice.html", "advice.json"


def advise(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Returns what `advice.json` holds: the sentences, the evidence behind them.

    Args:
        config: of a run with pretrained weights.
        workdir: where the page and the file are written; None: nowhere.
        stop_requested: whether to stop; asked between batches.

    Raises:
        InputError: if config, data, weights or folder do not fit.
        loops.Stopped: when asked to.
    """
    check(config)
    if workdir is not None:
        run_folder.check_replaceable(workdir, FACTS)
    evidence = gather(config, stop_requested)
    sentences = say(evidence, load_findings())
    content = {
        "sentences": [dataclasses.asdict(sentence) for sentence in sentences],
        "evidence": _facts(evidence),
        **run_folder.environment_facts(),
    }
    tables.print_table("Features by boundary", _shown(evidence), level="normal")
    for question, heading in QUESTIONS.items():
        console.say(f"\n{heading}")
        for sentence in sentences:
            if sentence.question == question:
                console.say(f"  {sentence.text}")
    if workdir is not None:
        workdir.mkdir(parents=True, exist_ok=True)
        files.write(workdir / FACTS, files.to_json(files.plain(content)))
        files.write(workdir / PAGE, _page(evidence, sentences))
        console.say(f"\n{workdir / PAGE}")
    return content


def _facts(evidence: Evidence) -> dict[str, Any]:
    fields = {
        field.name: getattr(evidence, field.name)
        for field in dataclasses.fields(evidence)
        if field.name not in ("pretrained", "random")
    }
    return {**fields, "boundaries": _rows(evidence)}


def _rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Returns a row for each boundary: accuracies of the weights and of random ones."""
    random = {one.boundary: one for one in evidence.random}
    return [
        {
            "boundary": one.boundary,
            "features": one.features,
            **_accuracies("", one),
            **_accuracies("random_", random.get(one.boundary)),
        }
        for one in evidence.pretrained
    ]


def _shown(evidence: Evidence) -> list[dict[str, Any]]:
    """Returns the rows with accuracies in percent."""
    return [
        {
            name: f"{100 * value:.1f}%" if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in _rows(evidence)
    ]


def _accuracies(prefix: str, judged: Judged | None) -> dict[str, float | None]:
    return {
        f"{prefix}logistic_accuracy": None if judged is None else float(judged.logistic.mean()),
        f"{prefix}neighbors_accuracy": None if judged is None else float(judged.neighbors.mean()),
    }


def _page(evidence: Evidence, sentences: tuple[Sentence, ...]) -> str:
    return pages.render(
        "advice.html",
        title=f"{evidence.network} on {evidence.data}",
        evidence=evidence,
        questions=[
            (heading, [one.text for one in sentences if one.question == question])
            for question, heading in QUESTIONS.items()
        ],
        rows=_shown(evidence),
    )
