"""The linear probe of the literature: logistic regression on the features of a frozen network.

    python -m experiments.probe --config=configs/cifar10_linear_probe.py --workdir=runs/cifar10_probe

Multinomial logistic regression by L-BFGS for every strength of a grid at once; the strength with the best
validation accuracy is fitted again on train and validation, and test is read once. Of the config it is the
model, weights and data that count; a section `probe` may set `least`, `most`, `count` (the grid),
`max_evaluations` and `tolerance`.
"""

import contextlib
import copy
import json
import pathlib
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments import activation_cache, cli, config_fields, outcome, training, weights
from experiments.preparation import Setup, prepare
from tl_jax import data, logistic, reporting
from tl_jax.errors import InputError, unknown
from tl_jax.run_folder import RunFolder

_CONFIG = cli.define_config()
_WORKDIR = cli.define_workdir()

# The 45 strengths of Kornblith et al. 2019 (arXiv:1805.08974); otherwise see `logistic.fit`.
DEFAULTS = {
    "least": 1e-6,
    "most": 1e5,
    "count": 45,
    "max_evaluations": 1000,
    "tolerance": 1e-4,
}


def main() -> None:
    """Runs the probe and prints its result."""
    run(cli.required(_CONFIG), cli.required_path(_WORKDIR))


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Probes as `config` says, in `workdir`; returns `result.json`.

    Raises:
        InputError: before anything is compiled, if config, workdir, data or weights do not fit.
    """
    record, identity = json.loads(config.to_json()), config_fields.identity(config, "probe")
    if RunFolder.look(workdir, record, identity) == "finished":
        return outcome.read(workdir, record, identity)
    began = time.perf_counter()
    options = read_options(config)
    strengths = _strengths(options)
    setup = prepare(_run_config(config))
    _check(setup)
    data.wait_for(setup.splits)
    with contextlib.ExitStack() as held:
        folder = held.enter_context(RunFolder.open(workdir, record, identity=identity))
        parameters = training.introduce(setup, folder)
        setup = activation_cache.use(setup)
        return _probe(setup, folder, strengths, options, parameters, began)


def read_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the options of `config.probe`, the others as in the literature.

    Raises:
        InputError: if one is unknown.
    """
    section = config.get("probe", {})
    for name in section:
        if name not in DEFAULTS:
            raise unknown("field of probe", name, DEFAULTS)
    found = {name: section.get(name, default) for name, default in DEFAULTS.items()}
    wrong = [
        f"probe.{name}={found[name]!r}: expected a number like {default}"
        for name, default in DEFAULTS.items()
        if type(found[name]) not in (type(default), int)
    ]
    if not wrong and (found["max_evaluations"] < 1 or not found["tolerance"] > 0):
        wrong.append(
            f"probe.max_evaluations={found['max_evaluations']}, probe.tolerance={found['tolerance']}: "
            "expected at least 1, and a number above 0"
        )
    if wrong:
        raise InputError("\n".join(wrong))
    return found


def _strengths(options: dict[str, Any]) -> tuple[float, ...]:
    try:
        return logistic.strength_grid(options["least"], options["most"], options["count"])
    except InputError as error:
        given = ", ".join(f"probe.{name}={options[name]}" for name in ("least", "most", "count"))
        raise InputError(f"{given}: {error}") from error


def _run_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of a run whose features are those of every image as it is, frozen up to the head."""
    plain = copy.deepcopy(config)
    plain.freeze.strategy, plain.freeze.patterns, plain.freeze.batch_norm = "backbone", (), "frozen"
    plain.augment.crop_padding, plain.augment.flip = 0, False
    plain.cache.boundary, plain.cache.views = "pool", 1
    with plain.unlocked():
        for name in ("probe", "sweep", "compare"):
            if name in plain:
                del plain[name]
    return plain


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
    options: dict[str, Any],
    parameters: list[dict[str, Any]],
    began: float,
) -> dict[str, Any]:
    features, labels = {}, {}
    for name, split in setup.inputs.items():
        features[name] = split.gather(np.arange(len(split))).astype(np.float32)
        labels[name] = split.labels
    classes = len(setup.splits["train"].class_names)
    limits = {name: options[name] for name in ("max_evaluations", "tolerance")}
    started = time.perf_counter()
    found = logistic.fit(features["train"], labels["train"], classes, strengths, **limits)
    top1 = {
        name: logistic.top1_accuracy(found.kernel, found.bias, features[name], labels[name])
        for name in ("train", "validation")
    }
    place = logistic.choose(top1["validation"], strengths)
    searched = time.perf_counter()
    # The penalty is added to the sum of the losses, so that it keeps its weight against each of them.
    both = [np.concatenate([of["train"], of["validation"]]) for of in (features, labels)]
    final = logistic.fit(*both, classes, [strengths[place]], **limits)
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
    preprocessing = weights.describe_preprocessing(setup.preprocessing)
    class_names = setup.splits["train"].class_names
    outcome.save_weights(folder, setup.config, variables, preprocessing, class_names)
    result = {
        "splits": {
            "validation": {"top1_accuracy": float(top1["validation"][place]), "examples": held_out},
            "test": test,
        },
        "selection": (
            f"L2 strength {strengths[place]:.3g}, the best of {len(strengths)} on {held_out:,} images held "
            "out of train, fitted again on train and these; "
            f"{setup.splits.reported} was read once, at the end"
        ),
        "strength": strengths[place],
        "refit": {
            "objective": float(final.objective[0]),
            "evaluations": int(final.evaluations[0]),
            "converged": bool(final.converged[0]),
        },
        "train_examples": len(both[1]),
        "wall_seconds": time.perf_counter() - began,
        "seconds": seconds,
        "cache": setup.cache,
        "parameters": parameters,
        "preprocessing": preprocessing,
        "deviations": setup.deviations,
        "data_notes": setup.splits.notes,
    }
    title = f"{setup.config.model.name} on {setup.config.data.name}"
    reporting.write_probe(folder.path, title, rows, strengths[place], result)
    reporting.print_table("Logistic regression by L2 strength", rows)
    with reporting.MetricWriter(folder.path, tensorboard=False):
        pass  # The report of a run wants the file; there is nothing to write by steps.
    return outcome.finish(folder, setup.config, setup.splits["test"], logits, result)


def _with_head(setup: Setup, kernel: np.ndarray, bias: np.ndarray) -> dict[str, Any]:
    """Returns the network with these weights as its head."""
    initial = setup.initial.variables
    head = {"kernel": kernel, "bias": bias}
    return {
        "params": {**initial["params"], "head": head},
        "batch_stats": initial["batch_stats"],
    }


if __name__ == "__main__":
    cli.run(main)
