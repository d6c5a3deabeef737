"""What a run leaves behind: its predictions, weights, report and, last of all, `result.json`."""

import io
import json
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments import weights
from tl_jax import files, porting, reporting
from tl_jax.data import Split
from tl_jax.reporting import intervals
from tl_jax.run_folder import RunFolder, environment_facts


def finish(
    folder: RunFolder,
    config: ml_collections.ConfigDict,
    split: Split,
    logits: np.ndarray,
    result: dict[str, Any],
) -> dict[str, Any]:
    """Writes predictions, report and `result.json` (last: it says that the run is finished).

    Args:
        folder: of the run; processes other than the primary one write nothing.
        config: of the run.
        split: the test split, of N examples.
        logits: of its examples, float32 [N, K].
        result: what is particular to this run; the 95% interval of each split's accuracy
            (`top1_interval`, Wilson's) and the facts of the environment are added.

    Returns:
        What `result.json` holds.
    """
    result = {
        "status": "finished",
        **result,
        "splits": {name: _with_interval(split) for name, split in result["splits"].items()},
        "class_names": list(split.class_names),
        **environment_facts(),
    }
    if jax.process_index() == 0:
        _write_predictions(folder.path, split, logits, config.report.mistakes)
        if config.report.html:
            reporting.write_report(folder.path, result=result)
        folder.finish(result)
        print(f"{folder.path}: {describe(result)}; {result['wall_seconds']:.1f} s")
    return result


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the result of a finished run, having said that it is finished."""
    result = json.loads((workdir / "result.json").read_text())
    if jax.process_index() == 0:
        print(f"{workdir} is finished: {describe(result)}")
    return result


def tell_port(folder: RunFolder, report: porting.PortReport) -> None:
    """Writes the account of ported weights, tensor by tensor, and prints it by group."""
    folder.write_json("port_report.json", report.to_json())
    print(report.summary())
    reporting.print_table("Ported weights (port_report.json: every tensor)", report.groups())


def describe(result: dict[str, Any]) -> str:
    """Returns a line about a result: accuracy, its 95% interval and the number of images of each split."""
    return "; ".join(
        f"{name} top-1 {intervals.single_run(split)}" for name, split in result["splits"].items()
    )


def _with_interval(split: dict[str, Any]) -> dict[str, Any]:
    interval = None
    if np.isfinite(split["top1_accuracy"]):
        interval = list(intervals.of_accuracy(split["top1_accuracy"], split["examples"]))
    return {**split, "top1_interval": interval}


def save_weights(
    folder: RunFolder,
    config: ml_collections.ConfigDict,
    variables: dict[str, Any],
    preprocessing: dict[str, Any],
    class_names: tuple[str, ...],
) -> None:
    """Writes `weights.safetensors`, which PyTorch users load and `init.weights` takes.

    Its metadata says what the network is and what its input must look like.
    """
    naming = "cifar" if config.model.name.endswith("_cifar") else "torchvision"
    description = {
        "model": config.model.name,
        "stem": config.model.stem,
        "class_names": list(class_names),
        "preprocessing": preprocessing,
    }
    porting.save_state_dict(
        folder.path / weights.EXPORTED,
        porting.export_state_dict(jax.device_get(variables), naming=naming),
        metadata={weights.METADATA_KEY: json.dumps(description)},
    )


def _write_predictions(
    folder: pathlib.Path, split: Split, logits: np.ndarray, mistakes: int
) -> None:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    predicted = probabilities.argmax(-1)
    wrong = np.flatnonzero(predicted != split.labels)
    confidence = probabilities[wrong, predicted[wrong]]
    worst = wrong[np.argsort(-confidence, kind="stable")][:mistakes]
    content = io.BytesIO()
    np.savez(
        content,
        probabilities=probabilities,
        labels=split.labels,
        indices=np.arange(len(split), dtype=np.int32),
        mistake_indices=worst.astype(np.int32),
        mistake_images=split.gather(worst),
        class_names=np.array(split.class_names),
    )
    files.write(folder / "predictions.npz", content.getvalue())
