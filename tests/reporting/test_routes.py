"""The table of classic routes says what was chosen, how, and what did not converge."""

import json

import pytest

from tl_jax import reporting
from tl_jax.reporting.routes import not_converged, setting


def row(method, accuracy, **more):
    return {
        "method": method,
        "top1_accuracy": accuracy,
        "top1_interval": [accuracy - 0.05, accuracy + 0.05],
        "macro_precision": 0.5,
        "macro_recall": 0.25,
        "macro_f1": 0.3,
        "fit_seconds": 70.0,
        **more,
    }


def route(method, cv, accuracy, **more):
    searched = {"chosen": {"pca": 0.95, "c": 0.1}, "components": 12, "cv_accuracy": cv}
    searched |= {"cv_accuracy_std": 0.02, "search_seconds": 1.0}
    searched |= {"converged": True, "not_converged_in_search": 0}
    return row(method, accuracy, **(searched | more))


@pytest.fixture
def content():
    rows = [
        route("logistic", 0.7, 0.8, converged=False, not_converged_in_search=3),
        route("knn", 0.6, 0.9, chosen={"pca": 0, "neighbors": 5}, components=None, converged=None),
    ]
    return {
        "title": "net on <data>",
        "features": {"boundary": "pool", "pool": "mean", "count": 64},
        "rows": rows,
        "finetuned": row("run tuned", 0.95),
        "chosen": "logistic",
        "folds": 5,
        "examples": {"train": 900, "of": ["train", "validation"], "searched": 300, "test": 100},
        "reported": "test",
        "settings": {"logistic": [{"pca": 0.95, "c": 0.1, "accuracy": 0.7}], "knn": []},
    }


def test_the_table_and_the_page(tmp_path, content):
    table = reporting.write_routes(tmp_path, content)
    assert [line["route"] for line in table] == ["logistic", "knn", "run tuned"]
    assert table[0]["chosen"] == "PCA of 95% (12 components), c 0.1"
    assert table[1]["chosen"] == "no PCA, neighbors 5" and table[2]["chosen"] == ""
    assert setting({"chosen": {"pca": 3.0, "gamma": 1.0}}) == "PCA of 3 components, gamma 1"
    assert table[0]["CV (%)"] == "70.00 ± 2.00" and table[2]["CV (%)"] == ""
    assert table[1]["test top-1 (%)"] == "90.00 (85.0 to 95.0)"
    assert table[2]["fit"] == "1:10 min" and table[2]["search"] == ""
    assert json.loads((tmp_path / "routes.json").read_text()) == content
    page = (tmp_path / "routes.html").read_text()
    assert "net on &lt;data&gt;" in page
    # That of the route that the folds chose, and not the best one on test.
    assert "<b>80.00%</b><span>test top-1 of logistic, the best of 2 in cross-validation" in page
    assert "the search saw 300 of 900 training images" in page
    assert page.count('class="warning"') == 1
    assert "logistic: the last fit did not converge; 3 fits of the search did not" in page
    assert "Features in the plane" not in page


def test_a_search_on_all_images_is_not_said_to_be_on_some(tmp_path, content):
    content["examples"]["searched"] = 900
    reporting.write_routes(tmp_path, content | {"finetuned": None})
    page = (tmp_path / "routes.html").read_text()
    assert "the search saw" not in page and "whole training" not in page


@pytest.mark.parametrize(
    ("converged", "count", "text"),
    [
        (True, 0, ""),
        (None, 0, ""),
        (False, 0, "the last fit did not converge"),
        (True, 2, "2 fits of the search did not converge"),
    ],
)
def test_what_did_not_converge_is_said(converged, count, text):
    assert not_converged({"converged": converged, "not_converged_in_search": count}) == text
