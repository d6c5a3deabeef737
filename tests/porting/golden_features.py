"""How features are described in the files of golden/."""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


def describe(features):
    """Returns what a file of golden numbers holds of {boundary: array}: statistics, first values, all logits."""
    return {
        "boundaries": {
            boundary: {
                "shape": list(array.shape),
                "mean": float(array.mean(dtype="float64")),
                "std": float(array.std(dtype="float64")),
                "max": float(abs(array).max()),
                "first": array.reshape(-1)[:8].tolist(),
            }
            for boundary, array in features.items()
        },
        "logits": features["head"].tolist(),
    }


def errors(features, golden):
    """Returns {boundary: error} of {boundary: array} against a file's content, and that of all "logits".

    An error is the largest of those of mean, standard deviation and first values, as a share of the largest value.
    """
    recorded = golden["boundaries"]
    assert set(recorded) == set(features), (set(recorded), set(features))
    found = {}
    for boundary, ours in describe(features)["boundaries"].items():
        theirs = recorded[boundary]
        assert ours["shape"] == theirs["shape"], (boundary, ours["shape"], theirs["shape"])
        differences = [ours[name] - theirs[name] for name in ("mean", "std")]
        differences += [
            one - other for one, other in zip(ours["first"], theirs["first"], strict=True)
        ]
        found[boundary] = float(np.max(np.abs(differences))) / theirs["max"]
    logits = np.array(golden["logits"], np.float32)
    found["logits"] = float(np.max(np.abs(features["head"] - logits)) / np.max(np.abs(logits)))
    return found
