"""The linear probe of the literature: logistic regression on the features of a frozen network.

Multinomial logistic regression by L-BFGS for every strength of a grid at once; the strength with the best
validation accuracy is fitted again on train and validation, and test is read once. Of the config it is the
model, weights and data that count; a section `probe` may set `least`, `most`, `count` (the grid),
`max_evaluations` and `tolerance`. Lengths, batch size, optimizer, flips and crops are not looked at.
"""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from tl_jax import console, reporting
from tl_jax.config import check, default_config, flat
from tl_jax.errors import InputError
from tl_jax.runs import activation_cache, image_features, results
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup, prepare
from tl_jax.runs.skeleton import facts_of, in_folder, introduce
from tl_jax.training import logistic, metrics

# Besides those of `objective`, the fields that a probe has no use for and that somebody may count on.
_WITHOUT_EFFECT = (
    "solver.name",
    "solver.strengths",
    "average.name",
    "train.select_by",
    "data.order",
    "augment.repeats",
)


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Probes as `config` says, in `workdir`; returns `result.json`.

    Args:
        config: of the probe.
        workdir: the run folder.
        stop_requested: whether to stop; asked while features are computed.

    Raises:
        InputError: before anything is compiled, if config, workdir, data or weights do not fit.
    """
    began = time.perf_counter()
    check(config)
    _check_objective(config)
    strengths = _strengths(config.probe)

    def prepared() -> Setup:
        setup = prepare(_run_config(config))
        _check(setup)
        return setup

    return in_folder(
        config,
        workdir,
        "probe",
        prepare=prepared,
        introduce=functools.partial(introduce, solver=f"L-BFGS, {len(strengths)} L2 strengths"),
        make=lambda setup, folder, parameters: _probe(
            activation_cache.use(setup, stop_requested), folder, strengths, parameters, began
        ),
    )


def _check_objective(config: ml_collections.ConfigDict) -> None:
    """Raises InputError where the config asks for more than the cross-entropy with L2 that L-BFGS minimises."""
    fields, defaults = flat(config), flat(default_config())
    names = [name for name in fields if name.startswith("objective.") or name in _WITHOUT_EFFECT]
    changed = [f"{name}={fields[name]!r}" for name in names if fields[name] != defaults[name]]
    if changed:
        raise InputError(
            f"{', '.join(changed)}: a probe minimises cross-entropy with L2 strengths (config.probe) over all images "
            "at once, chooses by validation top-1, and has no averages; expected the defaults"
        )


def _strengths(options: ml_collections.ConfigDict) -> tuple[float, ...]:
    try:
        return logistic.strength_grid(options["least"], options["most"], options["count"])
    except InputError as error:
        given = ", ".join(f"probe.{name}={options[name]}" for name in ("least", "most", "count"))
        raise InputError(f"{given}: {error}") from error


def _run_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of a run whose features are those of every image as it is, frozen up to the head."""
    for field in ("operations", "mixing"):
        if config.augment[field]:
            raise InputError(
                f"augment.{field}={tuple(config.augment[field])}: a probe is fitted to the features of every image "
                f"as it is, all at once; expected --config.augment.{field}="
            )
    if config.train.eval_statistics != "running":
        raise InputError(
            f"train.eval_statistics={config.train.eval_statistics}: a probe is fitted to features that are computed "
            "with running statistics; expected running"
        )
    return image_features.frozen(image_features.without_training(config))


def _check(setup: Setup) -> None:
    if "validation" not in setup.splits:
        raise InputError(
            "the strength is chosen by validation, and nothing is held out: expected "
            "data.validation_split, or data.validation_fraction above 0"
        )
    if jax.process_count() > 1:
        raise InputError(f"a probe runs in one process, not in {jax.process_count()}")


def _probe(
    setup: Setup,
    folder: RunFolder,
    strengths: tuple[float, ...],
    parameters: list[dict[str, Any]],
    began: float,
) -> dict[str, Any]:
    features, labels = {}, {}
    for name, split in setup.inputs.items():
        features[name] = split.gather(np.arange(len(split))).astype(np.float32)
        labels[name] = split.labels
    classes = len(setup.splits["train"].class_names)
    options = setup.config.probe
    solver: dict[str, Any] = {"compilation": setup.compilation}
    solver |= {name: options[name] for name in ("max_evaluations", "tolerance")}
    started = time.perf_counter()
    found = logistic.fit(features["train"], labels["train"], classes, strengths, **solver)
    top1 = {
        name: logistic.top1_accuracy(found.kernel, found.bias, features[name], labels[name])
        for name in ("train", "validation")
    }
    place = logistic.choose(top1["validation"], strengths)
    searched = time.perf_counter()
    # The penalty is added to the sum of the losses, so that it keeps its weight against each of them.
    all_features, all_labels = (
        np.concatenate([of["train"], of["validation"]]) for of in (features, labels)
    )
    final = logistic.fit(all_features, all_labels, classes, [strengths[place]], **solver)
    variables = _with_head(setup, final.kernel[0], final.bias[0])
    seconds = {"search": searched - started, "refit": time.perf_counter() - searched}
    test, logits = setup.evaluator(
        variables["params"], variables["batch_stats"], setup.inputs["test"]
    )
    rows = [
        {
            "strength": strength,
            "train_top1": float(top1["train"][i]),
            "validation_top1": float(top1["validation"][i]),
            "objective": float(found.objective[i]),
            "evaluations": int(found.evaluations[i]),
            "converged": bool(found.converged[i]),
        }
        for i, strength in enumerate(strengths)
    ]
    held_out = len(labels["validation"])
    scores = features["validation"] @ found.kernel[place] + found.bias[place]
    results.save_weights(folder, setup, variables)
    result = {
        "splits": {
            "validation": {
                "top1_accuracy": float(top1["validation"][place]),
                "examples": held_out,
                **metrics.class_averages(
                    labels["validation"], metrics.predictions(scores), classes
                ),
            },
            "test": test,
        },
        "selection": (
            f"L2 strength {strengths[place]:.3g}, the best of {len(strengths)} on "
            f"{console.count(held_out, 'image')} held out of train, fitted again on train and these; "
            f"{setup.splits.reported} was read once, at the end"
        ),
        "strength": strengths[place],
        "refit": {
            "objective": float(final.objective[0]),
            "evaluations": int(final.evaluations[0]),
            "converged": bool(final.converged[0]),
        },
        "train_examples": len(all_labels),
        "wall_seconds": time.perf_counter() - began,
        "seconds": seconds,
        **facts_of(setup, parameters),
    }
    title = f"{setup.config.model.name} on {setup.config.data.name}"
    reporting.write_probe(folder.path, title, rows, strengths[place], result)
    reporting.print_table("Logistic regression by L2 strength", rows, level="normal")
    with reporting.MetricWriter(folder.path, tensorboard=False):
        pass  # The report of a run wants the file; there is nothing to write by steps.
    return results.finish(folder, setup.config, setup.splits["test"], logits, result)


def _with_head(setup: Setup, kernel: np.ndarray, bias: np.ndarray) -> dict[str, Any]:
    """Returns the network with these weights as its head."""
    initial = setup.initial.variables
    head = {"kernel": kernel, "bias": bias}
    return {
        "params": {**initial["params"], "head": head},
        "batch_stats": initial["batch_stats"],
    }
