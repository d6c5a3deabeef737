"""How features are described in the files of golden/."""

from pathlib import Path

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
