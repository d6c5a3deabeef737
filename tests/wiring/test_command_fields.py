"""For every field that one command alone reads: what changes in that command when the field changes.

A field that is not passed on changes nothing, and its test fails. Nothing is trained: what a command would
train with is recorded where it passes it on.
"""

import json
import types

import jax
import numpy as np
import pytest
from parts import nothing_compiled
from small import CACHED, QUIET, config_with

from tl_jax import ablation, advice, files
from tl_jax.ablation.cells import expand
from tl_jax.advice import evidence
from tl_jax.config import COMMAND_SECTIONS, of_command
from tl_jax.config import FIELDS as CONFIG_FIELDS
from tl_jax.runs import cross_validate, image_features, probe, routes, sweep, training
from tl_jax.runs import features as feature_files
from tl_jax.training import classic, logistic, vmapped

pytestmark = pytest.mark.usefixtures("small_networks")

METHODS = {"probe": ("freeze.strategy=backbone",), "tuned": ()}
# Field: (its value before, the changed value, what must change).
FIELDS = {
    "compare.seeds": ((0, 1), (0, 2), "cells"),
    "compare.baseline": ("probe", "tuned", "order"),
    "compare.methods": (METHODS, METHODS | {"tuned": ("optim.momentum=0.5",)}, "cells"),
    "compare.metrics": ((), ("macro_f1",), "columns"),
    "sweep.learning_rate": ((0.1, 0.2), (0.1, 0.3), "values"),
    "sweep.weight_decay": ((0.0, 0.1), (0.0, 0.2), "values"),
    "sweep.label_smoothing": ((0.0, 0.1), (0.0, 0.2), "values"),
    "sweep.l2_sp": ((0.0, 0.1), (0.0, 0.2), "values"),
    "sweep.seed": ((3,), (4,), "seeds"),
    "sweep.patience": (0, 2, "patience"),
    "sweep.width": (1, 2, "width"),
    "sweep.test": ("chosen", "all", "tested"),
    "probe.least": (1e-3, 1e-2, "strengths"),
    "probe.most": (1e3, 1e2, "strengths"),
    "probe.count": (5, 4, "strengths"),
    "probe.max_evaluations": (9, 10, "evaluations"),
    "probe.tolerance": (1e-3, 1e-2, "tolerance"),
    "features.boundary": ("stage1", "stem", "boundary"),
    "features.pool": ("mean", "flatten", "pool"),
    "features.format": ("npz", "tfds", "format"),
    "routes.methods": (("lda", "knn"), ("lda", "logistic"), "methods"),
    "routes.pca": ((0.0, 0.9), (0.0, 3.0), "pca"),
    "routes.whiten": (False, True, "whiten"),
    "routes.lda_shrinkage": ((0.0, 0.1), (0.2,), "lda_shrinkage"),
    "routes.logistic_c": ((0.1, 1.0), (2.0,), "logistic_c"),
    "routes.linear_svm_c": ((0.1, 1.0), (2.0,), "linear_svm_c"),
    "routes.rbf_svm_c": ((0.1, 1.0), (2.0,), "rbf_svm_c"),
    "routes.rbf_svm_gamma": ((0.1, 1.0), (2.0,), "rbf_svm_gamma"),
    "routes.knn_neighbors": ((1, 3), (2,), "knn_neighbors"),
    "routes.folds": (2, 3, "folds"),
    "routes.search_examples": (0, 20, "examples"),
    "routes.max_iterations": (100, 50, "max_iterations"),
    "routes.jobs": (1, 2, "jobs"),
    "routes.finetuned": ("", "runs/other", "beside"),
    "routes.scatter": (20, 30, "scatter"),
    "cross_validate.folds": (3, 2, "cells"),
    "advise.examples": (30, 20, "examples"),
    "advise.folds": (2, 3, "folds"),
}
# Every field at its value before, so that one change is the only one.
BEFORE = {name: before for name, (before, _, _) in FIELDS.items()}


def test_every_field_of_a_command_is_in_the_table():
    names = [name for name, field in CONFIG_FIELDS.items() if field.section in COMMAND_SECTIONS]
    assert sorted(FIELDS) == sorted(names)


def parts_of_compare(config, workdir, patch):
    """Returns the cells of the ablation: each with its config, in which order, and more columns."""
    made = ablation.spec_of(config)
    cells = {f"{cell.variant} {cell.seed}": of_command(cell.config) for cell in expand(made)}
    order = [made.reference, *made.variants]
    return {
        "cells": files.plain(dict(sorted(cells.items()))),
        "order": order,
        "columns": made.further_metrics,
    }


def parts_of_sweep(config, workdir, patch):
    """Returns what the members train with, and how many of them are measured on test."""
    seen = {}

    def recorded(make_step, eval_step, states, values, data, schedule, **_):
        shape = len(states), len(next(iter(values.values())))
        seen["values"] = {name: np.asarray(given).tolist() for name, given in values.items()}
        seen["seeds"] = [int(state.seed) for state in states]
        seen["patience"], seen["width"] = schedule.patience, schedule.width
        params, batch_stats = (
            jax.tree.map(lambda leaf: np.broadcast_to(leaf, (*shape, *leaf.shape)), tree)
            for tree in (states[0].params, states[0].batch_stats)
        )
        history = np.zeros((1, *shape))
        return vmapped.Results(
            params=params,
            batch_stats=batch_stats,
            best_step=np.ones(shape, int),
            best_top1=np.zeros(shape),
            stopped_at=np.ones(shape, int),
            diverged=np.zeros(shape, bool),
            steps=np.ones(1, int),
            history=dict.fromkeys(("validation_top1", "validation_loss", "train_loss"), history),
        )

    patch.setattr(vmapped, "train", recorded)
    with nothing_compiled():
        sweep.run(config, workdir)
    members = json.loads((workdir / "sweep.json").read_text())["members"]
    return seen | {"tested": sum("test_top1" in member for member in members)}


def parts_of_probe(config, workdir, patch):
    """Returns what the regression over all strengths is asked for."""
    seen = {}

    def recorded(features, labels, classes, strengths, *, max_evaluations, tolerance, **_):
        asked = {"strengths": list(map(float, strengths)), "tolerance": tolerance}
        if not seen:
            seen.update(asked, evaluations=max_evaluations)
        # The one that is fitted again is stopped alike.
        assert (max_evaluations, tolerance) == (seen["evaluations"], seen["tolerance"])
        count = len(strengths)
        numbers = np.zeros(count)
        return logistic.Solution(
            kernel=np.zeros((count, features.shape[-1], classes), np.float32),
            bias=np.zeros((count, classes), np.float32),
            objective=numbers,
            gradient=numbers,
            evaluations=numbers.astype(int),
            converged=numbers == 0,
        )

    patch.setattr(logistic, "fit", recorded)
    with nothing_compiled():
        probe.run(config, workdir)
    return seen


def parts_of_features(config, workdir, patch):
    """Returns which features are taken, how maps become vectors, and what is written."""
    seen = {}

    def recorded_vectors(features, pool):
        seen["pool"] = pool
        return np.zeros((len(features), 4), np.float32)

    def recorded_save(folder, splits, kind):
        seen["format"] = kind
        return dict.fromkeys(splits, "somewhere")

    patch.setattr(image_features, "as_vectors", recorded_vectors)
    patch.setattr(feature_files.saving, "save", recorded_save)
    with nothing_compiled():
        return seen | {"boundary": feature_files.run(config, workdir)["boundary"]}


def parts_of_routes(config, workdir, patch):
    """Returns which routes are searched, over what and how, and what is shown beside them."""
    seen = {"methods": []}

    def recorded(method, features, labels, grid, search):
        seen["methods"].append(method)
        seen.update(vars(grid) | vars(search))
        return types.SimpleNamespace(
            method=method,
            chosen={"pca": 0.0},
            components=None,
            accuracy=0.5,
            accuracy_std=0.1,
            examples=len(labels),
            search_seconds=1.0,
            fit_seconds=1.0,
            converged=True,
            not_converged=0,
            settings=[{"accuracy": 0.5}],
            predict=lambda rows: np.zeros(len(rows), np.int64),
        )

    def a_run(folder):
        workdir.parent.joinpath("other").mkdir()
        found = types.SimpleNamespace(
            workdir=workdir.parent / "other",
            config=config,
            class_names=tuple(map(str, range(10))),
            result={"wall_seconds": 1.0},
        )
        test = image_features.setup_of(config).splits["test"].labels
        np.savez(found.workdir / "predictions.npz", labels=test, probabilities=np.eye(10)[test])
        return found

    def recorded_scatter(folder, train, test, most):
        seen["scatter"] = most

    patch.setattr(classic, "find", recorded)
    patch.setattr(routes, "load_run", a_run)
    patch.setattr(routes.scatter, "save", recorded_scatter)
    with nothing_compiled():
        result = routes.run(config, workdir)
    return seen | {"beside": result["finetuned"] and result["finetuned"]["top1_accuracy"]}


def parts_of_cross_validate(config, workdir, patch):
    """Returns the runs that a cross-validation makes: each folder with its config."""
    cells = {}

    def recorded(cell, folder, *_, **__):
        cells[folder.name] = files.plain(of_command(cell))
        measured = {"top1_accuracy": 0.5, "examples": 2, "loss": 1.0}
        return {
            "splits": {"test": measured},
            "class_names": list(map(str, range(10))),
            "train_examples": 2,
            "selected_step": 1,
            "steps": 1,
            "wall_seconds": 1.0,
        }

    patch.setattr(training, "run", recorded)
    patch.setattr(cross_validate, "pooled", lambda runs, labels, folds, k: np.eye(k)[labels])
    cross_validate.run(config, workdir)
    return {"cells": cells}


def parts_of_advise(config, workdir, patch):
    """Returns which images are looked at, and how many folds judge them."""
    seen, prepare, folds = {}, evidence.prepare, evidence.judging.folds
    config.init.weights = "asked for"

    def without_weights(plain):
        plain.init.weights = ""
        return prepare(plain)

    def recorded(labels, count, seed):
        seen.update(examples=len(labels), folds=count)
        return folds(labels, count, seed)

    patch.setattr(evidence, "prepare", without_weights)
    patch.setattr(evidence.judging, "folds", recorded)
    patch.setattr(evidence, "_features", lambda *_: ({}, 1.0))
    patch.setattr(evidence, "_judged", lambda *_: ())
    patch.setattr(evidence, "_shift", lambda *_: None)
    advice.gather(config)
    return seen


PARTS_OF = {
    "compare": parts_of_compare,
    "sweep": parts_of_sweep,
    "probe": parts_of_probe,
    "features": parts_of_features,
    "routes": parts_of_routes,
    "cross_validate": parts_of_cross_validate,
    "advise": parts_of_advise,
}


@pytest.fixture(scope="module")
def parts(small_networks, tmp_path_factory):
    """Returns what gives the parts of a command with some of its fields changed."""
    found = {}

    def parts_with(section, changes):
        key = json.dumps([section, changes])
        if key not in found:
            config = config_with(CACHED | QUIET)
            with config.unlocked():
                for name, value in (BEFORE | changes).items():
                    config[name.split(".")[0]][name.split(".")[1]] = value
            with pytest.MonkeyPatch.context() as patch:
                folder = tmp_path_factory.mktemp(section) / "run"
                found[key] = PARTS_OF[section](config, folder, patch)
        return found[key]

    return parts_with


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_a_command_changes_what_it_says_and_nothing_else(parts, name):
    section, (_, value, expected) = name.split(".")[0], FIELDS[name]
    before, after = parts(section, {}), parts(section, {name: value})
    assert before.keys() == after.keys()
    changed = [part for part in before if before[part] != after[part]]
    assert changed == [expected]
