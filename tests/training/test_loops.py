"""The order of things in the loop, with fakes: a state is its number of updates."""

import dataclasses

import numpy as np
import pytest

from tl_jax.training import loops
from tl_jax.training.loops import Hooks, Intervals


@dataclasses.dataclass
class FakeState:
    step: int

    def without_references(self):
        return self


class Recorder:
    """Records what the loop does; the loss of the update numbered `t` is `losses.get(t, t)`."""

    def __init__(self, losses=(), norms=()):
        self.events, self.losses, self.norms = [], dict(losses), dict(norms)
        self.saved = self.best = self.finished = None
        self.accuracies = {}

    def train_step(self, state, updates):
        assert updates[0] == state.step
        self.events.append(("step", updates[-1] + 1))
        losses = [np.float32(self.losses.get(update, float(update))) for update in updates]
        norms = [np.float32(self.norms.get(update, 1.0)) for update in updates]
        # A program may make more updates than it was asked for.
        measured = {"loss": [*losses, np.nan], "grad_norm": [*norms, np.nan]}
        measured = {name: np.array(values) for name, values in measured.items()}
        return FakeState(updates[-1] + 1), measured

    def log(self, step, measured):
        self.events.append(("log", step, measured["loss"]))
        assert measured["grad_norm"] == 1.0 and measured["images_per_second"] > 0
        assert measured["waiting_seconds"] >= 0

    def evaluate(self, state):
        self.events.append(("evaluate", state.step))
        return {"top1_accuracy": self.accuracies.get(state.step, state.step / 10)}

    def save(self, state, metrics):
        self.events.append(("save", state.step, metrics and metrics["top1_accuracy"]))
        self.saved = state.step

    def finish_saving(self):
        self.finished = self.saved

    def is_best(self, metrics):
        better = self.best is None or metrics["top1_accuracy"] > self.best
        self.best = metrics["top1_accuracy"] if better else self.best
        return better

    def run(self, intervals, start=0, **options):
        return loops.train(
            FakeState(start),
            self.train_step,
            lambda step, count: list(range(step, step + count)),
            intervals,
            Hooks(
                log=self.log,
                evaluate=self.evaluate,
                save=self.save,
                finish_saving=self.finish_saving,
                is_best=self.is_best,
                last_saved=lambda: self.saved,
                **options,
            ),
            batch_size=4,
        )


def test_a_phase_counts_its_intervals_from_its_first_update():
    recorder = Recorder()
    phase = Intervals(9, log_every=2, eval_every=3, updates_per_dispatch=3, first_step=4)
    assert recorder.run(phase, start=4).step == 9
    assert recorder.events == [
        ("step", 7),
        ("log", 6, 4.5),
        ("evaluate", 7),
        ("step", 9),
        ("log", 8, 6.5),
        ("log", 9, 8.0),
        ("evaluate", 9),
        ("save", 9, 0.9),
    ]
    assert [phase.updates_after(step) for step in (4, 5, 6, 7, 8)] == [3, 2, 1, 2, 1]
    assert Intervals(54, 1, 30, updates_per_dispatch=25, first_step=4).lengths == [20, 15]


def test_stopping_at_the_end_of_a_phase_that_another_one_follows():
    stops = {"stop_requested": lambda step: step == 2}
    recorder = Recorder()
    with pytest.raises(loops.Stopped) as raised:
        recorder.run(Intervals(2, log_every=1, goes_on=True), **stops)
    assert raised.value.step == recorder.finished == 2
    recorder = Recorder()
    assert recorder.run(Intervals(2, log_every=1), **stops).step == recorder.finished == 2


def test_order_of_log_evaluate_and_save():
    recorder = Recorder()
    final = recorder.run(Intervals(7, log_every=3, eval_every=4, checkpoint_every=3))
    assert final.step == 7
    assert recorder.events == [
        ("step", 1),
        ("step", 2),
        ("step", 3),
        ("log", 3, 1.0),
        ("save", 3, None),
        ("step", 4),
        ("evaluate", 4),
        ("step", 5),
        ("step", 6),
        ("log", 6, 4.0),
        ("save", 4, 0.4),
        ("save", 6, None),
        ("step", 7),
        ("log", 7, 6.0),
        ("evaluate", 7),
        ("save", 7, 0.7),
    ]


def test_zero_means_only_at_the_end():
    recorder = Recorder()
    recorder.run(Intervals(3, log_every=0))
    assert recorder.events[3:] == [("log", 3, 1.0), ("evaluate", 3), ("save", 3, 0.3)]


def test_it_goes_on_where_the_state_is():
    recorder = Recorder()
    final = recorder.run(Intervals(5, log_every=2), start=3)
    assert final.step == 5
    assert recorder.events == [
        ("step", 4),
        ("step", 5),
        ("log", 4, 3.0),
        ("log", 5, 4.0),
        ("evaluate", 5),
        ("save", 5, 0.5),
    ]


def test_a_finished_state_does_nothing():
    recorder = Recorder()
    assert recorder.run(Intervals(5, log_every=1), start=5).step == 5
    assert recorder.events == []


def test_a_dispatch_of_several_updates_ends_at_evaluations():
    recorder = Recorder()
    recorder.run(
        Intervals(10, log_every=3, eval_every=5, checkpoint_every=4, updates_per_dispatch=4)
    )
    assert recorder.events == [
        ("step", 3),
        ("step", 5),
        ("log", 3, 1.0),  # while the next updates are made
        ("evaluate", 5),
        ("save", 5, 0.5),
        ("step", 8),
        ("log", 6, 4.0),
        ("save", 8, None),
        ("step", 10),
        ("log", 9, 7.0),
        ("log", 10, 9.0),
        ("evaluate", 10),
        ("save", 10, 1.0),
    ]


@pytest.mark.parametrize(
    ("total", "eval_every", "most", "expected"),
    [
        (10, 0, 1, [1] * 10),
        (10, 0, 4, [4, 4, 2]),
        (9, 0, 4, [3, 3, 3]),
        (21, 10, 4, [4, 4, 2, 4, 4, 2, 1]),
        (352, 352, 256, [176, 176]),
        (50, 30, 25, [15, 15, 20]),
        (60, 30, 25, [15] * 4),
    ],
)
def test_spans_between_evaluations_are_cut_into_equal_parts(total, eval_every, most, expected):
    intervals = Intervals(total, 1, eval_every, updates_per_dispatch=most)
    step, found = 0, []
    while step < total:
        found.append(intervals.updates_after(step))
        step += found[-1]
    assert found == expected
    assert intervals.lengths == sorted(set(expected), reverse=True)


def test_a_best_state_waits_for_the_next_save_and_a_better_one_takes_its_place():
    recorder = Recorder()
    recorder.accuracies = {1: 0.5, 2: 0.6, 3: 0.4, 4: 0.4}
    recorder.run(Intervals(4, log_every=4, eval_every=1))
    saves = [event for event in recorder.events if event[0] == "save"]
    assert saves == [("save", 2, 0.6), ("save", 4, 0.4)]


def test_a_best_state_is_saved_once():
    recorder = Recorder()
    recorder.accuracies = {1: 0.5, 2: 0.4, 3: 0.4, 4: 0.4}
    recorder.run(Intervals(4, log_every=4, eval_every=1, checkpoint_every=2))
    saves = [event for event in recorder.events if event[0] == "save"]
    assert saves == [("save", 1, 0.5), ("save", 2, 0.4), ("save", 4, 0.4)]


def test_a_best_state_is_saved_before_a_run_ends_by_a_loss_that_is_not_finite():
    recorder = Recorder({4: float("nan")})
    with pytest.raises(loops.NonFiniteLoss, match="last good checkpoint: step 4"):
        recorder.run(Intervals(8, log_every=8, eval_every=2))
    saves = [event for event in recorder.events if event[0] == "save"]
    assert saves == [("save", 4, 0.4)]


def test_saving_on_request():
    recorder = Recorder()
    recorder.run(Intervals(4, log_every=4), save_requested=lambda step: step == 3)
    saves = [event for event in recorder.events if event[0] == "save"]
    assert saves == [("save", 3, None), ("save", 4, 0.4)]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_loss_is_never_saved(loss):
    """Update 4 (from 0) is not finite; it is noticed at the checkpoint after 6 updates."""
    recorder = Recorder({4: loss})
    with pytest.raises(loops.NonFiniteLoss) as raised:
        recorder.run(
            Intervals(20, log_every=20, checkpoint_every=3),
            batch_indices=lambda step: np.array([10 * step, 10 * step + 1]),
        )
    assert raised.value.step == 4
    assert recorder.saved == 3
    message = str(raised.value)
    assert f"loss {loss} at step 4" in message
    assert "last good checkpoint: step 3" in message
    assert "indices of its batch in the training split: [40, 41]" in message
    assert recorder.events[-1] == ("step", 6)


def test_a_non_finite_gradient_is_noticed_before_its_parameters_are_saved():
    recorder = Recorder(norms={2: float("inf")})
    with pytest.raises(loops.NonFiniteLoss, match="grad_norm inf at step 2"):
        recorder.run(Intervals(9, log_every=9, checkpoint_every=3))
    assert recorder.saved is None


def test_a_non_finite_loss_before_any_checkpoint():
    recorder = Recorder({0: float("nan")})
    with pytest.raises(loops.NonFiniteLoss, match="at step 0; no checkpoint was saved before"):
        recorder.run(Intervals(4, log_every=1))
    assert recorder.events == [("step", 1), ("step", 2)]  # the host reads one dispatch behind


def test_the_first_non_finite_loss_is_named_though_it_came_before_the_window():
    """Losses read at a checkpoint between two logs stay counted by the update they belong to."""
    recorder = Recorder({5: float("nan"), 6: float("nan")})
    with pytest.raises(loops.NonFiniteLoss) as raised:
        recorder.run(Intervals(20, log_every=10, checkpoint_every=4))
    assert raised.value.step == 5 and recorder.saved == 4


def test_stopping_saves_first():
    recorder = Recorder()
    with pytest.raises(loops.Stopped) as raised:
        recorder.run(Intervals(9, log_every=4), stop_requested=lambda step: step == 2)
    assert raised.value.step == 2
    assert "step 2" in str(raised.value) and "same command" in str(raised.value)
    assert recorder.events == [("step", 1), ("step", 2), ("save", 2, None)]


def test_a_request_at_the_last_update_finishes_the_run():
    recorder = Recorder()
    final = recorder.run(Intervals(2, log_every=1), stop_requested=lambda step: step == 2)
    assert final.step == 2 and recorder.events[-1] == ("save", 2, 0.2)


def test_a_non_finite_loss_wins_over_a_request_to_stop():
    recorder = Recorder({1: float("nan")})
    with pytest.raises(loops.NonFiniteLoss):
        recorder.run(Intervals(9, log_every=9), stop_requested=lambda step: step == 2)
    assert recorder.saved is None


EVERY_TWO = Intervals(20, log_every=5, eval_every=2, patience=3)
# The best of evaluations at 2, 4, ... is that at 4; the third after it is at 10.
ACCURACIES = {2: 0.5, 4: 0.7, 6: 0.6, 8: 0.7, 10: 0.6, 12: 0.9}


def test_patience_ends_a_run_and_saves_its_best_and_last_state():
    recorder = Recorder()
    recorder.accuracies = ACCURACIES
    assert recorder.run(EVERY_TWO).step == 10
    assert [event for event in recorder.events if event[0] == "save"] == [
        ("save", 4, 0.7),
        ("save", 10, 0.6),
    ]
    assert recorder.events[-3:] == [("evaluate", 10), ("save", 4, 0.7), ("save", 10, 0.6)]


@pytest.mark.parametrize(("start", "end"), [(6, 10), (9, 10), (10, 10)])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(start, end):
    recorder = Recorder()
    recorder.accuracies, recorder.best, recorder.saved = ACCURACIES, 0.7, start
    assert recorder.run(EVERY_TWO, start=start, best_saved=lambda: 4).step == end


def test_a_stop_asked_for_when_patience_ends_is_an_end():
    recorder = Recorder()
    recorder.accuracies = ACCURACIES
    assert recorder.run(EVERY_TWO, stop_requested=lambda step: step == 10).step == 10


def test_without_a_new_best_patience_counts_from_the_first_update():
    recorder = Recorder()
    recorder.best = 2.0
    assert recorder.run(EVERY_TWO).step == 6


@pytest.mark.parametrize("writing", [0.0, 0.4, 0.9])
def test_speed_is_that_of_the_device_while_lines_are_written(writing, monkeypatch):
    """Of a device that takes a second for an update, by a clock of which the host takes part to write."""
    clock = {"now": 0.0, "device": 0.0}
    speeds = []

    def train_step(state, inputs):
        clock["device"] = max(clock["now"], clock["device"]) + 1.0
        return FakeState(state.step + 1), {"loss": np.float32(1), "finished": clock["device"]}

    def device_get(pending):
        clock["now"] = max([clock["now"], *(measured["finished"] for _, measured in pending)])
        return pending

    def log(step, measured):
        speeds.append(measured["images_per_second"])
        clock["now"] += writing

    monkeypatch.setattr(loops.time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(loops.jax, "device_get", device_get)
    hooks = Hooks(log=log, evaluate=lambda state: None, save=lambda state, metrics: None)
    intervals = Intervals(6, log_every=1)
    loops.train(FakeState(0), train_step, lambda step, count: None, intervals, hooks, 4)
    assert speeds == pytest.approx([4.0] * 6)
