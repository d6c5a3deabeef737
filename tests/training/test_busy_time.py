"""Busy time, on devices that are slow for as long as a test wants."""

import time

import jax
import jax.numpy as jnp
import pytest

from tl_jax.training.busy_time import BusyTime

MOMENT = 0.05


class Device:
    """Makes what it is given one after the other, each in `MOMENT` seconds."""

    def __init__(self):
        self.free = 0.0

    def __call__(self):
        self.free = max(self.free, time.perf_counter()) + MOMENT
        return Output(self.free)


class Output:
    def __init__(self, ready):
        self._ready = ready

    def is_ready(self):
        return time.perf_counter() >= self._ready

    def block_until_ready(self):
        time.sleep(max(0.0, self._ready - time.perf_counter()))
        return self


def test_calls_that_follow_each_other_at_once_count_once():
    with BusyTime() as busy:
        call = busy.watch(Device())
        for _ in range(4):
            call()
    assert busy.seconds == pytest.approx(4 * MOMENT, rel=0.2)


def test_the_time_between_calls_does_not_count():
    began = time.perf_counter()
    with BusyTime() as busy:
        call = busy.watch(Device())
        for _ in range(3):
            call().block_until_ready()
            time.sleep(2 * MOMENT)
    assert busy.seconds == pytest.approx(3 * MOMENT, rel=0.3)
    assert time.perf_counter() - began >= 9 * MOMENT


def test_work_that_is_done_when_its_call_returns_was_done_inside_it():
    def call():
        time.sleep(MOMENT)
        return jnp.zeros(())

    with BusyTime() as busy:
        watched = busy.watch(call)
        watched()
        time.sleep(MOMENT)
    assert busy.seconds == pytest.approx(MOMENT, rel=0.3)


def test_a_call_is_passed_through_and_only_some_outputs_are_held():
    """The state is given to the next call to overwrite: it must not be waited for."""
    step = jax.jit(lambda state, by: (state + by, {"loss": by}), donate_argnums=0)
    with BusyTime() as busy:
        watched = busy.watch(step, lambda result: result[1])
        state = jnp.zeros(3)
        for _ in range(5):
            state, measured = watched(state, by=jnp.float32(2.0))
    assert state.tolist() == [10.0] * 3 and float(measured["loss"]) == 2.0
    assert busy.seconds > 0


def test_what_fails_counts_nothing_and_ends_nothing():
    class Failing(Output):
        def block_until_ready(self):
            raise RuntimeError("the device is gone")

    with BusyTime() as busy:
        busy.watch(lambda: Failing(time.perf_counter() + 60))()
        busy.watch(Device())()
    assert busy.seconds == pytest.approx(MOMENT, rel=0.3)
