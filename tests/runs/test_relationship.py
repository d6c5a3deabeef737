"""What is learned of the classes of source and data when a run begins."""

import json
import pathlib

import jax
import numpy as np
import pytest

import tl_jax
from tl_jax import models, porting
from tl_jax.errors import InputError
from tl_jax.objectives import relationship as formulas
from tl_jax.runs import relationship
from tl_jax.runs.setup import prepare

WEIGHTS = "resnet20_cifar.tin32"


def config_of(**fields):
    return tl_jax.default_config(
        **{
            "model__name": "resnet20_cifar",
            "init__weights": WEIGHTS,
            "data__name": "digits",
            "data__examples_per_class": 12,
            "data__batch_size": 20,
            "data__cache_dir": "",
            "data__validation_fraction": 0.2,
            "cache__dir": "",
            "parallel__devices": 1,
            "train__steps": 2,
            "objective__co_tuning": 2.3,
            "report__html": False,
            "report__tensorboard": False,
            **fields,
        }
    )


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def packaged():
    """Returns the packaged network with its own head of 200 classes, as a function of digits."""
    model = models.create_model("resnet20_cifar", 200)
    variables, _ = porting.load_pretrained(WEIGHTS, model, input_shape=(1, 32, 32, 3))
    forward = jax.jit(models.make_forward(model), static_argnames="train")

    def logits(setup, role):
        from tl_jax.augment.preprocessing import make_eval_transform

        split = setup.splits[role]
        images = make_eval_transform(setup.preprocessing)(split.gather(np.arange(len(split))))
        found, _ = forward(variables["params"], variables["batch_stats"], images, train=False)
        return np.asarray(found, np.float64)

    return logits


def test_logits_of_the_source_are_those_of_the_packaged_network(packaged):
    setup = prepare(config_of())
    for role in ("train", "validation"):
        found = relationship.source_logits(setup, role)
        assert found.shape == (len(setup.splits[role]), 200)
        np.testing.assert_allclose(found, packaged(setup, role), rtol=1e-4, atol=1e-4)


def test_direct_is_the_mean_over_the_training_images_as_they_are(packaged):
    """Not flipped and cropped, as updates see them."""
    config = config_of(objective__relationship="direct", objective__source_temperature=1.3)
    setup = prepare(config)
    found = relationship.use(setup).relationship
    said = softmax(packaged(setup, "train") / 1.3)
    labels = setup.splits["train"].labels
    for label in range(10):
        expected = said[labels == label].mean(0)
        np.testing.assert_allclose(found.probabilities[label], expected, rtol=1e-3, atol=1e-6)
    assert found.probabilities.dtype == np.float32
    row = found.facts["classes"][3]
    nearest = np.argsort(-found.probabilities[3])[:5]
    names = setup.minimised.source_head.class_names
    assert len(names) == 200 and not names[0].isdigit()
    assert [near["class"] for near in row["nearest"]] == [names[place] for place in nearest]


def test_reverse_is_the_regression_of_the_authors_and_the_rule_of_bayes(packaged):
    """With scikit-learn's regression at the strength that was chosen, and NumPy for all else."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    setup = prepare(config_of())
    found = relationship.use(setup).relationship
    train, validation = (softmax(packaged(setup, role)) for role in ("train", "validation"))
    labels = [setup.splits[role].labels for role in ("train", "validation")]
    strengths = [10.0**power * digit for power in range(4, -5, -1) for digit in (3, 1)][1:]
    accuracies, kernels = [], []
    for strength in strengths:
        regression = linear_model.LogisticRegression(
            C=strength, fit_intercept=False, max_iter=20_000, tol=1e-8
        )
        regression.fit(train, labels[0])
        accuracies.append((regression.predict(validation) == labels[1]).mean())
        kernels.append(regression.coef_.T)
    facts = found.facts
    assert facts["chosen_by"] == "validation" and facts["chosen_by_images"] == len(labels[1])
    place = int(np.argmin([abs(np.log(facts["inverse_strength"] / each)) for each in strengths]))
    assert facts["inverse_strength"] == pytest.approx(strengths[place])
    # No other is better; where several are as good, rounding may choose another of them.
    assert facts["top1_accuracy"] == pytest.approx(max(accuracies), abs=0.02)
    assert accuracies[place] == pytest.approx(max(accuracies), abs=0.02)
    kernel = kernels[place]
    scores = validation @ kernel
    scale = 1 / formulas.fit_temperature(scores, labels[1])
    assert facts["scale"] == pytest.approx(scale, rel=0.02)
    target_given_source = softmax(scale * kernel)
    joint = target_given_source * train.mean(0)[:, None]
    expected = (joint / joint.sum(0)).T
    np.testing.assert_allclose(found.probabilities, expected, atol=0.02)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-5)


def test_without_validation_a_part_of_train_chooses():
    config = config_of(data__validation_fraction=0.0)
    facts = relationship.use(prepare(config)).relationship.facts
    assert facts["chosen_by"] == "training images held out of the regression"
    assert facts["chosen_by_images"] == 20 and facts["images"] == 120
    assert 0 < facts["top1_accuracy"] <= 1


def test_held_out_of_every_class_of_two_or_more():
    labels = np.array([2, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 2])
    # Ten of class 0: the last two; one of class 1: none; three of class 2: the last.
    np.testing.assert_array_equal(np.flatnonzero(relationship.held_out(labels)), [11, 12, 13])


def test_one_image_of_each_class_chooses_no_regression(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    arrays = images, np.arange(4)
    config = config_of(
        data__validation_fraction=0.0,
        data__batch_size=4,
        data__examples_per_class=0,
    )
    with pytest.raises(InputError, match=r"nothing chooses the regression; expected .*direct"):
        tl_jax.finetune(config, tmp_path / "run", data={"train": arrays, "test": arrays})


def test_the_same_run_learns_the_same_bits():
    setups = [relationship.use(prepare(config_of())) for _ in range(2)]
    ours, theirs = (setup.relationship for setup in setups)
    np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    assert json.dumps(ours.facts) == json.dumps(theirs.facts)
    # Phases share what is learned alike.
    learned = {}
    first = relationship.use(prepare(config_of()), learned)
    second = relationship.use(prepare(config_of()), learned)
    assert len(learned) == 1 and first.relationship is second.relationship


def test_packaged_weights_on_digits(tmp_path):
    """The whole way, with 200 classes of the source for ten digits."""
    run = tl_jax.finetune(config_of(objective__lwf=1.0), tmp_path / "run")
    (facts,) = json.loads((pathlib.Path(run.workdir) / "relationship.json").read_text())
    assert facts["shape"] == [10, 200] and facts["method"] == "reverse"
    assert run.predict(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 10)
