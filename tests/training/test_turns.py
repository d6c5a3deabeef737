"""Jobs that take turns: one at a time, served together, each ending by itself."""

import contextvars
import threading

import pytest

from tl_jax.training.turns import Turns

pytestmark = pytest.mark.timeout(30)  # what goes wrong here waits for ever


def sums(asked):
    return dict.fromkeys(asked, sum(asked.values()))


def test_jobs_are_served_once_all_of_them_ask():
    served = []

    def serve(asked):
        served.append(dict(asked))
        return sums(asked)

    jobs = [
        lambda ask: [ask(1), ask(2)],
        lambda ask: [ask(10)],
        lambda ask: [ask(100), ask(200), ask(300)],
    ]
    assert Turns(serve).run(jobs) == [[111, 202], [111], [111, 202, 300]]
    assert served == [{0: 1, 1: 10, 2: 100}, {0: 2, 2: 200}, {2: 300}]


def test_one_job_runs_at_any_time_in_the_same_order_every_time():
    running, seen = threading.Semaphore(1), []

    def job(number):
        def run(ask):
            for turn in range(3):
                assert running.acquire(blocking=False)
                seen.append((turn, number))
                running.release()
                ask(number)

        return run

    Turns(sums).run([job(number) for number in range(4)])
    assert seen == [(turn, number) for turn in range(3) for number in range(4)]


def test_what_a_job_raises_is_its_end_and_the_others_go_on():
    error = KeyboardInterrupt()

    def broken(ask):
        ask(1)
        raise error

    def early(ask):
        raise ValueError("at once")

    whole, other, first = Turns(sums).run([lambda ask: ask(5) + ask(7), broken, early])
    assert whole == 6 + 7 and other is error and str(first) == "at once"


def test_what_serving_raises_is_raised_in_every_job_that_asks():
    def serve(asked):
        raise MemoryError("too many")

    def told(ask):
        with pytest.raises(MemoryError, match="too many"):
            ask(1)
        return "told"

    assert Turns(serve).run([told, lambda ask: "no need", told]) == ["told", "no need", "told"]


def test_jobs_see_what_surrounds_the_caller():
    around = contextvars.ContextVar("around", default=0)
    around.set(7)
    assert Turns(sums).run([lambda ask: around.get()] * 2) == [7, 7]
    assert Turns(sums).run([]) == []
