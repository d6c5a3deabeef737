"""Co-Tuning and Learning without Forgetting against NumPy versions of their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import objectives
from tl_jax.errors import InputError
from tl_jax.objectives import Outputs, Reference

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(6, 3)).astype(np.float32)
HEAD = {
    "kernel": RNG.normal(size=(3, 5)).astype(np.float32),
    "bias": RNG.normal(size=5).astype(np.float32),
}
SOURCE_LOGITS = 2 * RNG.normal(size=(6, 5)).astype(np.float32)
LABELS = np.array([0, 3, 1, 2, 2, 0], np.int32)


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(-1, keepdims=True)


RELATIONSHIP = softmax(RNG.normal(size=(4, 5))).astype(np.float32)
HEAD_LOGITS = FEATURES.astype(np.float64) @ HEAD["kernel"].astype(np.float64) + HEAD["bias"]


def outputs(**changes):
    given = {
        "logits": jnp.zeros((6, 4)),
        "labels": jnp.asarray(LABELS),
        "features": {"pool": jnp.asarray(FEATURES)},
        "own": {"source_head": jax.tree.map(jnp.asarray, HEAD)},
        "source": Reference(
            logits=jnp.asarray(SOURCE_LOGITS), relationship=jnp.asarray(RELATIONSHIP)
        ),
        **changes,
    }
    return Outputs(**given)


def co_tuning_of(targets):
    """Returns the second term of the paper's loss: cross-entropy with p(y_s | y_t) of every label."""
    total = 0.0
    for row, target in zip(HEAD_LOGITS, targets, strict=True):
        wanted = sum(share * RELATIONSHIP[label].astype(np.float64) for label, share in target)
        total -= (wanted * np.log(softmax(row))).sum()
    return total / len(targets)


def test_co_tuning_is_the_cross_entropy_with_the_relationship_of_each_label():
    value, metrics = objectives.CoTuning("pool")(outputs())
    assert float(value) == pytest.approx(co_tuning_of([[(y, 1)] for y in LABELS]), rel=1e-6)
    assert metrics == {}


def test_co_tuning_of_mixed_images_mixes_the_classes_of_the_source():
    mixed = 0.7 * np.eye(4)[LABELS] + 0.3 * np.eye(4)[LABELS[::-1]]
    soft = outputs(labels=None, soft_targets=jnp.asarray(mixed, jnp.float32))
    targets = [[(y, 0.7), (z, 0.3)] for y, z in zip(LABELS, LABELS[::-1], strict=True)]
    assert float(objectives.CoTuning("pool")(soft)[0]) == pytest.approx(
        co_tuning_of(targets), rel=1e-6
    )


def test_a_head_without_bias():
    found = objectives.head_logits({"kernel": jnp.asarray(HEAD["kernel"])}, jnp.asarray(FEATURES))
    np.testing.assert_allclose(found, HEAD_LOGITS - HEAD["bias"], rtol=1e-5, atol=1e-6)


def raised(probabilities, temperature):
    """Returns the modified probabilities of the paper, its equations 3 and 4."""
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.5])
def test_lwf_is_the_cross_entropy_of_modified_probabilities(temperature):
    recorded = raised(softmax(SOURCE_LOGITS), temperature)
    current = raised(softmax(HEAD_LOGITS), temperature)
    expected = -(recorded * np.log(current)).sum(-1).mean()
    value, metrics = objectives.LearningWithoutForgetting("pool", temperature)(outputs())
    assert float(value) == pytest.approx(expected, rel=1e-6) and metrics == {}


def test_the_temperature_is_2():
    default = objectives.LearningWithoutForgetting("pool")
    assert float(default(outputs())[0]) == float(
        objectives.LearningWithoutForgetting("pool", 2.0)(outputs())[0]
    )


def test_lwf_and_distillation_differ_by_a_factor_and_a_constant():
    temperature = 3.0
    forgetting = objectives.LearningWithoutForgetting("pool", temperature)
    distillation = objectives.Distillation(temperature)
    recorded = raised(softmax(SOURCE_LOGITS), temperature)
    entropy = -(recorded * np.log(recorded)).sum(-1).mean()
    taught = Outputs(
        jnp.asarray(HEAD_LOGITS, jnp.float32),
        jnp.asarray(LABELS),
        teacher=Reference(jnp.asarray(SOURCE_LOGITS)),
    )
    expected = temperature**2 * (float(forgetting(outputs())[0]) - entropy)
    assert float(distillation(taught)[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "term", [objectives.CoTuning("pool"), objectives.LearningWithoutForgetting("pool")]
)
def test_gradients_reach_features_and_head(term):
    def loss(features, head):
        return term(outputs(features={"pool": features}, own={"source_head": head}))[0]

    given = jnp.asarray(FEATURES), jax.tree.map(jnp.asarray, HEAD)
    for leaf in jax.tree.leaves(jax.grad(loss, argnums=(0, 1))(*given)):
        assert float(jnp.abs(leaf).max()) > 1e-4


def test_the_gradient_of_co_tuning_in_the_bias_by_hand():
    """It is the mean of the probabilities less the wanted ones."""

    def loss(bias):
        head = {"kernel": jnp.asarray(HEAD["kernel"]), "bias": bias}
        return objectives.CoTuning("pool")(outputs(own={"source_head": head}))[0]

    expected = (softmax(HEAD_LOGITS) - RELATIONSHIP[LABELS]).mean(0)
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(HEAD["bias"])), expected, atol=1e-6)


def test_what_the_terms_ask_for():
    co_tuning = objectives.CoTuning("pool")
    forgetting = objectives.LearningWithoutForgetting("pool")
    both = objectives.Sum(((1.0, objectives.CrossEntropy()), (2.3, co_tuning), (1.0, forgetting)))
    assert both.needs == ("source.head", "source.relationship", "source.logits")
    assert both.boundaries == ("pool",)
    # One head, which both train.
    assert list(objectives.params_of(both)) == ["source_head"]
    start = objectives.Start(4, {"pool": (3,)}, HEAD)
    made = objectives.init_params(both, jax.random.key(0), start)
    for name, leaf in HEAD.items():
        np.testing.assert_array_equal(made["source_head"][name], leaf)


@pytest.mark.parametrize("temperature", [0.0, -2.0])
def test_a_temperature_is_above_0(temperature):
    with pytest.raises(InputError, match=r"lwf_temperature is .*, expected a number above 0"):
        objectives.LearningWithoutForgetting("pool", temperature)
