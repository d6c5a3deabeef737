"""Every member equals the run it stands for, however members are grouped and whoever stops."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import freezing, models, objectives, optim
from tl_jax.data import order
from tl_jax.errors import InputError
from tl_jax.training import steps, vmapped
from tl_jax.training.state import TrainState
from tl_jax.training.vmapped import Data, Schedule

BATCH, EXAMPLES, HELD_OUT, CLASSES = 8, 50, 23, 5
TOTAL = 12
SEEDS = (3, 11)
COMBINATIONS = [
    {"learning_rate": 0.1, "weight_decay": 0.0, "label_smoothing": 0.0, "l2_sp": 0.0},
    {"learning_rate": 0.03, "weight_decay": 0.01, "label_smoothing": 0.1, "l2_sp": 0.1},
    {"learning_rate": 0.2, "weight_decay": 0.1, "label_smoothing": 0.0, "l2_sp": 0.0},
]


def _source(variables, images, inputs, features):
    return {"source": objectives.Reference(params=variables["source"]["params"])}


class Case:
    """A suffix of a small network, with examples at its boundary."""

    def __init__(self, start: str, name: str):
        self.model = models.resnet.ResNet(
            (1, 1), "basic", CLASSES, stem_kind="cifar", width=4, shortcut="pad"
        )
        groups = self.model.boundaries[models.segment(self.model, start, None)[0] :]
        self.forward = models.make_forward(self.model, start=start)
        self.groups = [group for group in groups if group != "pool"]
        self.name = name
        # AdamW divides by sqrt(v) + eps. Where convolutions have gradients that are rounding error and
        # nothing else (3e-8, of at most 2e-3 here), the default eps of 1e-8 makes updates of it.
        self.eps = 1e-8 if start == "pool" else 1e-3
        self.solo_steps = {}
        shape = (8,) if start == "pool" else (8, 8, 4)
        rng = np.random.default_rng(0)
        labels = rng.integers(0, CLASSES, EXAMPLES + HELD_OUT).astype(np.int32)
        inputs = rng.normal(size=(len(labels), *shape)).astype(np.float32)
        inputs += rng.normal(size=(CLASSES, *shape)).astype(np.float32)[labels]
        self.examples = (jnp.asarray(inputs[:EXAMPLES]), jnp.asarray(labels[:EXAMPLES]))
        self.validation = (inputs[EXAMPLES:], labels[EXAMPLES:])
        self.eval_step = steps.make_eval_step(self.forward, lambda inputs: inputs)

    def suffix(self, tree):
        return {group: tree[group] for group in self.groups if group in tree}

    def make(self, scalars, params):
        mask = freezing.frozen_mask(params)
        schedule = optim.make_schedule("cosine", scalars["learning_rate"], TOTAL, warmup_steps=2)
        tx = optim.make_optimizer(
            params,
            schedule,
            optim.Rule(name=self.name, eps=self.eps, weight_decay=scalars["weight_decay"]),
            undecayed=objectives.L2SP.pulled(params, scalars["l2_sp"]),
            frozen_mask=mask,
        )
        step = steps.make_train_step(
            steps.Passes(self.forward, references=_source),
            lambda key, position, inputs: inputs,
            tx,
            frozen_mask=mask,
            objective=objectives.Sum(
                (
                    (1.0, objectives.CrossEntropy(scalars["label_smoothing"])),
                    (scalars["l2_sp"], objectives.L2SP()),
                )
            ),
        )
        return step, tx

    def state(self, seed, scalars=COMBINATIONS[1]):
        variables = models.init_variables(self.model, jax.random.key(seed))
        params = self.suffix(variables["params"])
        return TrainState(
            jnp.int32(0),
            jnp.int32(seed),
            params,
            self.suffix(variables["batch_stats"]),
            self.make(scalars, params)[1].init(params),
            references={"source": {"params": params}},
        )

    def solo(self, seed, scalars, updates=TOTAL):
        """Returns the state of the ordinary run with these numbers."""
        state = self.state(seed, scalars)
        step = self.solo_steps.setdefault(
            tuple(scalars.values()), jax.jit(self.make(scalars, state.params)[0])
        )
        for update in range(updates):
            rows = batch_rows(seed, update)
            batch = vmapped._gather(self.examples, jnp.asarray(rows))
            state, _ = step(state, batch)
        return state

    def population(self, combinations=COMBINATIONS, seeds=SEEDS, width=64, **lengths):
        params = self.state(0).params
        lengths = {"total_steps": TOTAL, "updates_per_dispatch": 5} | lengths
        return vmapped.train(
            lambda scalars: self.make(scalars, params)[0],
            self.eval_step,
            [self.state(seed) for seed in seeds],
            {name: np.array([c[name] for c in combinations]) for name in combinations[0]},
            Data(self.examples, batch_rows, self.validation, eval_batch_size=10),
            Schedule(width=width, **lengths),
        )


def batch_rows(seed, step):
    return order.Order(seed, BATCH, EXAMPLES).examples(step)


@functools.cache
def case(start="pool", name="sgd"):
    return Case(start, name)


def difference(members, place, state):
    """Returns the largest difference between a member's weights and statistics and a state's.

    Relative to the largest value of the leaf where that is above 1: running variances are squares of
    activations, up to 19 here.
    """
    given = jax.tree.leaves((members.params, members.batch_stats))
    wanted = jax.tree.leaves((state.params, state.batch_stats))
    return max(
        float(np.abs(a[place] - np.asarray(b)).max() / max(1, np.abs(b).max()))
        for a, b in zip(given, wanted, strict=True)
    )


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("start", "lengths", "tolerance"),
    [
        pytest.param("pool", {"updates_per_dispatch": 5}, 1e-6, id="linear probe"),
        pytest.param("pool", {"updates_per_dispatch": 1}, 1e-6, id="linear probe, step by step"),
        pytest.param("stage1", {"updates_per_dispatch": 1}, 1e-5, id="deeper"),
    ],
)
def test_every_member_equals_its_solo_run(start, name, lengths, tolerance):
    members = case(start, name).population(**lengths)
    assert (members.best_step == TOTAL).all()
    for (row, seed), (column, scalars) in itertools.product(
        enumerate(SEEDS), enumerate(COMBINATIONS)
    ):
        solo = case(start, name).solo(seed, scalars)
        assert difference(members, (row, column), solo) <= tolerance


@pytest.mark.parametrize("width", [4, 3, 2, 1])
def test_groups_change_nothing_but_the_memory(width):
    whole, parts = case().population(eval_every=4), case().population(eval_every=4, width=width)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_array_equal(whole.best_step, parts.best_step)
    np.testing.assert_array_equal(whole.best_top1, parts.best_top1)
    assert whole.history["train_loss"].shape == (3, 2, 3)
    for name, values in whole.history.items():
        np.testing.assert_allclose(values, parts.history[name], atol=1e-6, err_msg=name)


def test_off_the_cpu_every_dispatch_has_as_many_turns(monkeypatch):
    """Of 12 updates, evaluated after 7, dispatches have 5, 2 and 5: the program never asks how many."""
    lengths = {"updates_per_dispatch": 5, "eval_every": 7}
    expected = case().population(**lengths)
    monkeypatch.setattr(vmapped.cpu, "in_use", lambda: False)
    monkeypatch.setattr(jax.lax, "fori_loop", None)
    found = case().population(**lengths)
    for one, other in zip(
        jax.tree.leaves((found.params, found.history)),
        jax.tree.leaves((expected.params, expected.history)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_best_evaluation_is_kept_and_its_accuracy_is_that_of_its_weights():
    members = case().population(eval_every=2)
    np.testing.assert_array_equal(members.steps, [2, 4, 6, 8, 10, 12])
    top1 = members.history["validation_top1"]
    first_best = members.steps[top1.argmax(0)]
    np.testing.assert_array_equal(members.best_step, first_best)
    np.testing.assert_allclose(members.best_top1, top1.max(0))
    for place in itertools.product(range(2), range(3)):
        solo = case().solo(SEEDS[place[0]], COMBINATIONS[place[1]], int(members.best_step[place]))
        assert difference(members, place, solo) <= 1e-6
        inputs, labels = case().validation
        logits, _ = case().forward(solo.params, {}, inputs, train=False)
        assert members.best_top1[place] == (np.asarray(logits).argmax(-1) == labels).mean()


def test_a_member_that_stops_stays_as_it_is_and_stops_nobody_else():
    still = COMBINATIONS[0] | {"learning_rate": 0.0}
    members = case().population([still, COMBINATIONS[0]], eval_every=2, patience=2)
    alone = case().population([COMBINATIONS[0]], eval_every=2, patience=2)
    # Never better than at its first evaluation: stopped by the second one after it.
    np.testing.assert_array_equal(members.best_step[:, 0], [2, 2])
    np.testing.assert_array_equal(members.stopped_at[:, 0], [6, 6])
    assert np.isnan(members.history["train_loss"][3:, :, 0]).all()
    for seed, place in zip(SEEDS, [(0, 0), (1, 0)], strict=True):
        assert difference(members, place, case().state(seed)) == 0
    np.testing.assert_array_equal(members.stopped_at[:, 1:], alone.stopped_at)
    for a, b in zip(jax.tree.leaves(members.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(a[:, 1:], b, atol=1e-6)


def test_nothing_is_dispatched_once_all_have_stopped():
    seen = []
    still = COMBINATIONS[0] | {"learning_rate": 0.0}
    params = case().state(0).params
    members = vmapped.train(
        lambda scalars: case().make(scalars, params)[0],
        case().eval_step,
        [case().state(3)],
        {name: np.array([value]) for name, value in still.items()},
        Data(case().examples, batch_rows, case().validation),
        Schedule(1000, eval_every=2, patience=1, updates_per_dispatch=2),
        show=lambda group, groups, step: seen.append((group, groups, step)),
    )
    # Stopped by the second evaluation; the host learns of it while the third is under way.
    assert seen == [(0, 1, 2), (0, 1, 4), (0, 1, 6)]
    assert members.stopped_at == 4


def test_a_member_that_diverges_is_told_and_harms_nobody():
    wild = COMBINATIONS[0] | {"learning_rate": 1e38}
    members = case().population([COMBINATIONS[1], wild], eval_every=3)
    np.testing.assert_array_equal(members.diverged, [[False, True]] * 2)
    assert (members.best_step[:, 1] == 0).all() and (members.best_top1[:, 1] == 0).all()
    assert (members.stopped_at == [[TOTAL, 3]] * 2).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(members.params))
    alone = case().population([COMBINATIONS[1]], eval_every=3)
    for a, b in zip(jax.tree.leaves(members.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(a[:, :1], b, atol=1e-6)


def test_it_stops_on_request():
    params = case().state(0).params
    stopped = vmapped.train(
        lambda scalars: case().make(scalars, params)[0],
        case().eval_step,
        [case().state(3)],
        {name: np.array([value]) for name, value in COMBINATIONS[0].items()},
        Data(case().examples, batch_rows, case().validation),
        Schedule(TOTAL, eval_every=2),
        stop_requested=lambda: True,
    )
    assert stopped is None


@pytest.mark.parametrize(
    ("seeds", "combinations", "width", "expected"),
    [
        (4, 16, 64, (4, 16)),
        (4, 16, 1000, (4, 16)),
        (4, 16, 63, (2, 16)),
        (4, 16, 16, (1, 16)),
        (4, 16, 15, (1, 8)),
        (3, 5, 10, (2, 5)),
        (1, 1, 1, (1, 1)),
    ],
)
def test_group_shape(seeds, combinations, width, expected):
    assert vmapped.group_shape(seeds, combinations, width) == expected


def test_the_width_that_fits():
    assert vmapped.members_that_fit(1000, 100, 9, 64) == 64
    assert vmapped.members_that_fit(1000, 100, 90, 64) == 10
    with pytest.raises(InputError, match="100 bytes for the examples and 901 for a member"):
        vmapped.members_that_fit(1000, 100, 901, 64)
    state = case().state(0)
    # Kernel and bias of the head: with momentum, the best ones and those of the source four times; step, seed
    # and two counts.
    held = 4 * (8 * 5 + 5) * 4
    assert held < vmapped.member_bytes(state, 0) <= held + 64
    assert vmapped.member_bytes(state, 1000) == vmapped.member_bytes(state, 0) + 1000


def test_a_schedule_out_of_range():
    with pytest.raises(InputError) as caught:
        Schedule(0, eval_every=-1, width=0)
    for line in ("total_steps is 0", "eval_every is -1", "width is 0"):
        assert line in str(caught.value)
