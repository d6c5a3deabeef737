"""A probe chooses its strength on validation, fits again on train and validation, and reads test once."""

import numpy as np
import pytest
from small import CACHED, QUIET, config_with

from tl_jax.runs import probe
from tl_jax.training import logistic

pytestmark = pytest.mark.usefixtures("small_networks")


def test_what_the_regression_sees(monkeypatch, tmp_path):
    """Recorded at the solver: nothing of test, and in the end all of train and validation."""
    config = config_with(CACHED | QUIET | {"data.examples_per_class": 5})
    config.probe.update({"least": 0.01, "most": 100.0, "count": 5, "max_evaluations": 50})
    fit, top1_accuracy, choose = logistic.fit, logistic.top1_accuracy, logistic.choose
    fits, measured, chosen = [], [], []

    def recorded_fit(features, labels, classes, strengths, **options):
        solution = fit(features, labels, classes, strengths, **options)
        fits.append((np.asarray(features), np.asarray(labels), list(strengths), solution))
        return solution

    def recorded_accuracy(kernel, bias, features, labels):
        found = top1_accuracy(kernel, bias, features, labels)
        measured.append((np.asarray(features), np.asarray(labels), found))
        return found

    def recorded_choice(top1, strengths):
        chosen.append((np.asarray(top1), choose(top1, strengths)))
        return chosen[-1][1]

    monkeypatch.setattr(logistic, "fit", recorded_fit)
    monkeypatch.setattr(logistic, "top1_accuracy", recorded_accuracy)
    monkeypatch.setattr(logistic, "choose", recorded_choice)
    result = probe.run(config, tmp_path / "run")

    held_out = result["splits"]["validation"]["examples"]
    assert [len(labels) for _, labels, _, _ in fits] == [50, 50 + held_out]
    assert {len(labels) for _, labels, _ in measured} <= {50, held_out}
    (search, final) = fits
    validation, validation_labels, accuracy = next(
        entry for entry in measured if len(entry[1]) == held_out
    )
    ((judged, place),) = chosen
    np.testing.assert_array_equal(judged, accuracy)
    assert result["strength"] == search[2][place]
    assert final[2] == [search[2][place]]
    np.testing.assert_array_equal(final[0], np.concatenate([search[0], validation]))
    np.testing.assert_array_equal(final[1], np.concatenate([search[1], validation_labels]))
    # Read by the network with the final head.
    with np.load(tmp_path / "run" / "predictions.npz") as saved:
        right = saved["probabilities"].argmax(-1) == saved["labels"]
    assert result["splits"]["test"]["top1_accuracy"] == right.mean()
    assert result["splits"]["test"]["examples"] == len(right) == 500
