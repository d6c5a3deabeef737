"""Objectives against numbers worked out by hand, NumPy versions of the papers, and PyTorch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import objectives
from tl_jax.errors import InputError
from tl_jax.models import adapters
from tl_jax.objectives import Outputs, Reference

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32)
OTHERS = RNG.normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 3, 1, 2, 2, 0], np.int32)


def outputs(**changes):
    given = {"logits": jnp.asarray(LOGITS), "labels": jnp.asarray(LABELS), **changes}
    return Outputs(**given)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_with_labels_and_with_targets(smoothing):
    term = objectives.CrossEntropy(smoothing)
    one_hot = np.eye(4)[LABELS]
    wanted = (1 - smoothing) * one_hot + smoothing / 4
    expected = -(wanted * log_softmax(LOGITS.astype(np.float64))).sum(-1).mean()
    assert float(term(outputs())[0]) == pytest.approx(expected, rel=1e-6)
    mixed = 0.7 * one_hot + 0.3 * one_hot[::-1]
    soft = outputs(labels=None, soft_targets=jnp.asarray(mixed, jnp.float32))
    wanted = (1 - smoothing) * mixed + smoothing / 4
    expected = -(wanted * log_softmax(LOGITS.astype(np.float64))).sum(-1).mean()
    assert float(term(soft)[0]) == pytest.approx(expected, rel=1e-6)


CLASS_WEIGHTS = (0.5, 2.0, 0.0, 1.5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_mean_of_weighted_losses_is_over_examples(smoothing):
    term = objectives.CrossEntropy(smoothing, CLASS_WEIGHTS)
    one_hot = np.eye(4)[LABELS]
    log_probs = log_softmax(LOGITS.astype(np.float64))
    mixed = 0.7 * one_hot + 0.3 * one_hot[::-1]
    soft = outputs(labels=None, soft_targets=jnp.asarray(mixed, jnp.float32))
    for given, targets in ((outputs(), one_hot), (soft, mixed)):
        wanted = (1 - smoothing) * targets + smoothing / 4
        expected = -(np.array(CLASS_WEIGHTS) * wanted * log_probs).sum() / 6
        assert float(term(given)[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pytorch_divides_by_the_weights_of_the_batch(smoothing):
    """The same sum: only what it is divided by differs."""
    torch = pytest.importorskip("torch")
    loss = torch.nn.CrossEntropyLoss(torch.tensor(CLASS_WEIGHTS), label_smoothing=smoothing)
    theirs = loss(torch.from_numpy(LOGITS), torch.from_numpy(LABELS.astype(np.int64)))
    ours, _ = objectives.CrossEntropy(smoothing, CLASS_WEIGHTS)(outputs())
    weights = np.array(CLASS_WEIGHTS)[LABELS].sum()
    assert float(ours) * 6 == pytest.approx(float(theirs) * weights, rel=1e-6)


def test_accuracy_counts_the_largest_target():
    logits = jnp.asarray([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]])
    assert float(Outputs(logits, jnp.array([0, 1, 0])).accuracy()) == pytest.approx(2 / 3)
    targets = jnp.array([[0.6, 0.4, 0], [0.6, 0.4, 0], [0, 0.3, 0.7]])
    assert float(Outputs(logits, None, targets).accuracy()) == pytest.approx(2 / 3)


def test_targets_of_labels():
    np.testing.assert_array_equal(outputs().targets, np.eye(4)[LABELS])


def test_l2_sp_by_hand():
    params = {
        "stage1": {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([3.0])},
        "head": {"kernel": jnp.array([9.0])},
    }
    start = {
        "stage1": {"kernel": jnp.array([0.5, 2.0]), "bias": jnp.array([5.0])},
        "head": {"kernel": jnp.array([0.0])},
    }

    def value(params):
        return objectives.L2SP()(outputs(params=params, source=Reference(params=start)))[0]

    assert float(value(params)) == pytest.approx(
        0.5 * (0.25 + 4.0)
    )  # biases count, the head does not
    grads = jax.grad(value)(params)
    np.testing.assert_array_equal(grads["stage1"]["kernel"], [0.5, 0.0])
    np.testing.assert_array_equal(grads["stage1"]["bias"], [-2.0])
    np.testing.assert_array_equal(grads["head"]["kernel"], [0.0])


def test_l2_sp_leaves_adapters_to_weight_decay():
    """They are new, as the head is: the source has no values of them to stay near."""
    added = dict.fromkeys(adapters.NAMES, False)
    conv = {name: jnp.ones(2) for name in ("kernel", *added)}
    params = {"stage1": {"conv": conv}, "head": {"kernel": jnp.ones(2)}}
    start = jax.tree.map(jnp.zeros_like, params)
    value, _ = objectives.L2SP()(outputs(params=params, source=Reference(params=start)))
    assert float(value) == 1.0  # of the kernel alone: (1 + 1) / 2
    pulled = objectives.L2SP.pulled(params, 0.1)
    assert pulled["stage1"]["conv"] == {"kernel": True, **added}


def delta_in_numpy(ours, theirs, attention):
    """Returns DELTA of one boundary as its authors' code has it, for maps [B, H, W, C], divided by B."""
    total = 0.0
    for mine, reference in zip(ours.astype(np.float64), theirs.astype(np.float64), strict=True):
        height, width, channels = mine.shape
        for c in range(channels):
            distance = np.linalg.norm(mine[..., c] - reference[..., c])
            total += 0.5 * channels * attention[c] * distance**2 / (height * width)
    return total / len(ours)


@pytest.mark.parametrize("uniform", [True, False])
def test_delta_equals_its_authors_formula(uniform):
    maps = {
        name: [RNG.normal(size=(6, side, side, 5)).astype(np.float32) for _ in range(2)]
        for name, side in (("stage1", 4), ("stage2", 2))
    }
    attention = {name: np.full(5, 0.2) for name in maps}
    if not uniform:
        attention["stage1"] = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    given = {} if uniform else {"stage1": jnp.asarray(attention["stage1"], jnp.float32)}
    term = objectives.Delta(("stage1", "stage2"), given)
    value, _ = term(
        outputs(
            features={name: jnp.asarray(pair[0]) for name, pair in maps.items()},
            source=Reference(features={name: jnp.asarray(pair[1]) for name, pair in maps.items()}),
        )
    )
    expected = sum(delta_in_numpy(*pair, attention[name]) for name, pair in maps.items())
    assert float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_in_numpy(temperature):
    term = objectives.Distillation(temperature)
    value, _ = term(outputs(teacher=Reference(jnp.asarray(OTHERS))))
    ours, theirs = (log_softmax(x.astype(np.float64) / temperature) for x in (LOGITS, OTHERS))
    expected = temperature**2 * (np.exp(theirs) * (theirs - ours)).sum(-1).mean()
    assert float(value) == pytest.approx(expected, rel=1e-6)
    same, _ = term(outputs(teacher=Reference(jnp.asarray(LOGITS))))
    assert float(same) == pytest.approx(0.0, abs=1e-6)


def test_distillation_equals_pytorch():
    torch = pytest.importorskip("torch")
    from torch.nn import functional

    value, _ = objectives.Distillation(3.0)(outputs(teacher=Reference(jnp.asarray(OTHERS))))
    reference = functional.kl_div(
        functional.log_softmax(torch.tensor(LOGITS) / 3, -1),
        functional.softmax(torch.tensor(OTHERS) / 3, -1),
        reduction="batchmean",
    )
    assert float(value) == pytest.approx(9 * float(reference), rel=1e-5)


def test_a_temperature_that_is_not_positive():
    with pytest.raises(InputError, match=r"temperature is 0.0, expected a number above 0"):
        objectives.Distillation(0.0)


def test_terms_add_up_with_their_weights():
    def constant(value, name, **attributes):
        return objectives.Own(
            lambda outputs: (jnp.float32(value), {f"{name}_more": jnp.float32(value + 1)}),
            name,
            **attributes,
        )

    terms = objectives.Sum(
        (
            (1.0, constant(2.0, "first", boundaries=("stage1",))),
            (
                0.5,
                constant(3.0, "second", needs=("teacher.logits",), boundaries=("stage1", "pool")),
            ),
            (jnp.float32(2.0), constant(5.0, "third", needs=("source.params",))),
        )
    )
    total, metrics = terms(outputs())
    assert float(total) == 2.0 + 1.5 + 10.0
    assert {name: float(value) for name, value in metrics.items()} == {
        "first": 2.0,
        "second": 3.0,
        "third": 5.0,
        "first_more": 3.0,
        "second_more": 4.0,
        "third_more": 6.0,
    }
    assert terms.needs == ("teacher.logits", "source.params")
    assert terms.boundaries == ("stage1", "pool")
    assert terms.name == "first + second + third"


def test_a_single_term_is_the_loss_alone():
    _, metrics = objectives.Sum(((0.5, objectives.CrossEntropy()),))(outputs())
    assert metrics == {}


def test_registered_objectives_and_bad_ones(monkeypatch):
    from tl_jax.objectives import contract

    monkeypatch.setattr(contract, "_REGISTERED", {})

    def margin(outputs):
        return outputs.logits.max(-1).mean(), {}

    objectives.register("margin", margin)
    assert objectives.registered("margin") is margin
    assert objectives.list_objectives() == ["cross_entropy", "margin"]
    objectives.register("margin", margin)  # the same one again
    other = objectives.Own(margin)
    with pytest.raises(InputError, match=r"an objective 'margin' is registered already.*replace=T"):
        objectives.register("margin", other)
    objectives.register("margin", other, replace=True)
    assert objectives.registered("margin") is other
    for replace in (False, True):
        with pytest.raises(InputError, match="an objective 'cross_entropy' is registered already"):
            objectives.register("cross_entropy", margin, replace=replace)
    with pytest.raises(
        InputError, match=r"need of objective 'bad' 'source.weights'.*source\.params"
    ):
        objectives.register("bad", objectives.Own(margin, "bad", needs=("source.weights",)))
    with pytest.raises(InputError, match=r"boundary of objective 'deep' 'stage9'.*stage1"):
        objectives.check_boundaries(
            objectives.Own(margin, "deep", boundaries=("stage9",)), ("stage1", "pool")
        )


def test_l2_is_the_weighted_sum_of_squares_of_chosen_leaves():
    params = {"stage1": {"kernel": jnp.array([1.0, -2.0])}, "head": {"bias": jnp.array([3.0])}}
    term = objectives.L2({"stage1/kernel": 0.5, "head/bias": 0.1, "stem/kernel": 9.0})
    value, metrics = term(outputs(params=params))
    assert float(value) == pytest.approx(0.5 * 5 + 0.1 * 9, rel=1e-6) and metrics == {}
    gradient = jax.grad(lambda tree: term(outputs(params=tree))[0])(params)
    np.testing.assert_allclose(gradient["stage1"]["kernel"], [1.0, -2.0], rtol=1e-6)
