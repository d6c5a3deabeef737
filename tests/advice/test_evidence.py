"""Evidence of digits and of the packaged network, against passes and formulas of their own."""

import json

import jax
import numpy as np
import pytest

import tl_jax
from tl_jax import advice, console, models, porting, trees
from tl_jax.advice import evidence, judging
from tl_jax.augment.preprocessing import make_eval_transform
from tl_jax.errors import InputError
from tl_jax.runs.setup import prepare
from tl_jax.training import loops

WEIGHTS = "resnet20_cifar.tin32"


def config_of(**fields):
    return tl_jax.default_config(
        **{
            "model__name": "resnet20_cifar",
            "init__weights": WEIGHTS,
            "data__name": "digits",
            "data__examples_per_class": 8,
            "data__cache_dir": "",
            "data__validation_fraction": 0.2,
            "data__batch_size": 20,
            "cache__dir": "",
            "parallel__devices": 1,
            "train__steps": 7,
            "advise__folds": 4,
            **fields,
        }
    )


@pytest.fixture(scope="module")
def found():
    return advice.gather(config_of())


@pytest.fixture(scope="module")
def setup():
    return prepare(evidence._plain(config_of()))


def images_of(setup, places):
    return make_eval_transform(setup.preprocessing)(setup.splits["train"].gather(places))


def test_what_is_counted(found):
    assert (found.train_images, found.images, found.classes) == (80, 80, 10)
    assert (found.labels_per_class, found.least_labels) == (8, 8)
    assert (found.updates, found.batch_size) == (7, 20)
    assert (found.data, found.network, found.weights) == ("digits", "resnet20_cifar", WEIGHTS)
    assert found.images_per_second > 1
    # Stage 3 and its pool are the same features: the last of them counts.
    assert [one.boundary for one in found.pretrained] == ["stem", "stage1", "stage2", "pool"]
    assert [one.features for one in found.pretrained] == [16, 16, 32, 64]
    assert [one.boundary for one in found.random] == ["stem", "stage1", "stage2", "pool"]


def test_features_are_those_of_a_pass_of_their_own(found, setup):
    model = models.create_model("resnet20_cifar", 200)
    variables, _ = porting.load_pretrained(WEIGHTS, model, input_shape=(1, 32, 32, 3))
    labels = setup.splits["train"].labels
    splits = judging.folds(labels, 4, seed=0)
    images = images_of(setup, np.arange(80))
    for one in found.pretrained:
        forward = models.make_forward(model, stop=one.boundary)
        maps, _ = forward(variables["params"], variables["batch_stats"], images, train=False)
        vectors = np.asarray(maps.mean((1, 2)) if maps.ndim == 4 else maps)
        assert vectors.shape == (80, one.features)
        neighbors = judging.nearest_neighbors(vectors, labels, splits)
        assert np.mean(neighbors == one.neighbors) > 0.98
        regression = judging.logistic_regression(vectors, labels, 10, splits)
        assert np.mean(regression == one.logistic) > 0.98
    assert found.pretrained[-1].logistic.mean() > 0.6


def test_the_control_has_random_weights_and_the_statistics_of_the_images(found, setup):
    variables = evidence._random(setup, 0)
    images = images_of(setup, np.arange(80))
    convolved = jax.lax.conv_general_dilated(
        images,
        variables["params"]["stem"]["conv"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    stats = variables["batch_stats"]["stem"]["bn"]
    np.testing.assert_allclose(stats["mean"], convolved.mean((0, 1, 2)), rtol=1e-3, atol=1e-5)
    ported = setup.initial.variables["params"]["stem"]["conv"]["kernel"]
    assert np.abs(np.asarray(variables["params"]["stem"]["conv"]["kernel"]) - ported).max() > 0.01
    assert found.random[-1].logistic.mean() < found.pretrained[-1].logistic.mean()


def test_the_shift_is_the_distance_of_normal_distributions(found, setup, monkeypatch):
    """Of statistics that are moved by hand; and that of the digits is above that of nothing."""
    old = setup.initial.variables

    def moved(_, variables):
        leaves = trees.flatten(variables["batch_stats"])
        for name in leaves:
            var = np.asarray(leaves[name.rpartition("/")[0] + "/var"], np.float64) + 1e-5
            if name.endswith("/mean"):  # by 0.3 standard deviations
                leaves[name] = np.asarray(leaves[name]) + 0.3 * np.sqrt(var)
        for name in leaves:
            if name.endswith("/var"):  # 1.4 times the standard deviation
                leaves[name] = 1.4**2 * (np.asarray(leaves[name], np.float64) + 1e-5) - 1e-5
        return trees.unflatten(leaves)

    monkeypatch.setattr(evidence.target_statistics, "estimated", moved)
    assert evidence._shift(setup, old) == pytest.approx(0.5, rel=1e-4)
    monkeypatch.setattr(
        evidence.target_statistics, "estimated", lambda _, variables: variables["batch_stats"]
    )
    assert evidence._shift(setup, old) == 0
    assert 0.05 < found.shift < 2


def test_a_network_without_statistics_has_no_shift():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    assert images.shape == (20, 8, 8, 3)
    setup = prepare(evidence._plain(config_of(model__name="small_cnn", init__weights="")))
    assert evidence._shift(setup, setup.initial.variables) is None


def test_no_more_images_than_asked_for_of_every_class_alike():
    few = advice.gather(config_of(advise__examples=30))
    assert (few.images, few.train_images) == (30, 80)
    assert all(len(one.logistic) == 30 for one in few.pretrained)


def test_two_images_of_every_class_at_least():
    labels = np.array([0] * 90 + [1] * 6 + [2] * 4)
    chosen = labels[evidence._chosen(labels, 10, seed=0)]
    assert np.bincount(chosen)[1:].tolist() == [2, 2] and 8 <= (chosen == 0).sum() <= 9
    assert len(evidence._chosen(labels, 1000, seed=0)) == 100


def test_neither_validation_nor_test_is_looked_at(monkeypatch):
    read = []
    split_type = type(prepare(evidence._plain(config_of())).splits["train"])
    gather = split_type.gather

    def watched(self, rows):
        read.append(self)
        return gather(self, rows)

    monkeypatch.setattr(split_type, "gather", watched)
    setups = []
    monkeypatch.setattr(
        evidence, "prepare", lambda config: setups.append(prepare(config)) or setups[0]
    )
    advice.gather(config_of())
    (setup,) = setups
    assert read and all(split is setup.splits["train"] for split in read)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"init__weights": ""},
            r"advice is about pretrained weights; expected weights, such as resnet20",
        ),
        ({"data__examples_per_class": 1, "data__validation_fraction": 0.0}, "expected two or more"),
        ({"advise__examples": 3}, r"advise.examples=3: expected an integer from 10 to 100000"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message, tmp_path):
    with pytest.raises(InputError, match=message):
        advice.advise(config_of(**fields), tmp_path / "advice")
    assert not (tmp_path / "advice").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes.txt"):
        advice.advise(config_of(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_stop_is_asked_between_batches():
    with pytest.raises(loops.Stopped):
        advice.gather(config_of(), lambda: True)


def test_the_page_and_the_file(tmp_path, capsys, monkeypatch, found):
    monkeypatch.setattr("tl_jax.advice.report.gather", lambda config, stop: found)
    with console.verbosity("normal"):
        content = advice.advise(config_of(), tmp_path / "advice")
    out = capsys.readouterr().out
    stored = json.loads((tmp_path / "advice" / "advice.json").read_text())
    page = (tmp_path / "advice" / "advice.html").read_text()
    said = advice.say(found, advice.load_findings())
    assert [one["text"] for one in stored["sentences"]] == [one.text for one in said]
    for one in said:
        assert one.text in out
        assert one.text.split(":")[0].replace("'", "&#39;") in page
    rows = stored["evidence"]["boundaries"]
    assert [row["boundary"] for row in rows] == ["stem", "stage1", "stage2", "pool"]
    assert rows[-1]["logistic_accuracy"] == found.pretrained[-1].logistic.mean()
    assert rows[0]["random_neighbors_accuracy"] == found.random[0].neighbors.mean()
    assert stored["evidence"]["shift"] == content["evidence"]["shift"] == found.shift
    # Again into the same folder: its own page is replaced.
    advice.advise(config_of(), tmp_path / "advice")
