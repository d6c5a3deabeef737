"""Objectives, averages, caches and own optimizers where they meet each other and phases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import numpy as safetensors_numpy

import tl_jax
from tl_jax import trees
from tl_jax.runs import averages, evaluate
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import prepare, prepare_phases
from tl_jax.training import norm_statistics
from tl_jax.training.busy_time import BusyTime

pytestmark = pytest.mark.usefixtures("small_networks")

BASE = {
    "model__name": "resnet20_cifar",
    "data__name": "digits",
    "data__image_size": 8,
    "data__examples_per_class": 6,
    "data__batch_size": 20,
    "data__cache_dir": "",
    "parallel__devices": 1,
    "augment__flip": False,
    "augment__crop_padding": 0,
    "train__steps": 4,
    "train__eval_every_steps": 2,
    "train__updates_per_dispatch": 1,
    "optim__schedule": "constant",
    "optim__learning_rate": 0.05,
    "cache__dir": "",
    "report__html": False,
    "report__tensorboard": False,
}


def config_of(**fields):
    return tl_jax.default_config(**{**BASE, **fields})


def weights_of(run):
    return safetensors_numpy.load_file(run.workdir / "weights.safetensors")


@pytest.fixture(scope="module")
def plain(small_networks, tmp_path_factory):
    return tl_jax.finetune(config_of(), tmp_path_factory.mktemp("plain") / "run")


def batch_of(setup):
    rows = setup.order.rows(setup.first_step)
    return {
        "image": jnp.asarray(setup.splits["train"].gather(rows)),
        "label": jnp.asarray(setup.splits["train"].labels[rows]),
        "position": jnp.arange(len(rows)),
    }


def test_every_phase_has_its_own_objective_average_and_augmentation():
    config = config_of(
        phases=(
            ("train.steps=4", "average.name=ema", "objective.label_smoothing=0.1"),
            (
                "train.steps=8",
                "average.name=swa",
                "objective.delta=0.5",
                "augment.mixing=mixup=0.2",
            ),
        )
    )
    first, second = prepare_phases(config)
    assert (first.averaging.name, second.averaging.name) == ("ema", "swa")
    assert first.minimised.objective.label_smoothing == 0.1
    assert second.minimised.objective.name == "cross_entropy + delta"
    assert first.mixing is None and second.mixing is not None
    # SWA samples from three quarters of its phase on: after 4 + 6 updates of the run.
    assert second.averaging.first == 10


def test_the_source_is_the_start_of_the_run_in_every_phase(plain):
    """Though the second phase begins elsewhere, and shares no prefix: its frozen part has moved by then."""
    phases = (
        ("freeze.strategy=none", "train.steps=2"),
        ("freeze.strategy=up_to:stage1", "train.steps=2", "objective.delta=1.0"),
    )
    _, second = prepare_phases(config_of(phases=phases, init__weights=str(plain.workdir)))
    start = second.initial.variables
    moved = jax.tree.map(lambda leaf: leaf * 1.5, start["params"])
    import dataclasses

    second = dataclasses.replace(second, start={**start, "params": moved})
    state = second.initial_state_on_host()
    found = trees.flatten(state.references["source"]["params"])
    for name, leaf in trees.flatten(start["params"]).items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)
    _, metrics = jax.jit(make_pure_step(second)(axis_name=None))(state, batch_of(second))
    # The frozen stem and stage 1 differ from the source's, and count.
    assert float(metrics["delta"]) > 1e-3


def test_the_best_state_of_an_earlier_phase_is_averaged_as_that_phase_averages(tmp_path):
    """The second phase ruins the network, so that an evaluation of the first one is the best."""
    phases = (
        ("train.steps=6", "average.name=swa", "average.start=0.3", "average.every_steps=1"),
        ("train.steps=2", "optim.learning_rate=50.0"),
    )
    config = config_of(phases=phases, train__eval_every_steps=3)
    run = tl_jax.finetune(config, tmp_path / "run")
    assert run.result["selected_step"] <= 6
    alone = tl_jax.finetune(
        config_of(
            train__steps=6,
            train__eval_every_steps=3,
            average__name="swa",
            average__start=0.3,
            average__every_steps=1,
        ),
        tmp_path / "alone",
    )
    assert run.result["averaged"] == alone.result["averaged"]
    assert run.result["selected_step"] == alone.result["selected_step"]
    for name, leaf in weights_of(alone).items():
        np.testing.assert_array_equal(weights_of(run)[name], leaf, err_msg=name)


def test_one_sample_is_no_better_than_the_live_weights(tmp_path):
    """SWA's first sample is the last state itself, so that the live weights are reported on."""
    fields = {"average__name": "swa", "average__start": 0.99, "average__every_steps": 1}
    fields["freeze__strategy"] = "backbone"  # no statistics to estimate
    run = tl_jax.finetune(config_of(**fields, train__eval_every_steps=0), tmp_path / "run")
    assert run.result["averaged"] is False
    assert run.result["selection"].startswith("the live weights of")


def test_a_checkpoint_of_an_averaged_run_is_its_live_weights(tmp_path):
    fields = {"data__validation_fraction": 0.0}
    averaged = {"average__name": "swa", "average__start": 0.3, "average__every_steps": 1}
    run = tl_jax.finetune(config_of(**fields, **averaged), tmp_path / "run")
    live = tl_jax.finetune(config_of(**fields), tmp_path / "live")
    assert run.result["averaged"] is True
    found = evaluate.evaluate_run(run.workdir, "latest", tmp_path / "latest")
    assert found["splits"]["test"]["loss"] == pytest.approx(
        live.result["splits"]["test"]["loss"], rel=1e-6
    )
    assert found["selection"].startswith("the live weights of the latest checkpoint")


@pytest.mark.parametrize("frozen", ["none", "up_to:stage1"])
def test_statistics_of_an_average_are_those_of_an_epoch(frozen):
    config = config_of(average__name="swa", freeze__strategy=frozen, data__examples_per_class=10)
    setup = prepare(config)
    state = setup.initial_state_on_host()
    state = state.replace(average=state.average | {"count": jnp.int32(1)})
    with BusyTime() as busy:
        candidate = averages.make_candidate(setup, busy)(state)
    assert busy.seconds > 0
    from tl_jax import models
    from tl_jax.augment import preprocessing

    forward = models.make_forward(setup.model, frozen_norms=setup.optimisation.frozen_norms)
    transform = preprocessing.make_eval_transform(setup.preprocessing)
    step = norm_statistics.make_statistics_step(forward, transform, setup.averaging.statistics)
    split = setup.inputs["train"]
    count = len(split) // setup.order.batch_size
    assert count > 1
    batches = [{"image": split.gather(setup.order.rows(number))} for number in range(count)]
    expected = norm_statistics.estimate(jax.jit(step), state.params, state.batch_stats, batches)
    for name, leaf in trees.flatten(expected).items():
        found = trees.flatten(candidate["batch_stats"])[name]
        np.testing.assert_allclose(found, leaf, rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_average_on_stored_activations(plain, tmp_path):
    fields = {
        "init__weights": str(plain.workdir),
        "freeze__strategy": "up_to:stage1",
        "data__validation_fraction": 0.0,
        "average__name": "swa",
        "average__start": 0.3,
        "average__every_steps": 1,
    }
    images = tl_jax.finetune(config_of(**fields), tmp_path / "images")
    stored = tl_jax.finetune(config_of(**fields, cache__boundary="stage1"), tmp_path / "stored")
    assert images.result["averaged"] and stored.result["averaged"]
    for name, leaf in weights_of(images).items():
        np.testing.assert_allclose(
            weights_of(stored)[name], leaf, rtol=1e-3, atol=1e-4, err_msg=name
        )


def test_an_epoch_between_samples_by_default():
    setup = prepare(config_of(average__name="swa", data__batch_size=10))
    assert setup.averaging.every == len(setup.splits["train"]) // 10


def test_a_teacher_answers_in_the_order_of_the_students_classes(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(90, dtype=np.int32) % 3
    images = (rng.integers(0, 60, (90, 8, 8, 3)) + 60 * labels[:, None, None, None]).astype(
        np.uint8
    )
    fields = {"data__batch_size": 12, "data__examples_per_class": 0}
    teacher = tl_jax.finetune(
        config_of(**fields),
        tmp_path / "teacher",
        data=(images, labels),
        class_names=("a", "b", "c"),
    )
    other = (labels + 1) % 3  # a, b, c are 1, 2, 0 here
    config = config_of(
        **fields, objective__distillation=1.0, objective__teacher=str(teacher.workdir)
    )
    from tl_jax import data
    from tl_jax.augment import preprocessing
    from tl_jax.runs.objective import make_passes
    from tl_jax.runs.parts import Parts

    source = data.Arrays.split_off_test(images, other, ("c", "a", "b"))
    config.data.name = source.name
    setup = prepare(config, Parts(source))
    passes = make_passes(setup.minimised, setup.model, setup.preprocessing, start=None, prefix=None)
    inputs = preprocessing.make_eval_transform(setup.preprocessing)(jnp.asarray(images[:9]))
    references = setup.initial_state_on_host().references
    logits = passes.references(references, inputs, inputs, {})["teacher"].logits
    np.testing.assert_allclose(
        jax.nn.softmax(logits), teacher.predict(images[:9])[:, [2, 0, 1]], rtol=2e-4, atol=1e-6
    )


def test_another_teacher_in_its_folder_is_noticed(plain, tmp_path):
    import shutil

    teacher = tmp_path / "teacher"
    shutil.copytree(plain.workdir, teacher)
    config = config_of(objective__distillation=0.5, objective__teacher=str(teacher))
    config.train.checkpoint_every_steps = 1

    def interrupt(step, split, metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tl_jax.finetune(config, tmp_path / "run", callbacks=[interrupt])
    shutil.copy(
        tl_jax.finetune(config_of(seed=5), tmp_path / "other").workdir / "weights.safetensors",
        teacher,
    )
    with pytest.raises(tl_jax.errors.InputError, match="other weights of its teacher"):
        tl_jax.finetune(config, tmp_path / "run")


def test_an_own_optimizer_moves_what_is_trained_at_the_rate_of_the_schedule(plain, tmp_path):
    fields = {
        "init__weights": str(plain.workdir),
        "freeze__strategy": "up_to:stage1",
        "optim__schedule": "cosine",
        "optim__lr_multipliers": ("head/.*=3",),
        "optim__clip_norm": 0.5,
    }
    ours = tl_jax.finetune(
        config_of(**fields, optim__momentum=0.0, optim__weight_decay=0.0), tmp_path / "ours"
    )
    own = tl_jax.finetune(config_of(**fields), tmp_path / "own", optimizer=optax.sgd)
    for name, leaf in weights_of(ours).items():
        np.testing.assert_allclose(weights_of(own)[name], leaf, rtol=1e-5, atol=1e-6, err_msg=name)
    setup = prepare(config_of(**fields))
    # A run with an own optimizer and objective is evaluated without them.
    assert tl_jax.evaluate(own, tmp_path / "evaluated")["splits"]["test"]["loss"] == pytest.approx(
        own.result["splits"]["test"]["loss"], rel=1e-5
    )
    assert setup.optimisation.multipliers["head"]["kernel"] == 3.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (optax.adam(1e-3), "expected a function from the schedule to an optax transformation"),
        ("adam", "optimizer is str, expected a function from the schedule"),
    ],
)
def test_an_optimizer_that_is_none(given, message, tmp_path):
    with pytest.raises(tl_jax.errors.InputError, match=message):
        tl_jax.finetune(config_of(), tmp_path / "run", optimizer=given)


def test_fields_that_an_own_optimizer_does_not_read(tmp_path):
    with pytest.raises(tl_jax.errors.InputError, match=r"optim\.momentum=0\.5: of sgd and adamw"):
        tl_jax.finetune(config_of(optim__momentum=0.5), tmp_path / "run", optimizer=optax.lion)


def test_a_phase_may_name_another_rule_than_the_own_one():
    from tl_jax.runs.parts import Parts

    config = config_of(optim__name="own:lion", phases=((), ("optim.name=adamw", "optim.b1=0.8")))
    first, second = prepare_phases(config, Parts(optimizer=optax.lion))
    params = first.initial.variables["params"]
    states = [
        [leaf for leaf in jax.tree.leaves(setup.optimisation.tx.init(params)) if leaf.ndim]
        for setup in (first, second)
    ]
    assert len(states[1]) == 2 * len(states[0])  # AdamW keeps two moments, lion one


def test_weight_decay_is_the_heads_alone_beside_l2_sp(plain):
    """From the start, with a gradient of 0: what moves is moved by weight decay."""
    config = config_of(
        init__weights=str(plain.workdir), objective__l2_sp=0.1, optim__weight_decay=0.5
    )
    setup = prepare(config)
    params = setup.initial.variables["params"]
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = setup.optimisation.tx.update(zeros, setup.optimisation.tx.init(params), params)
    for name, leaf in trees.flatten(updates).items():
        assert bool(np.any(leaf)) == (name == "head/kernel"), name


def test_delta_compares_maps_with_height_and_width():
    from tl_jax.runs.objective import make_objective

    for name, expected in {
        "vgg11": ("stage1", "stage2", "stage3", "stage4", "stage5"),
        "resnet20_cifar": ("stem", "stage1", "stage2", "stage3"),
    }.items():
        setup_model = tl_jax.models.create_model(name, 10)
        config = config_of(objective__delta=0.1, model__name=name, data__image_size=32)
        assert make_objective(config, setup_model).boundaries == expected


def test_runs_with_swa_are_not_extended(tmp_path):
    fields = {"average__name": "swa", "data__validation_fraction": 0.0}
    tl_jax.finetune(config_of(**fields), tmp_path / "run")
    with pytest.raises(tl_jax.errors.InputError, match=r"average\.start is a share of the run"):
        tl_jax.finetune(config_of(**fields, train__steps=8), tmp_path / "run")


def test_bad_objectives_are_named(tmp_path):
    cases = {
        "per image": (
            lambda o: (o.logits.max(-1), {}),
            r"value has shape \[20\], expected a scalar",
        ),
        "no metrics": (lambda o: o.logits.mean(), r"an array of shape \[\], expected \(scalar"),
        "taken": (lambda o: (o.logits.mean(), {"loss": 1.0}), "loss is measured already"),
        "vector": (lambda o: (o.logits.mean(), {"m": o.logits[0]}), r"m has shape \[10\]"),
    }
    for name, (function, message) in cases.items():
        with pytest.raises(tl_jax.errors.InputError, match=message):
            tl_jax.finetune(config_of(), tmp_path / name, objective=function)
        assert not (tmp_path / name).exists()
    with pytest.raises(tl_jax.errors.InputError, match=r"names are for config\.objective\.name"):
        tl_jax.finetune(config_of(), tmp_path / "text", objective="cross_entropy")
