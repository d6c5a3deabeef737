"""Whether this device computes what it should: recorded references, scans, resumed runs."""

import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np

import tl_jax
from benchmarks import record, throughput_sides
from benchmarks.accelerator import jax_side, synthetic
from benchmarks.networks import Network
from tl_jax import models, trees
from tl_jax.parallel.device_dataset import ResidentStep
from tl_jax.training.loops import Stopped

sys.path.insert(0, str(record.REPOSITORY / "tests" / "porting"))
import fabricate
import golden_features
import sgd

_STEPS_OF_RESUMED = 3


def reference(name: str, file: str, precision: str) -> dict[str, Any]:
    """Returns the largest errors of a network's features against recorded ones of PyTorch or Keras.

    Args:
        name: of the network.
        file: below tests/porting/golden, without its ending.
        precision: "highest" or "float32".
    """
    golden = json.loads((golden_features.GOLDEN / f"{file}.json").read_text())
    model = models.create_model(name, len(golden["logits"][0]))
    size = golden["image_size"]
    images = fabricate.random_images((2, size, size, 3))
    with jax_side.precision_of(precision):
        features = fabricate.boundary_features(model, fabricate.random_variables(model), images)
    errors = golden_features.errors(features, golden)
    return {"errors": errors, "largest": max(errors.values())}


def reference_training(name: str, precision: str) -> dict[str, Any]:
    """Returns the largest relative error of the losses of twenty updates against those that PyTorch had.

    Args:
        name: of `sgd.VGGS`.
        precision: "highest" or "float32".
    """
    golden = json.loads((golden_features.GOLDEN / f"{name}_training.json").read_text())
    size, learning_rate, weight_decay, batch_size = sgd.VGGS[name]
    model = sgd.make_vgg(name)
    variables = fabricate.random_variables(model)
    images, labels = sgd.batches(size, batch_size)
    with jax_side.precision_of(precision):
        losses, _ = sgd.train_ours(model, variables, images, labels, learning_rate, weight_decay)
    expected = np.array(golden["losses"])
    return {"largest": float(np.max(np.abs(losses - expected) / np.abs(expected)))}


def scan_equals_step(network: dict[str, Any], batch_size: int, updates: int) -> dict[str, Any]:
    """Returns how far several updates in one program are from the same made one by one.

    Args:
        network: fields of a `Network`.
        batch_size: B.
        updates: U; one fewer are made by the program of U, too.
    """
    described = Network(**network)
    variables = throughput_sides.random_variables(described)
    batch = throughput_sides.random_batch(described, batch_size)
    random = np.random.default_rng(0)
    rows = random.integers(0, batch_size, (updates, batch_size)).astype(np.int32)
    training = throughput_sides.make_training(described, "full", variables, "float32")
    how = jax_side.compiled_as()
    images, labels = batch["image"], batch["label"]
    shape = images.shape[1:]
    scanned, state = jax_side.resident(training, how, shape)
    single, _ = jax_side.resident(training, how, shape)
    lowered = scanned.trace(state, updates, batch_size, images, labels).lower()
    scanned.use(updates, how.compile(lowered))
    for step in (scanned, single):
        step.put(images, labels)

    def after(step: ResidentStep, parts: list[np.ndarray]) -> dict[str, Any]:
        _, state = jax_side.resident(training, how, shape)  # The one before was donated.
        for part in parts:
            state, _ = step(state, part)
        return {"params": state.params, "batch_stats": state.batch_stats}

    return {
        "updates": updates,
        **{
            name: difference(
                after(scanned, [rows[:count]]), after(single, np.split(rows[:count], count))
            )
            for name, count in (("all", updates), ("fewer", updates - 1))
        },
    }


def resumed_bits(
    scratch: pathlib.Path,
    data: str,
    batch_size: int,
    every: int,
    model: str,
    weights: str,
    deterministic: bool,
) -> dict[str, Any]:
    """Returns how far an interrupted and resumed run is from one that was not, and from its repetition.

    Args:
        scratch: folder for the runs.
        data: name of a data set.
        batch_size: B.
        every: updates between two checkpoints, and in a dispatch.
        model: name of a network.
        weights: that it starts from, "" for none.
        deterministic: as `train.deterministic`.
    """
    folder = scratch / f"resumed_bits-{deterministic}"
    synthetic.register()
    config = tl_jax.default_config()
    config.update_from_flattened_dict(
        {
            "model.name": model,
            "init.weights": weights,
            "data.name": data,
            "data.batch_size": batch_size,
            "data.validation_fraction": 0.0,
            "data.cache_dir": "",
            "train.epochs": 0.0,
            "train.deterministic": deterministic,
            "train.steps": _STEPS_OF_RESUMED * every,
            "train.log_every_steps": every,
            "train.checkpoint_every_steps": every,
            "train.updates_per_dispatch": every,
            "parallel.devices": 1,
            "report.html": False,
            "report.tensorboard": False,
        }
    )

    def stop(step: int, split: str, metrics: Any) -> None:
        if split == "train" and step >= 2 * every:
            raise Stopped(step)

    once, again = (tl_jax.finetune(config, folder / name) for name in ("once", "again"))
    try:
        tl_jax.finetune(config, folder / "resumed", callbacks=[stop])
    except Stopped as stopped:
        stopped_at = stopped.step
    else:
        raise RuntimeError("the run that was to be interrupted came to its end")
    resumed = tl_jax.finetune(config, folder / "resumed")
    return {
        "steps": config.train.steps,
        "stopped_at_step": stopped_at,
        "resumed_at_step": resumed.result["resumed_at_step"],
        "resumed": difference(once.variables, resumed.variables),
        "repeated": difference(once.variables, again.variables),
    }


def difference(one: Any, other: Any) -> dict[str, Any]:
    """Returns whether two trees have the same bits, and the largest difference.

    It is a share of the largest value of its leaf.
    """
    leaves, others = (trees.flatten(jax.device_get(tree)) for tree in (one, other))
    largest, place, same = 0.0, None, True
    for name, leaf in leaves.items():
        value, expected = np.asarray(leaf), np.asarray(others[name])
        same = same and value.tobytes() == expected.tobytes()
        scale = float(np.max(np.abs(expected), initial=0.0)) or 1.0
        found = float(np.max(np.abs(value - expected), initial=0.0)) / scale
        if not found <= largest:  # What is no number counts.
            largest, place = found, name
    return {"same_bits": same, "largest_difference": largest, "leaf": place}
