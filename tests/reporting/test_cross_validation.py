"""The page of a cross-validation: folds, their mean, and all images together."""

import json

import numpy as np
import pytest

from tl_jax import reporting

LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 1])
# Two mistakes: an example of each class.
PROBABILITIES = np.eye(2)[[0, 0, 1, 1, 1, 1, 1, 0]].astype(np.float32)


def fold(number, accuracy):
    return {
        "fold": number,
        "run": f"fold{number}",
        "train_examples": 4,
        "examples": 4,
        "top1_accuracy": accuracy,
        "validation_top1_accuracy": None,
        "selected_step": 9,
        "wall_seconds": 1.5,
    }


@pytest.fixture
def content():
    return {
        "title": "net on <data>",
        "class_names": ["cat", "dog"],
        "folds": [fold(1, 0.5), fold(2, 1.0)],
    }


def test_folds_and_all_images_together(tmp_path, content):
    (tmp_path / "fold1").mkdir()
    (tmp_path / "fold1" / "report.html").write_text("")
    found = reporting.write_cross_validation(tmp_path, content, PROBABILITIES, LABELS)
    stored = json.loads((tmp_path / "cross_validation.json").read_text())
    assert stored["over_folds"]["mean"] == 0.75 and stored["over_folds"]["n"] == 2
    pooled = stored["pooled"]
    assert (pooled["top1_accuracy"], pooled["examples"]) == (0.75, 8)
    # cat: 2 of 3 found, 2 of 3 right; dog: 4 of 5 and 4 of 5.
    assert pooled["macro_precision"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert pooled["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert pooled["top1_interval"] == pytest.approx([0.4093, 0.9285], abs=1e-4)
    assert found["table"][0]["top-1 (%)"] == "50.00 (15.0 to 85.0)"
    assert "all 8 images, each predicted once: 75.00%" in found["summary"]
    page = (tmp_path / "cross_validation.html").read_text()
    assert "net on &lt;data&gt;" in page and 'href="fold1/report.html"' in page
    assert 'href="fold2' not in page and page.count('<td class="n">66.7%</td>') == 3
