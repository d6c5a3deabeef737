"""DELTA's attention: learned from the training images and the network of the start, once a run begins."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import tiny_config
from safetensors.numpy import load_file

from tl_jax import models
from tl_jax.augment.preprocessing import make_eval_transform
from tl_jax.errors import InputError
from tl_jax.runs import attention, together, training
from tl_jax.runs.pure_step import make_pure_step, make_transform
from tl_jax.runs.setup import check_config, prepare, prepare_phases
from tl_jax.training import loops, steps

pytestmark = pytest.mark.usefixtures("small_networks")

PLAIN = {
    "augment__flip": False,
    "augment__crop_padding": 0,
    "optim__learning_rate": 0.02,
    "train__updates_per_dispatch": 1,
}
ATTENTION = {"objective__delta": 0.5, "objective__delta_attention": True}


def config_of(**fields):
    return tiny_config(**{**PLAIN, **fields})


@pytest.fixture(scope="module")
def source(small_networks, tmp_path_factory):
    """Returns the folder of a finished run, whose statistics are those of darker images."""
    folder = tmp_path_factory.mktemp("source") / "run"
    training.run(config_of(preprocess__mean=(0.9, 0.9, 0.9)), folder)
    return str(folder)


def setup_of(**fields):
    (setup,) = prepare_phases(config_of(**fields))
    return setup


def lines_of(folder, split="train"):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]


def images_of(setup, examples):
    """Returns training images as they are evaluated."""
    return make_eval_transform(setup.preprocessing)(
        jnp.asarray(setup.splits["train"].gather(examples))
    )


def attention_by_hand(setup, boundary):
    """Returns the attention of a boundary: scikit-learn's probe, one pass for each channel, NumPy's softmax."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    labels, count = setup.splits["train"].labels, len(setup.splits["train"])
    variables = setup.initial.variables["params"], setup.initial.variables["batch_stats"]
    images = images_of(setup, np.arange(count))
    maps, _ = models.make_forward(setup.model, stop=boundary)(*variables, images, train=False)
    after = models.make_forward(setup.model, start=boundary, stop="pool")
    pooled = np.asarray(after(*variables, maps, train=False)[0], np.float64)
    probe = linear_model.LogisticRegression(C=1 / (1e-4 * count), tol=1e-8, max_iter=10_000)
    probe.fit(pooled, labels)

    def loss(maps):
        features = np.asarray(after(*variables, maps, train=False)[0], np.float64)
        return -np.mean(probe.predict_log_proba(features)[np.arange(count), labels])

    whole = loss(maps)
    increases = np.array(
        [loss(jnp.asarray(maps).at[..., c].set(0)) - whole for c in range(maps.shape[-1])]
    )
    standardised = (increases - increases.mean()) / increases.std() / 5
    return np.exp(standardised) / np.exp(standardised).sum()


def test_attention_by_hand(source):
    setup = setup_of(init__weights=source, **ATTENTION, data__examples_per_class=4)
    found, counts = attention.learn(setup, ("stem", "stage3", "pool"))
    assert counts == {"images": 40, "probe_images": 40}
    for boundary, shape in {"stem": 4, "stage3": 16}.items():
        expected = attention_by_hand(setup, boundary)
        assert found[boundary].shape == (shape,) and found[boundary].dtype == np.float32
        assert found[boundary].sum() == pytest.approx(1, rel=1e-6)
        np.testing.assert_allclose(found[boundary], expected, rtol=0.01, err_msg=boundary)
        assert expected.max() / expected.min() > 1.2
    # A removed channel of the last map is a removed feature.
    np.testing.assert_allclose(found["stage3"], found["pool"], rtol=1e-3)


def test_images_are_counted_to_the_most_and_filters_come_in_parts(source, monkeypatch):
    setup = setup_of(init__weights=source, **ATTENTION, data__examples_per_class=4)
    monkeypatch.setattr(attention, "MOST_IMAGES", 9)
    found, counts = attention.learn(setup, ("stage1",))
    assert counts == {"images": 9, "probe_images": 40}
    setup.config.data.eval_batch_size = 27  # three filters at a time, of four
    parts, _ = attention.learn(setup, ("stage1",))
    np.testing.assert_allclose(found["stage1"], parts["stage1"], rtol=1e-4)


def test_the_objective_of_a_run_has_the_attention(source, tmp_path):
    """The distance in the first update is that of NumPy's formula."""
    fields = {
        "init__weights": source,
        **ATTENTION,
        "objective__delta_boundaries": ("stage1", "stage2"),
    }
    result = training.run(config_of(**fields), tmp_path / "run")
    setup = setup_of(**fields)
    learned, counts = attention.learn(setup, ("stage1", "stage2"))
    rows = setup.order.examples(0)
    batch = {
        "image": jnp.asarray(setup.splits["train"].gather(rows)),
        "label": jnp.asarray(setup.splits["train"].labels[rows]),
        "position": jnp.arange(len(rows)),
    }
    images = steps.network_input(0, 0, batch, make_transform(setup))["image"]
    forward = models.make_tapped_forward(setup.model, ("stage1", "stage2"))
    given = setup.initial.variables["params"], setup.initial.variables["batch_stats"], images
    ours, theirs = forward(*given, train=True)[0], forward(*given, train=False)[0]
    expected = 0.0
    for name, weights in learned.items():
        squares = np.square(np.asarray(ours[name], np.float64) - np.asarray(theirs[name]))
        expected += 0.5 * len(weights) * (squares.mean((1, 2)) * weights).sum(-1).mean()
    first = lines_of(tmp_path / "run")[0]
    assert first["delta"] == pytest.approx(expected, rel=1e-4)
    uniform = jax.jit(make_pure_step(setup)(axis_name=None))(setup.initial_state_on_host(), batch)
    assert abs(float(uniform[1]["delta"]) / first["delta"] - 1) > 1e-3
    facts = result["delta_attention"]
    assert {name: facts[name] for name in counts} == counts == {"images": 20, "probe_images": 20}
    assert facts["boundaries"].keys() == learned.keys()
    for name, row in facts["boundaries"].items():
        assert row["channels"] == len(learned[name])
        assert row["channel"] == learned[name].argmax()
        assert (row["most"], row["least"]) == (learned[name].max(), learned[name].min())


def test_only_phases_that_ask_for_it_have_attention(source, tmp_path):
    fields = {"init__weights": source, "objective__delta": 0.5}
    phases = (
        ("train.steps=2", "objective.delta_boundaries=('stage1',)"),
        (
            "train.steps=2",
            "objective.delta_attention=True",
            "objective.delta_boundaries=('stage2',)",
        ),
    )
    config = config_of(**fields, phases=phases)
    first, second = attention.attended(prepare_phases(config))
    deltas = [
        next(term for _, term in setup.minimised.objective.terms if term.name == "delta")
        for setup in (first, second)
    ]
    assert (list(deltas[0].attention), list(deltas[1].attention)) == ([], ["stage2"])
    result = training.run(config, tmp_path / "whole")
    assert result["steps"] == 4 and list(result["delta_attention"]["boundaries"]) == ["stage2"]


def test_nothing_is_learned_where_nothing_asks(source, monkeypatch):
    monkeypatch.setattr(attention, "learn", None)
    phases = prepare_phases(config_of(init__weights=source, objective__delta=0.5))
    assert attention.attended(phases) == phases and attention.facts(phases) == {}


def test_a_resumed_run_is_the_same(source, tmp_path):
    fields = {"init__weights": source, **ATTENTION, "train__checkpoint_every_steps": 1}
    asked = iter([False] * 12 + [True] * 100)
    with pytest.raises(loops.Stopped):
        training.run(config_of(**fields), tmp_path / "run", lambda: next(asked))
    training.run(config_of(**fields), tmp_path / "run")
    training.run(config_of(**fields), tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "whole"))
    for leaf, value in ours.items():
        np.testing.assert_array_equal(value, theirs[leaf], err_msg=leaf)


def test_a_stop_while_attention_is_learned(source, tmp_path):
    with pytest.raises(loops.Stopped):
        training.run(config_of(init__weights=source, **ATTENTION), tmp_path / "run", lambda: True)
    assert not (tmp_path / "run" / "result.json").exists()


def test_alone_and_beside_stored_activations(source, tmp_path):
    """DELTA as the only term; on activations the same numbers as on images."""
    fields = {
        "init__weights": source,
        **ATTENTION,
        "freeze__strategy": "up_to:stage1",
        "objective__delta_boundaries": ("stage2", "stage3"),
    }
    training.run(config_of(**fields, cache__boundary="auto"), tmp_path / "stored")
    training.run(config_of(**fields), tmp_path / "images")
    ours, theirs = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("stored", "images")
    )
    for leaf, value in ours.items():
        np.testing.assert_allclose(value, theirs[leaf], err_msg=leaf, rtol=2e-4, atol=2e-5)
    only = {**fields, "objective__delta": 1.0, "objective__weight": 0.0}
    (begun,) = attention.attended([setup_of(**only)])
    assert set(begun.minimised.objective.attention) == {"stage2", "stage3"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"objective__delta_attention": True},
            "objective.delta_attention=True without objective.delta: no effect; expected a weight",
        ),
        (
            {"phases": (("train.steps=2", "objective.delta_attention=True"), ())},
            "phase 1: objective.delta_attention=True without objective.delta: no effect",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        check_config(config_of(**fields))


def test_several_processes_are_refused(source, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="learned by one process, not by 2"):
        check_config(config_of(init__weights=source, **ATTENTION))


def test_commands_that_would_leave_it_out(source):
    config = config_of(init__weights=source, **ATTENTION)
    with pytest.raises(InputError, match="delta_attention=True: only finetune, pretrain"):
        prepare(config)
    cached = config_of(**ATTENTION, freeze__strategy="up_to:stage1", cache__boundary="auto")
    assert together.why_alone(cached) == "attention that is learned"
