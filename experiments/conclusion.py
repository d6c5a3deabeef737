"""What a run tells before its first update and leaves after its last."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from experiments import assembly
from tl_jax import freezing, porting, reporting
from tl_jax.data import Split
from tl_jax.run_folder import RunFolder, environment_facts
from tl_jax.train_state import TrainState


def introduce(setup, folder: RunFolder, state: TrainState) -> None:
    """Prints and writes what will be trained: the audit of the weights and the freezing table."""
    if jax.process_index():
        return
    for line in setup.deviations:
        print(f"deviation: {line}")
    if setup.initial.port_report is not None:
        folder.write_json("port_report.json", setup.initial.port_report)
    rows = freezing.summary(
        state.params,
        state.batch_stats,
        setup.optimisation.frozen_mask,
        setup.config.freeze.batch_norm,
        setup.optimisation.multipliers,
        state.opt_state,
    )
    folder.write_json("freezing.json", rows)
    reporting.print_table("Parameters", rows)


def conclude(setup, folder: RunFolder, state: TrainState, seconds: float) -> dict[str, Any]:
    """Evaluates the chosen state, reads the test split once, writes result, weights and report.

    Returns:
        What `result.json` holds.
    """
    config = setup.config
    splits, logits = {}, {}
    for name in ("validation", "test"):
        if name in setup.splits:
            splits[name], logits[name] = setup.evaluator(
                state.params, state.batch_stats, setup.splits[name]
            )
    step, total = int(state.step), setup.total_steps
    if "validation" in splits:
        selection = (
            f"step {step} of {total}, the best top-1 on {splits['validation']['examples']:,} images held "
            "out of train; test was read once, after the choice"
        )
    else:
        selection = f"the last step, {total}; nothing was held out and test was read once, at the end"
    template = setup.initial.variables
    frozen = freezing.verify_unchanged(
        template,
        {"params": state.params, "batch_stats": state.batch_stats},
        setup.optimisation.frozen_mask,
        setup.optimisation.frozen_norms,
        config.freeze.batch_norm,
    )
    result = {
        "status": "finished",
        "splits": splits,
        "selection": selection,
        "steps": total,
        "selected_step": step,
        "wall_seconds": seconds,
        "images_per_second": total * config.data.batch_size / seconds,
        "frozen": frozen,
        "preprocessing": assembly.describe_preprocessing(setup.preprocessing),
        "deviations": setup.deviations,
        "class_names": list(setup.splits["train"].class_names),
        **environment_facts(),
    }
    if jax.process_index() == 0:
        write_outcome(setup, folder, state, result, logits["test"])
        print(f"{folder.path}: {describe(result)}; {seconds:.1f} s")
    return result


def write_outcome(
    setup, folder: RunFolder, state: TrainState, result: dict[str, Any], logits: np.ndarray
) -> None:
    """Writes the weights, the predictions on test, `result.json` and the report."""
    save_weights(setup, folder, state)
    write_predictions(folder.path, setup.splits["test"], logits, setup.config.report.mistakes)
    folder.finish(result)
    if setup.config.report.html:
        reporting.write_report(folder.path)


def save_weights(setup, folder: RunFolder, state: TrainState) -> None:
    """Writes `weights.safetensors` in PyTorch's layout, with the preprocessing in its metadata."""
    variables = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    naming = "cifar" if setup.config.model.name.endswith("_cifar") else "torchvision"
    description = {
        "model": setup.config.model.name,
        "stem": setup.config.model.stem,
        "class_names": list(setup.splits["train"].class_names),
        "preprocessing": assembly.describe_preprocessing(setup.preprocessing),
    }
    porting.save_state_dict(
        folder.path / assembly.EXPORTED_WEIGHTS,
        porting.export_state_dict(variables, naming=naming),
        metadata={assembly.METADATA_KEY: json.dumps(description)},
    )


def write_predictions(folder: pathlib.Path, split: Split, logits: np.ndarray, mistakes: int) -> None:
    """Writes `predictions.npz`: probabilities of a split and its most confident mistakes as pictures."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    predicted = probabilities.argmax(-1)
    wrong = np.flatnonzero(predicted != split.labels)
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:mistakes]
    np.savez(
        folder / "predictions.npz",
        probabilities=probabilities,
        labels=split.labels,
        indices=np.arange(len(split), dtype=np.int32),
        mistake_indices=worst.astype(np.int32),
        mistake_images=split.gather(worst),
        class_names=np.array(split.class_names),
    )


def describe(result: dict[str, Any]) -> str:
    """Returns a line about a result: accuracy and number of examples of each split."""
    return ", ".join(
        f"{name} top-1 {100 * split['top1_accuracy']:.2f}% of {split['examples']:,} images"
        for name, split in result["splits"].items()
    )
