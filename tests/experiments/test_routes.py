"""Classic routes: chosen inside train, test read once for each, beside a run on the same test split."""

import dataclasses
import json

import numpy as np
import pytest
from running import tiny_config, tree_of
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler

from tl_jax.errors import InputError
from tl_jax.features import saving
from tl_jax.runs import features, image_features, routes, training
from tl_jax.training import classic


@pytest.fixture(scope="module")
def make_config(small_networks, tmp_path_factory):
    store = tmp_path_factory.mktemp("activations")

    def make(**fields):
        given = {
            "data__validation_fraction": 0.1,
            "data__examples_per_class": 0,
            "data__train_split": "train[:30%]",
            "cache__dir": str(store),
            "routes__methods": ("lda", "knn"),
            "routes__pca": (0.0,),
            "routes__folds": 3,
            "routes__lda_shrinkage": (0.1,),
            "routes__knn_neighbors": (1, 5, 400),
            "routes__scatter": 60,
        }
        return tiny_config("quickstart", **(given | fields))

    return make


@pytest.fixture(scope="module")
def finetuned(make_config, tmp_path_factory):
    """Returns the folder of a run on the same test split, with scatter plots in its report."""
    folder = tmp_path_factory.mktemp("finetuned") / "tuned"
    training.run(make_config(report__html=True, report__scatter=40, train__steps=2), folder)
    return folder


@pytest.fixture(scope="module")
def run(make_config, finetuned, tmp_path_factory):
    config = make_config(routes__finetuned=str(finetuned))
    workdir = tmp_path_factory.mktemp("routes") / "run"
    return config, workdir, routes.run(config, workdir)


@pytest.fixture(scope="module")
def saved(run, make_config, tmp_path_factory):
    """Returns the features of each split, as `experiments.features` saves them."""
    folder = tmp_path_factory.mktemp("features") / "run"
    features.run(make_config(), folder)
    return {name: saving.load(folder / f"{name}.npz") for name in ("train", "validation", "test")}


def test_what_routes_leave(run, finetuned):
    _, workdir, result = run
    assert {path.name for path in workdir.iterdir()} >= {
        "config.json", "routes.json", "routes.html", "routes.npz", "scatter.npz", "result.json"
    }  # fmt: skip
    assert json.loads((workdir / "result.json").read_text()) == json.loads(json.dumps(result))
    assert [row["method"] for row in result["routes"]] == ["lda", "knn"]
    assert len(json.loads((workdir / "routes.json").read_text())["settings"]["knn"]) == 2
    recorded = json.loads((workdir / "config.json").read_text())
    assert {"routes", "features"} <= recorded.keys() and "probe" not in recorded
    assert "Features in the plane" in (workdir / "routes.html").read_text()


def test_a_route_is_fitted_to_train_and_validation_and_measured_on_test(run, saved):
    """By hand: scikit-learn's LDA on the saved features."""
    _, workdir, result = run
    train = saved["train"].joined(saved["validation"])
    assert result["train_examples"] == len(train) == 389
    scale = StandardScaler().fit(train.features.astype(np.float64))
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
    lda.fit(scale.transform(train.features.astype(np.float64)), train.labels)
    predicted = lda.predict(scale.transform(saved["test"].features.astype(np.float64)))
    row = result["routes"][0]
    assert row["top1_accuracy"] == np.mean(predicted == saved["test"].labels)
    expected = f1_score(saved["test"].labels, predicted, average="macro")
    assert row["macro_f1"] == pytest.approx(expected)
    with np.load(workdir / "routes.npz") as stored:
        np.testing.assert_array_equal(stored["lda_predicted"], predicted)
        np.testing.assert_array_equal(stored["labels"], saved["test"].labels)


def test_the_folds_choose_the_route_that_is_reported(run):
    _, _, result = run
    best = max(result["routes"], key=lambda row: row["cv_accuracy"])
    test = result["splits"]["test"]
    assert test["top1_accuracy"] == best["top1_accuracy"] and test["examples"] == 500
    assert result["selection"].startswith(f"{best['method']}, the best of 2 by 3-fold")
    assert "inside the 389 images of train and validation; its setting" in result["selection"]
    low, high = test["top1_interval"]
    assert low < test["top1_accuracy"] < high


@pytest.mark.parametrize("method", ["lda", "knn"])
def test_test_accuracy_chooses_no_route(make_config, monkeypatch, tmp_path, method):
    find = classic.find

    def favoured(given, *arguments, **named):
        route = find(given, *arguments, **named)
        return dataclasses.replace(route, accuracy=float(given == method))

    monkeypatch.setattr(classic, "find", favoured)
    result = routes.run(make_config(routes__scatter=0), tmp_path / "run")
    assert result["selection"].startswith(f"{method}, the best of 2")
    by_name = {row["method"]: row["top1_accuracy"] for row in result["routes"]}
    assert result["splits"]["test"]["top1_accuracy"] == by_name[method]
    assert by_name["lda"] != by_name["knn"]
    assert not (tmp_path / "run" / "scatter.npz").exists()


def test_the_run_beside_them_is_measured_from_its_predictions(run, finetuned):
    _, _, result = run
    stored = json.loads((finetuned / "result.json").read_text())
    beside = result["finetuned"]
    assert beside["top1_accuracy"] == pytest.approx(stored["splits"]["test"]["top1_accuracy"])
    assert beside["method"] == "run tuned" and beside["fit_seconds"] == stored["wall_seconds"]


def test_few_labelled_images_are_all_that_routes_see(make_config, monkeypatch, tmp_path):
    seen = {}

    def recorded(method, given, labels, **_):
        seen[method] = np.bincount(labels).tolist()
        raise KeyboardInterrupt

    monkeypatch.setattr(classic, "find", recorded)
    with pytest.raises(KeyboardInterrupt):
        routes.run(make_config(data__examples_per_class=5), tmp_path / "few")
    assert seen == {"lda": [5] * 10}


def test_the_search_sees_nothing_of_test(make_config, monkeypatch, tmp_path, saved):
    """Recorded where features are handed to the search."""
    given, find = [], classic.find

    def recorded(method, rows, labels, grid, search):
        given.append((rows, labels))
        return find(method, rows, labels, grid, search)

    monkeypatch.setattr(classic, "find", recorded)
    routes.run(make_config(routes__methods=("lda",)), tmp_path / "run")
    ((rows, labels),) = given
    train = saved["train"].joined(saved["validation"])
    np.testing.assert_array_equal(rows, train.features)
    np.testing.assert_array_equal(labels, train.labels)


def test_finished_routes_say_so(run, capsys):
    config, workdir, result = run
    before = tree_of(workdir)
    assert routes.run(config, workdir) == json.loads(json.dumps(result))
    assert tree_of(workdir) == before
    assert "is finished: test top-1" in capsys.readouterr().out


def test_a_training_run_draws_features_where_it_is_asked_to(finetuned):
    """Those of the trained network, at its last boundary before the head."""
    with np.load(finetuned / "scatter.npz") as stored:
        assert stored["PCA_points"].shape == stored["LDA_points"].shape == (40, 2)
        assert np.bincount(stored["labels"]).tolist() == [4] * 10
        assert int(stored["fitted"]) == 200
    page = (finetuned / "report.html").read_text()
    assert "Features in the plane" in page and 'href="#scatter"' in page
    assert "40 test images" in page and "200 training images" in page


def test_features_of_a_trained_network_are_those_that_it_exports(finetuned, make_config, tmp_path):
    """Drawn from the features of the command, with the run's own weights, as the run drew them."""
    from tl_jax.runs import scatter
    from tl_jax.runs.run_folder import RunFolder

    config = make_config(init__weights=str(finetuned), init__head="keep")
    found, _ = image_features.compute(image_features.setup_of(config), "mean")
    with RunFolder.open(tmp_path / "drawn", {}) as folder:
        scatter.save(folder, found["train"], found["test"], 40)
    with (
        np.load(tmp_path / "drawn" / "scatter.npz") as again,
        np.load(finetuned / "scatter.npz") as own,
    ):
        np.testing.assert_array_equal(again["labels"], own["labels"])
        np.testing.assert_allclose(again["PCA_shares"], own["PCA_shares"], rtol=1e-3)
        np.testing.assert_allclose(again["PCA_points"], own["PCA_points"], atol=1e-2)


OTHER = {"routes__finetuned": "{finetuned}"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"routes__methods": ("svm",)}, "unknown routes.methods 'svm'"),
        ({"routes__methods": ()}, "routes.methods=(): expected one method at least"),
        ({"routes__pca": (2.5,)}, "routes.pca=2.5: expected a whole number of components"),
        ({"routes__pca": (17.0,)}, "routes.pca=17: there are 16 features"),
        (
            {"routes__knn_neighbors": (300, 400)},
            "routes.knn_neighbors=(300, 400): a fold is fitted to 259",
        ),
        ({"data__examples_per_class": 2}, "routes.folds=3: 10 classes have fewer examples"),
        ({"routes__search_examples": 20}, "among the routes.search_examples=20 of 389"),
        ({"routes__finetuned": "nowhere"}, "routes.finetuned=nowhere: nowhere: no config.json"),
        (OTHER | {"data__test_split": "test[:50%]"}, "it has data.test_split=test, not test[:50%]"),
        (OTHER | {"data__folds": 3}, "it has data.folds=0, not 3"),
        (OTHER | {"data__name": "npz:{npz}"}, "data.name=digits, not npz:"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_made(
    make_config, finetuned, tmp_path, fields, message
):
    npz = tmp_path / "images.npz"
    images, labels = np.zeros((200, 8, 8, 3), np.uint8), np.arange(200) % 10
    np.savez(npz, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    fields = {
        name: value.format(finetuned=finetuned, npz=npz) if isinstance(value, str) else value
        for name, value in fields.items()
    }
    with pytest.raises(InputError) as raised:
        routes.run(make_config(**fields), tmp_path / "new")
    assert message in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_a_run_with_other_test_labels_is_refused(make_config, finetuned, tmp_path):
    """Though its config names the same split: the images in a folder may have changed."""
    import shutil

    other = tmp_path / "other"
    shutil.copytree(finetuned, other)
    with np.load(other / "predictions.npz") as stored:
        arrays = dict(stored)
    arrays["labels"] = np.roll(arrays["labels"], 1)
    np.savez(other / "predictions.npz", **arrays)
    with pytest.raises(InputError, match="another test split: it has 500 test images with their"):
        routes.run(make_config(routes__finetuned=str(other)), tmp_path / "new")
