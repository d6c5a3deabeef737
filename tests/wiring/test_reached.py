"""Fields that change no number reach what they are for: whom they would speed up, what they would keep."""

import types

import numpy as np
import pytest
from parts import nothing_compiled
from PIL import Image
from small import CACHED, QUIET, config_with

from tl_jax.checkpointing import Checkpointer
from tl_jax.runs import activation_cache, dispatch, evaluate, members, sweep, training
from tl_jax.runs.setup import prepare
from tl_jax.training import evaluator, vmapped

pytestmark = pytest.mark.usefixtures("small_networks")

WORKERS = {"data.workers": 3, "data.placement": "host"}


class Reached(Exception):
    """Ends a command where it has come far enough."""


@pytest.fixture
def told(monkeypatch):
    """Replaces functions of modules and keeps what they are given, by their names.

    A replacement returns `answer`, or raises it.
    """
    given, options = {}, {}

    def listen(module, name, answer):
        def replacement(*arguments, **named):
            given[name], options[name] = arguments, named
            if isinstance(answer, type):
                raise answer
            return answer

        monkeypatch.setattr(module, name, replacement)

    return types.SimpleNamespace(listen=listen, given=given, options=options)


def test_workers_read_the_batches_of_training(told):
    with nothing_compiled():
        plan = dispatch.make(prepare(config_with(WORKERS)))
    told.listen(dispatch.stream, "batches", Reached)
    with pytest.raises(Reached), plan.open_feed(0, 3):
        pass
    assert told.options["batches"]["workers"] == 3


def test_workers_read_the_batches_of_evaluation(told):
    with nothing_compiled():
        setup = prepare(config_with(WORKERS))
    told.listen(evaluator, "fit", evaluator.Pass(10, 0))
    told.listen(evaluator.stream, "eval_batches", Reached)
    with pytest.raises(Reached):
        setup.evaluator({}, {}, setup.inputs["test"])
    assert told.options["eval_batches"]["workers"] == 3


def test_workers_read_the_images_whose_activations_are_stored(told):
    with nothing_compiled():
        setup = prepare(config_with(CACHED | WORKERS))
        told.listen(activation_cache.stream, "eval_batches", Reached)
        with pytest.raises(Reached):
            activation_cache.use(setup)
    assert told.given["eval_batches"][3] == 3


@pytest.fixture(scope="module")
def run(small_networks, tmp_path_factory):
    """Returns the folder of a run of two updates, and the steps of which checkpoints were saved."""
    folder, saved = tmp_path_factory.mktemp("reached") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        record_saves(patch, saved)
        training.run(config_with(QUIET | {"train.steps": 4}), folder)
    return folder, saved


def record_saves(patch, saved):
    save = Checkpointer.save

    def recorded(self, state, *given, **options):
        saved.append(int(state.step))
        save(self, state, *given, **options)

    patch.setattr(Checkpointer, "save", recorded)


def test_workers_read_the_batches_of_an_evaluation_alone(run, told, tmp_path):
    told.listen(evaluator.stream, "eval_batches", Reached)
    with pytest.raises(Reached):
        evaluate.evaluate_run(run[0], None, tmp_path / "new", ["data.workers=3"])
    assert told.options["eval_batches"]["workers"] == 3


def test_checkpoints_are_saved_when_their_seconds_are_over(run, monkeypatch, tmp_path):
    assert run[1][-1] == 4 and run[1] != [1, 2, 3, 4]
    saved = []
    record_saves(monkeypatch, saved)
    often = {"train.steps": 4, "train.checkpoint_every_seconds": 1e-9}
    training.run(config_with(QUIET | often), tmp_path / "run")
    assert saved == [1, 2, 3, 4]


def test_decoded_images_are_kept_in_the_folder_named(tmp_path):
    random = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "photos" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).save(path)
    own = {"data.name": f"folder:{tmp_path / 'photos'}", "data.examples_per_class": 0}
    with nothing_compiled():
        splits = prepare(config_with(own | {"data.cache_dir": str(tmp_path / "kept")})).splits
    splits["train"].gather(np.arange(1))
    assert list((tmp_path / "kept").glob("*/images.npy"))


@pytest.mark.parametrize(("patience", "width"), [(0, 1), (3, 2)])
def test_patience_and_width_reach_the_members(told, patience, width):
    config = config_with(CACHED)
    config.sweep.update({"learning_rate": (0.1, 0.2), "patience": patience, "width": width})
    told.listen(vmapped, "train", None)
    with nothing_compiled():
        setup = activation_cache.use(prepare(sweep._run_config(config)))
    grid = sweep.read_grid(config)
    members.train(setup, grid, [members.start(setup, grid, 0)[0]])
    (schedule,) = (one for one in told.given["train"] if isinstance(one, vmapped.Schedule))
    assert (schedule.patience, schedule.width) == (patience, width)
