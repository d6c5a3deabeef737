"""Validation chooses, test is read once and last, and what is reported as test was measured on test."""

import itertools

import numpy as np
import pytest
from small import CACHED, QUIET, config_with

from tl_jax.runs import evaluate, training
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
