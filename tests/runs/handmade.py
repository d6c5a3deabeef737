"""Run folders written by hand: what a comparison reads of a run, and nothing else."""

import json
import pathlib

import numpy as np

from tl_jax import files
from tl_jax.config import default_config, of_command
from tl_jax.training import metrics

CLASSES = ("cat", "dog", "frog")
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])


def make_run(
    folder: pathlib.Path,
    predicted,
    *,
    labels=LABELS,
    class_names=CLASSES,
    confidence: float = 0.8,
    digests: dict | None = None,
    curves: dict | None = None,
    validation: dict | None = None,
    seconds: float = 5.0,
    **fields,
) -> pathlib.Path:
    """Writes a finished run that predicts these classes with one confidence; returns its folder.

    Args:
        folder: to be made.
        predicted: int [N], the classes of the test images.
        labels: int [N].
        class_names: K of them.
        confidence: the probability of the predicted class; the others share the rest.
        digests: data.json; None writes none.
        curves: {(split, metric): values} of steps 10, 20, ...
        validation: of result.json.
        seconds: the wall time.
        **fields: of the config, as `optim__name`.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    config = default_config(data__name="digits", **fields)
    write_json(folder / "config.json", of_command(config))
    count, classes = len(labels), len(class_names)
    probabilities = np.full((count, classes), (1 - confidence) / (classes - 1), np.float32)
    probabilities[np.arange(count), predicted] = confidence
    np.savez(
        folder / "predictions.npz",
        probabilities=probabilities,
        labels=labels,
        indices=np.arange(count),
        class_names=np.array(class_names),
        split=np.array("test"),
    )
    test = {
        "top1_accuracy": float(np.mean(predicted == labels)),
        **metrics.class_averages(labels, predicted, classes),
        "loss": 0.5,
        "examples": count,
    }
    splits = {"test": test} | ({"validation": validation} if validation else {})
    result = {
        "status": "finished",
        "splits": splits,
        "selection": "the last step",
        "steps": 40,
        "train_examples": 20,
        "wall_seconds": seconds,
        "class_names": list(class_names),
        "device": {"platform": "cpu", "kind": "cpu", "count": 1},
        "versions": {"jax": "0.12.0", "numpy": "2.5", "tl_jax": "0.1.0"},
        "git_revision": "0123456789abcdef+dirty",
    }
    write_json(folder / "result.json", result)
    if digests is not None:
        write_json(folder / "data.json", digests)
    lines = [
        {"step": 10 * place, "split": split, metric: value}
        for (split, metric), values in (curves or {}).items()
        for place, value in enumerate(values, start=1)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def digest(content: str = "pixels", names: str = "names", side: int = 32) -> dict:
    """Returns data.json's entry of a split."""
    facts = {"examples": len(LABELS), "shape": [side, side, 3], "names": names}
    return facts | ({"content": content} if content else {})


def write_json(path: pathlib.Path, value) -> None:
    """Writes a JSON file and the folder around it."""
    files.write(path, files.to_json(value))


def change_json(path: pathlib.Path, **changes) -> None:
    """Sets entries of a JSON object; None removes one, `splits__test` names an inner one."""
    value = json.loads(path.read_text())
    for name, new in changes.items():
        *outer, last = name.split("__")
        inner = value
        for key in outer:
            inner = inner[key]
        if new is None:
            del inner[last]
        else:
            inner[last] = new
    write_json(path, value)
