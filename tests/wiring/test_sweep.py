"""A member of a sweep is the run that its values describe; test accuracies belong to their members."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parts import nothing_compiled
from small import CACHED, QUIET, VIEWS, config_with

from tl_jax import models, porting, trees
from tl_jax.runs import activation_cache, members, sweep
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import prepare
from tl_jax.training import vmapped

pytestmark = pytest.mark.usefixtures("small_networks")

VALUES = {"learning_rate": 0.2, "weight_decay": 0.05, "label_smoothing": 0.2, "l2_sp": 0.3}
# Of the config, and what a sweep that ignored a value would take.
OWN = {"learning_rate": 0.1, "weight_decay": 1e-4, "label_smoothing": 0.0, "l2_sp": 0.0}
TRAINED = CACHED | {"freeze.strategy": "up_to:stage1"}


@pytest.fixture(scope="module")
def pretrained(small_networks, tmp_path_factory):
    """Returns a file of weights: the backbone is then the same for every seed."""
    variables = models.init_variables(models.create_model("resnet20_cifar", 7), jax.random.key(5))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    porting.save_state_dict(path, porting.export_state_dict(variables, naming="cifar"))
    return {"init.weights": str(path)}


def with_sweep(changes, **section):
    config = config_with(changes)
    config.sweep.update({"patience": 0, **section})
    return config


def made(config):
    with nothing_compiled():
        return activation_cache.use(prepare(sweep._run_config(config))), sweep.read_grid(config)


def three_updates(step, state, split, order):
    step = jax.jit(step)
    for number in range(3):
        rows = order.rows(number)
        batch = {
            "image": jnp.asarray(split.gather(rows) % 7 / 7),  # activations of a useful size
            "label": jnp.asarray(split.labels[rows]),
            "position": jnp.arange(len(rows), dtype=jnp.int32),
        }
        state, _ = step(state, batch)
    return trees.flatten(jax.device_get(state.params))


@pytest.fixture(scope="module")
def as_a_run(small_networks):
    """Returns where an ordinary run with `VALUES` is after three updates, by leaf name."""
    fields = {members.FIELDS[name]: value for name, value in VALUES.items()}
    with nothing_compiled():
        setup = activation_cache.use(prepare(config_with(TRAINED | fields)))
    step = make_pure_step(setup)(axis_name=None)
    return three_updates(step, setup.initial_state_on_host(), setup.inputs["train"], setup.order)


def as_a_member(config, **scalars):
    setup, grid = made(config)
    state, _ = members.start(setup, grid, setup.config.seed)
    make_step = members.make_train_step(setup, grid, state.params)
    scalars = {name: jnp.float32(value) for name, value in scalars.items()}
    return three_updates(make_step(scalars), state, setup.inputs["train"], setup.order)


@pytest.mark.parametrize("swept", [tuple(VALUES), ("learning_rate",)], ids=["swept", "fixed"])
def test_a_member_makes_the_updates_of_the_run(as_a_run, swept):
    """With values that are data of the program, and with values that are constants of it."""
    section = {
        name: (OWN[name], value) if name in swept else (value,) for name, value in VALUES.items()
    }
    found = as_a_member(with_sweep(TRAINED, **section), **{name: VALUES[name] for name in swept})
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, as_a_run[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", VALUES)
def test_every_value_counts(as_a_run, name):
    """The run is another one without it, so that the test above would notice."""
    section = {field: (value,) for field, value in (VALUES | {name: OWN[name]}).items()}
    config = with_sweep(TRAINED, **section)
    rate = section["learning_rate"][0]
    found = as_a_member(config, learning_rate=rate)
    assert max(np.abs(leaf - as_a_run[at]).max() for at, leaf in found.items()) > 1e-4


def test_a_member_mixes_as_the_run_does(small_networks):
    """The draws are those of seed and update, the same for every member of a seed."""
    mixed = TRAINED | {"augment.mixing": ("mixup=0.4", "mixup=2"), "objective.label_smoothing": 0.1}
    with nothing_compiled():
        setup = activation_cache.use(prepare(config_with(mixed)))
    run = three_updates(
        make_pure_step(setup)(axis_name=None),
        setup.initial_state_on_host(),
        setup.inputs["train"],
        setup.order,
    )
    config = with_sweep(mixed, learning_rate=(0.1, 0.2))
    for name, leaf in as_a_member(config, learning_rate=0.1).items():
        np.testing.assert_allclose(leaf, run[name], atol=1e-6, err_msg=name)
    unmixed = as_a_member(
        with_sweep(mixed | {"augment.mixing": ()}, learning_rate=(0.1, 0.2)), learning_rate=0.1
    )
    assert max(np.abs(leaf - run[name]).max() for name, leaf in unmixed.items()) > 1e-4


def test_a_member_weighs_classes_as_the_run_does(small_networks):
    """Where smoothing is data of the program, too; the classes of the first 40% are uneven."""
    uneven = {"data.examples_per_class": 0, "data.train_split": "train[:40%]"}
    weighted = TRAINED | uneven | {"objective.class_weighting": "effective"}
    with nothing_compiled():
        setup = activation_cache.use(
            prepare(config_with(weighted | {"objective.label_smoothing": 0.1}))
        )
    assert len(set(setup.minimised.class_weights)) > 3
    run = three_updates(
        make_pure_step(setup)(axis_name=None),
        setup.initial_state_on_host(),
        setup.inputs["train"],
        setup.order,
    )
    for changes, same in ((weighted, True), (TRAINED | uneven, False)):
        config = with_sweep(changes, label_smoothing=(0.0, 0.1))
        found = as_a_member(config, label_smoothing=0.1)
        difference = max(np.abs(leaf - run[name]).max() for name, leaf in found.items())
        assert (difference < 1e-6) == same


def test_every_view_has_the_label_of_its_example(monkeypatch):
    setup, grid = made(with_sweep(VIEWS | {"data.examples_per_class": 4}, width=1))
    given = {}

    def recorded(make_step, eval_step, states, values, data, schedule, **options):
        given.update(examples=data.examples)

    monkeypatch.setattr(vmapped, "train", recorded)
    members.train(setup, grid, [members.start(setup, grid, 0)[0]])
    inputs, labels = map(np.asarray, given["examples"])
    split, numbers = setup.splits["train"], setup.splits["train"].whole()[1]
    assert len(inputs) == len(labels) == 3 * len(split)
    for row, label in enumerate(labels):
        # An activation is the number of its view in the stored split, see `parts`.
        assert inputs[row, 0] == 3 * numbers[row // 3] + row % 3
        assert label == split.labels[row // 3]


def test_every_seed_has_its_own_head_and_order(monkeypatch, pretrained):
    setup, grid = made(with_sweep(CACHED | pretrained, seed=(0, 7), width=1))
    starts = [members.start(setup, grid, seed) for seed in grid.seeds]
    heads = [state.params["head"]["kernel"] for state, _ in starts]
    assert (np.asarray(heads[0]) != np.asarray(heads[1])).any()
    assert [int(state.seed) for state, _ in starts] == [0, 7]
    stems = [variables["params"]["stem"]["conv"]["kernel"] for _, variables in starts]
    np.testing.assert_array_equal(*stems)
    given = {}
    monkeypatch.setattr(
        vmapped, "train", lambda *arguments, **options: given.update(rows=arguments[4].batch_rows)
    )
    members.train(setup, grid, [state for state, _ in starts])
    for seed in grid.seeds:
        config = config_with(CACHED | pretrained | {"seed": seed})
        with nothing_compiled():
            order = prepare(config).order
        for step in range(4):
            np.testing.assert_array_equal(given["rows"](seed, step), order.rows(step))


def test_seeds_may_redraw_what_comes_after_the_boundary(pretrained):
    config = with_sweep(CACHED | pretrained | {"init.reset": ("head/.*",)}, seed=(0, 7))
    setup, grid = made(config)
    sweep._check(setup, grid)
    assert members.frozen_resets(setup) == []


@pytest.mark.parametrize("reset", [(), ("stage1/block0/conv1/kernel",)], ids=["random", "reset"])
def test_one_seed_draws_the_network_whose_activations_are_stored(pretrained, reset):
    """It need not be the config's: the backbone that is saved is the one that was measured."""
    changes = CACHED | ({"init.reset": reset} | pretrained if reset else {})
    setup, grid = made(with_sweep(changes, seed=(7,)))
    sweep._check(setup, grid)
    _, variables = members.start(setup, grid, 7)
    stored = trees.flatten(setup.initial.variables)
    for name, leaf in trees.flatten(variables).items():
        np.testing.assert_array_equal(leaf, stored[name], err_msg=name)


def test_test_accuracies_are_those_of_their_members(pretrained, monkeypatch, tmp_path):
    """One member learns next to nothing; its accuracy is not that of the chosen one."""
    train, seen = members.train, {}

    def recorded(setup, grid, states, **options):
        seen.update(setup=setup, found=train(setup, grid, states, **options))
        return seen["found"]

    monkeypatch.setattr(members, "train", recorded)
    changes = CACHED | QUIET | pretrained | {"data.examples_per_class": 6}
    config = with_sweep(changes, learning_rate=(1e-6, 0.3), seed=(0, 1), test="all")
    sweep.run(config, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "sweep.json").read_text())["members"]
    test = seen["setup"].inputs["test"]
    features = test.gather(np.arange(len(test)))
    accuracies = []
    for place in np.ndindex(2, 2):
        head = {name: leaf[place] for name, leaf in seen["found"].params["head"].items()}
        logits = features @ head["kernel"] + head["bias"]
        accuracies.append(float((logits.argmax(-1) == test.labels).mean()))
    assert [member["test_top1"] for member in told] == pytest.approx(accuracies, abs=0.002)
    assert len(set(accuracies)) > 1
