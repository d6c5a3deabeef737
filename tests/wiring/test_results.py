"""Validation chooses, test is read once and last, and what is reported as test was measured on test."""

import itertools

import numpy as np
import pytest
from small import CACHED, QUIET, config_with

from tl_jax.runs import compare, evaluate, training
from tl_jax.training.evaluator import Evaluator

TEST_EXAMPLES = 500
# The first evaluation is the best one: its step is reported, not the last.
VALIDATION_TOP1 = (0.2, 0.9, 0.4, 0.3)


def digest(params):
    return np.asarray(params["head"]["kernel"]).tobytes()


@pytest.fixture(scope="module")
def finished(small_networks, tmp_path_factory):
    """Returns a run whose validation accuracies are given, and what was evaluated, in order."""
    evaluated, script = [], itertools.chain(VALIDATION_TOP1, itertools.repeat(0.123))
    call = Evaluator.__call__

    def scripted(self, params, batch_stats, split):
        measured, logits = call(self, params, batch_stats, split)
        evaluated.append((len(split), digest(params)))
        if len(split) != TEST_EXAMPLES:
            measured = {**measured, "top1_accuracy": next(script)}
        return measured, logits

    config = config_with(
        CACHED | QUIET | {"cache.boundary": "", "train.steps": 8, "train.eval_every_steps": 2}
    )
    folder = tmp_path_factory.mktemp("results") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "__call__", scripted)
        result = training.run(config, folder)
        during = list(evaluated)
        evaluated.clear()
        again = evaluate.evaluate_run(folder, None, folder.with_name("again"))
    return result, during, again, list(evaluated)


def test_the_best_step_on_validation_is_reported(finished):
    result, evaluated, _, _ = finished
    validation = result["splits"]["validation"]["examples"]
    assert validation == 130 and result["splits"]["test"]["examples"] == TEST_EXAMPLES
    *during, (first, first_head), (last, last_head) = evaluated
    # Four evaluations on what was held out; then the chosen state on it, and on test.
    assert [count for count, _ in during] == [validation] * 4
    assert (first, last) == (validation, TEST_EXAMPLES)
    heads = [head for _, head in during]
    assert len(set(heads)) == 4
    assert first_head == last_head == heads[1]
    assert result["selected_step"] == 4
    assert result["splits"]["validation"]["top1_accuracy"] == 0.123
    assert result["splits"]["test"]["top1_accuracy"] != 0.123


def test_evaluating_a_run_again_takes_the_step_that_it_reported(finished):
    result, during, again, evaluated = finished
    assert evaluated == [during[-1]]
    given, wanted = again["splits"]["test"], result["splits"]["test"]
    assert given["top1_accuracy"] == wanted["top1_accuracy"]
    assert "best" in again["selection"]


def test_a_comparison_tells_what_was_measured_on_test(monkeypatch, tmp_path):
    config = config_with({})
    config.compare.seeds, config.compare.baseline = (3, 5), "one"
    config.compare.methods = {"one": (), "two": ("optim.learning_rate=0.2",)}
    cells = []

    def run(cell, folder, *_, **__):
        cells.append((cell.seed, cell.data.seed, cell.optim.learning_rate))
        top1 = 0.5 + len(cells) / 100
        return {
            "splits": {
                "validation": {"top1_accuracy": 0.9, "examples": 7, "macro_f1": 0.7},
                "test": {"top1_accuracy": top1, "examples": 11, "macro_f1": 0.6},
            },
            "parameters": [{"trainable": 2}, {"trainable": 3}],
            "wall_seconds": 1.5,
            "steps": 4,
        }

    monkeypatch.setattr(training, "run", run)
    rows = compare.run_cells(config, tmp_path)
    # Of a seed, all methods see the same examples.
    assert cells == [(3, 3, 0.1), (3, 3, 0.2), (5, 5, 0.1), (5, 5, 0.2)]
    assert [row["top1_accuracy"] for row in rows] == [0.51, 0.52, 0.53, 0.54]
    assert {(row["validation_macro_f1"], row["macro_f1"]) for row in rows} == {(0.7, 0.6)}
    assert {row["trainable_parameters"] for row in rows} == {5}
