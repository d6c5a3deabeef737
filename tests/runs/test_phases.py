"""Runs in phases: what each of them does, proves and leaves; one that is cut short goes on to the same bits."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from running import assert_same_bits, metric_lines, tiny_config

from tl_jax import ablation, checkpointing, config, trees
from tl_jax.checkpointing import Checkpointer
from tl_jax.config import gradual_unfreezing, lp_ft
from tl_jax.data.order import Order
from tl_jax.errors import InputError
from tl_jax.runs import (
    activation_banks,
    evaluate,
    memory_plan,
    phases,
    probe,
    profile,
    sweep,
    training,
)
from tl_jax.runs.setup import prepare_phases
from tl_jax.runs.stopping import StopRequests
from tl_jax.runs.updates import FrozenChanged
from tl_jax.training import loops
from tl_jax.training.evaluator import Evaluator

pytestmark = pytest.mark.usefixtures("small_networks")

PLAIN = {
    "augment__crop_padding": 0,
    "augment__flip": False,
    "train__updates_per_dispatch": 1,
    "train__eval_every_epochs": 0.0,
    "optim__learning_rate": 0.05,
}
HELD_OUT = {"data__validation_fraction": 0.1}
# A probe on stored features, then all of the network.
LP_FT = lp_ft(("train.steps=4",), ("train.steps=6", "optim.learning_rate=0.01"))
# All of it, then what lies behind stage 1, on stored activations of the network that phase 1 trained.
FT_CACHED = (
    ("train.steps=4",),
    ("train.steps=6", "freeze.strategy=up_to:stage1", "cache.boundary=stage1"),
)


def config_of(given=(), **fields):
    return tiny_config(**PLAIN | {"phases": given} | fields)


def latest(run):
    return trees.flatten(checkpointing.restore_params(run / "checkpoints", "latest"))


def assert_equal(given, wanted):
    assert given.keys() == wanted.keys()
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(given[name], leaf, err_msg=name)


def largest_difference(run, other):
    given, wanted = latest(run), latest(other)
    return max(float(np.abs(given[name] - wanted[name]).max()) for name in wanted)


def test_a_phase_is_a_run_from_the_weights_of_the_one_before_it(tmp_path, monkeypatch):
    """Of the same examples: those of the updates that the whole run has made by then."""
    own = (
        ("train.steps=4", "optim.schedule=constant"),
        ("freeze.strategy=up_to:stage1", "optim.name=adamw", "optim.learning_rate=0.01"),
    )
    result = training.run(config_of(own), tmp_path / "whole")
    first = config_of(train__steps=4, optim__schedule="constant")
    training.run(first, tmp_path / "first")
    rows_of = Order.rows_of
    monkeypatch.setattr(
        Order, "rows_of", lambda self, step, updates: rows_of(self, step + 4, updates)
    )
    second = config_of(
        freeze__strategy="up_to:stage1",
        optim__name="adamw",
        optim__learning_rate=0.01,
        init__weights=str(tmp_path / "first"),
        init__head="keep",
    )
    training.run(second, tmp_path / "second")
    assert_equal(latest(tmp_path / "whole"), latest(tmp_path / "second"))
    assert result["steps"] == result["selected_step"] == 10
    # The learning rate and all else that is logged, by the update of the phase.
    logged = [
        {**line, "step": line["step"] + offset}
        for name, offset in (("first", 0), ("second", 4))
        for line in metric_lines(tmp_path / name)
    ]
    assert metric_lines(tmp_path / "whole") == logged


def test_a_run_of_one_phase_is_a_run_without_phases(tmp_path):
    plain = training.run(config_of(train__steps=4), tmp_path / "plain")
    one = training.run(config_of((("train.steps=4",),)), tmp_path / "one")
    assert_equal(latest(tmp_path / "one"), latest(tmp_path / "plain"))
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("plain", "one")]
    assert files[0] == files[1] and phases.PHASES_FILE not in files[0]
    assert [len(result["phases"]) for result in (plain, one)] == [1, 1]
    assert plain["phases"][0]["frozen"] == plain["frozen"]


def test_what_a_result_says_of_its_phases(tmp_path):
    result = training.run(config_of(LP_FT, **HELD_OUT), tmp_path / "run")
    rows = result["phases"]
    assert [(row["phase"], row["first_step"], row["last_step"]) for row in rows] == [
        (1, 0, 4),
        (2, 4, 10),
    ]
    assert rows[0]["cache"]["boundary"] == "pool" and rows[1]["cache"] is None
    assert [row["assignments"] for row in rows] == [list(one) for one in LP_FT]
    assert rows[0]["trainable"] == 170 and rows[1]["trainable"] == 5006
    assert rows[0]["frozen"] == {"frozen_leaves": 21, "frozen_statistics": 14, "changed": []}
    assert rows[1]["frozen"] == {"frozen_leaves": 0, "frozen_statistics": 0, "changed": []}
    assert result["frozen"] == rows[0]["frozen"]  # each leaf once, in however many phases
    assert all(row["seconds"] > 0 for row in rows)
    assert sum(row["seconds"] for row in rows) == pytest.approx(result["wall_seconds"])
    stored = rows[0]["cache"]["seconds"]
    assert 0 < stored < rows[0]["seconds"]
    # Of the updates alone: 10, of 10 images each.
    assert result["images_per_second"] == pytest.approx(100 / (result["wall_seconds"] - stored))
    assert sum(row["trainable"] for row in result["parameters"]) == 5006
    # Every phase evaluates its last update; updates count through.
    lines = metric_lines(tmp_path / "run")
    assert [line["step"] for line in lines if line["split"] == "validation"] == [4, 10]
    assert [line["step"] for line in lines if line["split"] == "train"] == list(range(1, 11))
    rates = [line["learning_rate"] for line in lines if line["split"] == "train"]
    assert rates[0] == pytest.approx(0.05) and rates[4] == pytest.approx(0.01)
    assert rates[3] == pytest.approx(0.05 * 0.5 * (1 + np.cos(np.pi * 3 / 4)))
    assert "the best top-1 on" in result["selection"]


def test_the_report_shows_several_phases(tmp_path):
    html = {}
    for name, given in {"two": FROZEN, "one": ()}.items():
        training.run(config_of(given, report__html=True), tmp_path / name)
        html[name] = (tmp_path / name / "report.html").read_text()
    assert "<h2>Phases</h2>" in html["two"] and "<h2>Phases</h2>" not in html["one"]
    for cell in (
        "1 to 4",
        "5 to 10",
        "train.steps=6, freeze.strategy=up_to:stage1",
        "170",
        "4,586",
    ):
        assert cell in html["two"], cell


@pytest.mark.parametrize("given", [LP_FT, FT_CACHED], ids=["first", "second"])
def test_a_phase_on_activations_is_the_phase_on_images(tmp_path, given):
    """Those of a later phase are of the network as it is then, not as it was at the start."""
    uncached = tuple(tuple(one for one in phase if not one.startswith("cache.")) for phase in given)
    stored = training.run(config_of(given, **HELD_OUT), tmp_path / "stored")
    plain = training.run(config_of(uncached, **HELD_OUT), tmp_path / "plain")
    assert largest_difference(tmp_path / "stored", tmp_path / "plain") <= 1e-5
    for split in ("validation", "test"):
        one, other = stored["splits"][split], plain["splits"][split]
        assert one["top1_accuracy"] == other["top1_accuracy"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert [row["cache"] and row["cache"]["boundary"] for row in stored["phases"]] == [
        "pool" if given is LP_FT else None,
        None if given is LP_FT else "stage1",
    ]


def test_cache_verify_counts_from_the_start_of_its_phase(tmp_path):
    result = training.run(config_of(FT_CACHED, cache__verify=3), tmp_path / "run")
    assert result["cache"]["verified"]["updates"] == 3
    assert result["cache"]["verified"]["largest_difference"] <= 1e-5


@pytest.mark.parametrize(
    ("given", "best"), [(LP_FT, 4), (FT_CACHED, 2)], ids=["lp_ft", "then cached"]
)
def test_the_best_state_may_be_of_an_earlier_phase(tmp_path, monkeypatch, given, best):
    first = [0.9, 0.2] if best == 2 else [0.2, 0.9]
    script = itertools.chain(first, [0.3, 0.4, 0.5], itertools.repeat(0.1))
    call = Evaluator.__call__

    def scripted(self, params, batch_stats, split):
        measured, logits = call(self, params, batch_stats, split)
        if len(split) != 500:
            measured = {**measured, "top1_accuracy": next(script)}
        return measured, logits

    monkeypatch.setattr(Evaluator, "__call__", scripted)
    monkeypatch.setattr(Evaluator, "measure", lambda *given, **named: scripted(*given, **named)[0])
    fields = HELD_OUT | {"train__eval_every_steps": 2}
    result = training.run(config_of(given, **fields), tmp_path / "run")
    # Evaluated after 2 and 4 updates of phase 1, and after 2, 4 and 6 of phase 2.
    lines = [line for line in metric_lines(tmp_path / "run") if line["split"] == "validation"]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10]
    assert result["selected_step"] == best
    monkeypatch.undo()
    # Measured on images, as the checkpoint is; the activations of phase 2 are of another network.
    again = evaluate.evaluate_run(tmp_path / "run", "best", tmp_path / "again")
    assert again["splits"]["test"]["loss"] == result["splits"]["test"]["loss"]


@pytest.fixture(scope="module")
def uninterrupted(small_networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    runs = {"lp_ft": LP_FT, "then cached": FT_CACHED}
    for name, given in runs.items():
        training.run(config_of(given, **HELD_OUT), folder / name)
    return {name: (given, folder / name) for name, given in runs.items()}


def assert_goes_on(given, run, whole):
    result = training.run(config_of(given, **HELD_OUT), run)
    assert_same_bits(run, whole)
    assert metric_lines(run) == metric_lines(whole)
    assert result["frozen"]["changed"] == [] and len(result["phases"]) == 2
    assert all(row["seconds"] >= 0 for row in result["phases"])
    return result


@pytest.mark.parametrize("name", ["lp_ft", "then cached"])
@pytest.mark.parametrize("step", [1, 3, 4, 5, 9])
def test_a_run_that_is_stopped_goes_on(uninterrupted, tmp_path, monkeypatch, name, step):
    given, whole = uninterrupted[name]
    seen, stop = [0], StopRequests.stop

    def stopping(self, at):
        answer = stop(self, at)
        seen.append(at)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(StopRequests, "stop", stopping)
        with pytest.raises(loops.Stopped) as raised:
            training.run(config_of(given, **HELD_OUT), tmp_path / "run", lambda: step - 1 in seen)
    # Asked, too, while activations are computed: before the first update of the phase.
    while_computing = {("lp_ft", 1), ("then cached", 5)}
    saved = step - 1 if (name, step) in while_computing else step
    assert raised.value.step == saved
    result = assert_goes_on(given, tmp_path / "run", whole)
    assert result["resumed_at_step"] == saved


class Killed(BaseException):
    """Ends a run where it is: nothing more is written."""


def kill_in(patch, owner, name, when=lambda *given: True, after=False):
    """Ends the run where a function is called, or has done its work, for the first time that `when` holds."""
    function = getattr(owner, name)

    def killing(*given, **named):
        if not after and when(*given):
            raise Killed
        result = function(*given, **named)
        if after and when(*given):
            raise Killed
        return result

    patch.setattr(owner, name, killing)


KILLS = {
    "after the checkpoint at the border": (
        Checkpointer,
        "save",
        lambda self, state, metrics=None: int(state.step) == 4,
        True,
    ),
    "before phase 1 is proved": (
        phases.PhaseRecords,
        "finish",
        lambda self, number, *_: True,
        False,
    ),
    "after phase 1 is proved": (phases.PhaseRecords, "finish", lambda self, number, *_: True, True),
    "before phase 2 is noted": (
        phases.PhaseRecords,
        "begin",
        lambda self, number, *_: number == 1,
        False,
    ),
    "after phase 2 is noted": (
        phases.PhaseRecords,
        "begin",
        lambda self, number, *_: number == 1,
        True,
    ),
    "while phase 2 stores activations": (
        activation_banks,
        "_storage",
        lambda setup, banks: setup.first_step == 4,
        True,
    ),
    "before phase 2 is proved": (
        phases.PhaseRecords,
        "finish",
        lambda self, number, *_: number == 1,
        False,
    ),
}


@pytest.mark.parametrize("place", KILLS)
def test_a_run_that_is_killed_between_phases_goes_on(uninterrupted, tmp_path, monkeypatch, place):
    given, whole = uninterrupted["then cached"]
    owner, name, when, after = KILLS[place]
    with monkeypatch.context() as patch:
        kill_in(patch, owner, name, when, after)
        with pytest.raises(Killed):
            training.run(config_of(given, **HELD_OUT), tmp_path / "run")
    assert_goes_on(given, tmp_path / "run", whole)


def test_a_damaged_checkpoint_of_phase_2_falls_back_to_phase_1(
    uninterrupted, tmp_path, monkeypatch
):
    given, whole = uninterrupted["lp_ft"]
    stop = StopRequests.stop
    with monkeypatch.context() as patch, pytest.raises(loops.Stopped):
        patch.setattr(StopRequests, "stop", lambda self, at: stop(self, at) or at == 7)
        training.run(config_of(given, **HELD_OUT), tmp_path / "run")
    steps = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert steps[0] == 4 and steps[-1] > 4
    for step in steps[1:]:
        (tmp_path / "run" / "checkpoints" / str(step) / "checkpoint.json").write_text("{}")
    with pytest.warns(UserWarning, match="skipped the damaged checkpoint"):
        result = training.run(config_of(given, **HELD_OUT), tmp_path / "run")
    assert result["resumed_at_step"] == 4
    assert_equal(latest(tmp_path / "run"), latest(whole))


def changed_stem(state):
    """Returns the state with another first kernel."""
    stem = state.params["stem"]
    kernel = {"kernel": stem["conv"]["kernel"] + 1}
    return state.replace(params={**state.params, "stem": {**stem, "conv": kernel}})


def plant(patch, at):
    """Makes the loop begin a phase, after `at` updates, with a kernel that its start did not have."""
    train = loops.train

    def changing(state, *given):
        return train(changed_stem(state) if int(state.step) == at else state, *given)

    patch.setattr(loops, "train", changing)


FROZEN = (
    ("train.steps=4", "freeze.strategy=backbone"),
    ("train.steps=6", "freeze.strategy=up_to:stage1"),
)


def test_a_change_of_what_phase_1_froze_ends_the_run(tmp_path, monkeypatch):
    plant(monkeypatch, 0)
    with pytest.raises(FrozenChanged, match="phase 1: frozen, but changed: stem/conv/k"):
        training.run(config_of(FROZEN), tmp_path / "run")
    assert metric_lines(tmp_path / "run")[-1]["step"] == 4
    assert not (tmp_path / "run" / "result.json").exists()
    # Nor does it go on when started again.
    with pytest.raises(FrozenChanged, match="phase 1: frozen, but changed"):
        training.run(config_of(FROZEN), tmp_path / "run")


def test_a_change_of_what_phase_2_froze_is_found(tmp_path, monkeypatch):
    plant(monkeypatch, 4)
    with pytest.raises(FrozenChanged, match="changed: stem/conv/kernel in phase 2"):
        training.run(config_of(FROZEN), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [row["frozen"]["changed"] for row in result["phases"]] == [[], ["stem/conv/kernel"]]


def test_a_change_is_found_by_a_process_that_did_not_see_the_start(tmp_path, monkeypatch):
    seen = []
    with monkeypatch.context() as patch:
        plant(patch, 4)
        with pytest.raises(loops.Stopped) as raised:
            training.run(
                config_of(FROZEN), tmp_path / "run", lambda: seen.append(0) or len(seen) == 6
            )
    assert raised.value.step == 6
    with pytest.raises(FrozenChanged, match="changed: stem/conv/kernel in phase 2"):
        training.run(config_of(FROZEN), tmp_path / "run")


def test_a_phase_may_train_what_an_earlier_one_froze(tmp_path):
    result = training.run(config_of(FROZEN), tmp_path / "run")
    before, after = (trees.flatten(one) for one in (result["phases"][0], result["phases"][1]))
    assert before["frozen/changed"] == after["frozen/changed"] == []
    assert before["frozen/frozen_leaves"] > after["frozen/frozen_leaves"] > 0


def test_without_the_digests_of_its_start_a_phase_does_not_go_on(tmp_path):
    seen = []
    with pytest.raises(loops.Stopped):
        training.run(config_of(FROZEN), tmp_path / "run", lambda: seen.append(0) or len(seen) == 6)
    (tmp_path / "run" / "phases.json").unlink()
    with pytest.raises(InputError, match=r"phases\.json does not hold the start of phase 2"):
        training.run(config_of(FROZEN), tmp_path / "run")


def test_gradual_unfreezing_moves_one_boundary_more_in_each_phase(tmp_path, monkeypatch):
    given = gradual_unfreezing(("stem", "stage1", "stage2", "stage3"), ("train.steps=2",))
    saved, save = {}, Checkpointer.save

    def recorded(self, state, *more, **options):
        saved[int(state.step)] = trees.flatten(state.params)
        saved[int(state.step)] = {
            name: np.array(leaf) for name, leaf in saved[int(state.step)].items()
        }
        save(self, state, *more, **options)

    monkeypatch.setattr(Checkpointer, "save", recorded)
    result = training.run(config_of(given), tmp_path / "run")
    first = result["phases"][0][
        "frozen"
    ]  # what later phases freeze is among what the first one does
    assert result["frozen"] == first and first["frozen_leaves"] > 0
    start = prepare_phases(config_of(given))[0].initial.variables["params"]
    states = [trees.flatten(start), *(saved[step] for step in (2, 4, 6, 8, 10))]
    groups = ("head", "stage3", "stage2", "stage1", "stem")
    for number, (before, after) in enumerate(itertools.pairwise(states), 1):
        moved = {name for name in after if not np.array_equal(before[name], after[name])}
        assert moved == {name for name in after if name.split("/")[0] in groups[:number]}


def test_the_memory_of_every_phase_is_counted_before_the_first_one_begins(tmp_path, monkeypatch):
    counted, checked = [], memory_plan.checked_items

    def refusing(setup, how):
        counted.append(setup.first_step)
        if setup.first_step:
            raise InputError("the run needs 9 GiB")
        return checked(setup, how)

    monkeypatch.setattr(memory_plan, "checked_items", refusing)
    with pytest.raises(InputError, match=r"^phase 2: the run needs 9 GiB"):
        training.run(config_of(FROZEN), tmp_path / "run")
    assert counted == [0, 4] and not (tmp_path / "run").exists()


def test_the_memory_plan_is_that_of_the_phase_that_needs_most(tmp_path):
    training.run(config_of(FROZEN), tmp_path / "small_first")
    training.run(config_of(tuple(reversed(FROZEN))), tmp_path / "large_first")
    plans = [
        json.loads((tmp_path / name / "memory.json").read_text())
        for name in ("small_first", "large_first")
    ]
    moments = [
        next(row["bytes"] for row in plan if row["what"].startswith("optimizer")) for plan in plans
    ]
    assert moments[0] == moments[1] > 4 * 170


BAD = {
    "another section": (
        (("train.steps=1",), ("model.name=resnet18",)),
        "phase 2: model.name=resnet18: model.name is of the whole run; a phase may set fields of freeze, optim, "
        "train, cache, augment, objective",
    ),
    "the seed": ((("seed=1",),), "phase 1: seed=1: seed is of the whole run"),
    "phases": ((("phases=()",),), "phase 1: phases=(): phases is of the whole run"),
    "determinism": (
        (("train.deterministic=True",),),
        "phase 1: train.deterministic=True: train.deterministic is of the whole run, not of a phase",
    ),
    "no such field": (
        (("optim.lr=1",),),
        "phase 1: unknown config field 'optim.lr'; nearest: optim.learning_rate",
    ),
    "no assignment": ((("freeze",),), "phase 1: 'freeze': expected FIELD=VALUE"),
    "type": ((("train.steps=many",),), "phase 1: train.steps=many: expected an integer"),
    "twice": (
        (("train.steps=1", "train.steps=2"),),
        "phase 1: train.steps is set twice",
    ),
    "range": (
        (("train.steps=1",), ("optim.momentum=2",)),
        "phase 2: optim.momentum=2.0: expected a number in [0, 1)",
    ),
    "strategy": (
        (("train.steps=1",), ("freeze.strategy=up_to:stage9",)),
        "phase 2: freeze.strategy='up_to:stage9'",
    ),
    "length": ((("train.steps=0",),), "phase 1: train.steps=0, train.epochs=0: exactly one must"),
    "boundary": ((("cache.boundary=stage9",),), "phase 1: unknown cache.boundary 'stage9'"),
    "inexact cache": (
        (("train.steps=1",), ("cache.boundary=auto",)),
        "phase 2: cache.boundary=auto would not be exact",
    ),
    "augmented cache": (
        (("freeze.strategy=backbone", "cache.boundary=auto", "augment.flip=True"),),
        "phase 1: cache.views=1 stores every image as it is",
    ),
    "warm-up": (
        (("train.steps=4",), ("train.steps=4", "optim.warmup_steps=5")),
        "phase 2: optim.warmup_steps=5: longer than the run",
    ),
    "accumulation": (
        (("train.steps=4",), ("optim.accumulation=3",)),
        "phase 2: optim.accumulation=3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_phase_is_said_before_anything_is_written(tmp_path, name):
    given, message = BAD[name]
    with pytest.raises(InputError) as raised:
        training.run(config_of(given), tmp_path / "run")
    assert str(raised.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_all_problems_of_all_phases_are_listed():
    given = config_of((("seed=1", "optim.lr=1"), ("data.name=digits",)))
    with pytest.raises(InputError) as raised:
        config.check(given)
    lines = str(raised.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["phase 1", "phase 1", "phase 2"]


@pytest.mark.parametrize("kind", [sweep, probe, profile])
def test_other_commands_refuse_phases(tmp_path, kind):
    run = profile.profile if kind is profile else kind.run
    message = (
        r"^phases=\(\('train.steps=4',\),\): only finetune, pretrain, compare and cross_validate train in phases, "
        "and preview_augment shows them"
    )
    with pytest.raises(InputError, match=message):
        run(config_of((("train.steps=4",),), **HELD_OUT), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_phases_is_not_extended(tmp_path):
    fields = {"optim__schedule": "constant"}
    training.run(config_of((("train.steps=2",), ()), train__steps=2, **fields), tmp_path / "run")
    with pytest.raises(InputError, match="cannot be extended: it has phases"):
        training.run(
            config_of((("train.steps=2",), ()), train__steps=3, **fields), tmp_path / "run"
        )


def test_phases_read_back_from_json_are_the_same_run(tmp_path):
    training.run(config_of(FROZEN), tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["phases"] == [list(one) for one in FROZEN]
    again = config.completed(stored)
    assert [one.freeze.strategy for one in config.phase_configs(again)] == [
        "backbone",
        "up_to:stage1",
    ]
    assert training.run(again, tmp_path / "run")["status"] == "finished"
    evaluated = evaluate.evaluate_run(tmp_path / "run", None, tmp_path / "again")
    assert evaluated["splits"]["test"]["examples"] == 500


def test_a_length_in_updates_takes_the_place_of_one_in_epochs():
    given = config_of(
        (("train.steps=4",), (), ("optim.warmup_steps=1",), ("train.eval_every_epochs=2",)),
        train__steps=0,
        train__epochs=3.0,
        optim__warmup_epochs=1.0,
        train__eval_every_steps=7,
    )
    found = config.phase_configs(given)
    assert [(one.train.steps, one.train.epochs) for one in found] == [(4, 0.0), *[(0, 3.0)] * 3]
    warmup = [(one.optim.warmup_steps, one.optim.warmup_epochs) for one in found]
    assert warmup == [(0, 1.0), (0, 1.0), (1, 0.0), (0, 1.0)]
    assert [one.train.eval_every_steps for one in found] == [7, 7, 7, 0]
    assert all(one.phases == () for one in found) and given.train.epochs == 3.0
    setups = prepare_phases(given)
    assert [(one.first_step, one.total_steps) for one in setups] == [
        (0, 4),
        (4, 10),
        (10, 16),
        (16, 22),
    ]
    assert [one.intervals.goes_on for one in setups] == [True, True, True, False]


def test_which_phase_a_step_belongs_to():
    setups = prepare_phases(config_of(FROZEN))
    assert [phases.number_at(setups, step) for step in (0, 1, 4, 5, 10, 11)] == [0, 0, 0, 1, 1, 1]
    traces = [len(trees.flatten(dataclasses.asdict(one.state_shapes)["params"])) for one in setups]
    assert traces[0] == traces[1]


def test_gradual_unfreezing_and_its_errors():
    assert gradual_unfreezing(("stem", "stage1", "stage2"), ("optim.momentum=0",)) == (
        ("freeze.strategy=backbone", "optim.momentum=0"),
        ("freeze.strategy=up_to:stage1", "optim.momentum=0"),
        ("freeze.strategy=up_to:stem", "optim.momentum=0"),
        ("freeze.strategy=none", "optim.momentum=0"),
    )
    for wrong in [(), ("stem", "head"), ("stem", "stem")]:
        with pytest.raises(InputError, match="expected the parts of the backbone"):
            gradual_unfreezing(wrong)


@pytest.mark.parametrize("fields", [{"repeats": 2}, {"once": True}], ids=str)
def test_lp_ft_of_a_run_whose_images_come_several_times_or_alike(fields):
    """Its first phase stores every image as it is; one that says so itself is refused."""
    (name, value), *_ = fields.items()
    run = {"augment__flip": True, f"augment__{name}": value}
    probe_phase, tuned = prepare_phases(config_of(LP_FT, **run))
    assert (probe_phase.order.repeats, probe_phase.config.augment.once) == (1, False)
    assert (tuned.order.repeats, tuned.config.augment.once) == (
        fields.get("repeats", 1),
        fields.get("once", False),
    )
    wrong = lp_ft((f"augment.{name}={value}",))
    with pytest.raises(InputError, match=rf"phase 1: augment\.{name}={value}"):
        prepare_phases(config_of(wrong, **run))


def test_lp_ft_as_a_method_of_a_comparison(tmp_path):
    given = config_of(**HELD_OUT)
    given.compare.seeds, given.compare.baseline = (0,), "full_finetune"
    given.compare.methods = {"full_finetune": (), "lp_ft": (f"phases={LP_FT}",)}
    rows = ablation.run(ablation.spec_of(given), tmp_path / "run")["runs"]
    assert [row["variant"] for row in rows] == ["full_finetune", "lp_ft"]
    result = json.loads((tmp_path / "run" / rows[1]["run"] / "result.json").read_text())
    assert [row["last_step"] for row in result["phases"]] == [4, 10]
    given.compare.methods = {"lp_ft": (f"phases={(('model.name=x',),)}",)}
    given.compare.baseline = "lp_ft"
    with pytest.raises(InputError, match=r"lp_ft, .*seed 0: phase 1: model\.name=x"):
        ablation.run(ablation.spec_of(given), tmp_path / "other")
