"""Several jobs that take turns in one process, and wait for each other where one call serves all of them."""

import contextvars
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

R = TypeVar("R")

_READY, _ASKING, _ENDED = "ready", "asking", "ended"


class Turns(Generic[R]):
    """Jobs of which one runs at any time; what each asks for is answered once all others ask or have ended.

    A job is an ordinary function, which keeps its place while others run: it has a thread of its own, but never runs
    beside another, so that nothing it calls need be safe for threads.

    Example:
        >>> add = lambda asked: {number: sum(asked.values()) for number in asked}
        >>> Turns(add).run([lambda ask: ask(1) + ask(10), lambda ask: ask(2)])
        [13, 3]
    """

    def __init__(self, serve: Callable[[Mapping[int, Any]], Mapping[int, Any]]):
        """Starts nothing.

        Args:
            serve: from {number of a job: what it asks for} to {number: its answer}; what it raises is raised in all
                jobs that ask.
        """
        self._serve = serve
        self._changed = threading.Condition()
        self._turn: int | None = None
        self._states: list[str] = []
        self._asked: dict[int, Any] = {}
        self._answers: dict[int, Any] = {}

    def run(self, jobs: Sequence[Callable[[Callable[[Any], Any]], R]]) -> list[R | BaseException]:
        """Runs all jobs to their end, each given what it asks with; returns what each returned or raised."""
        self._states = [_READY] * len(jobs)
        ends: list[Any] = [None] * len(jobs)

        def live(number: int) -> None:
            self._wait_for_turn(number)
            try:
                ends[number] = jobs[number](lambda asked: self._ask(number, asked))
            except BaseException as error:  # Of any kind: the others go on.
                ends[number] = error
            with self._changed:
                self._states[number] = _ENDED
                self._pass_on()

        threads = [
            threading.Thread(
                target=contextvars.copy_context().run, args=(live, number), daemon=True
            )
            for number in range(len(jobs))
        ]
        for thread in threads:
            thread.start()
        with self._changed:
            self._pass_on()
        for thread in threads:
            thread.join()
        return ends

    def _ask(self, number: int, asked: Any) -> Any:
        with self._changed:
            self._asked[number] = asked
            self._states[number] = _ASKING
            self._pass_on()
        self._wait_for_turn(number)
        answer = self._answers.pop(number)
        if isinstance(answer, _Raised):
            raise answer.error
        return answer

    def _wait_for_turn(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._turn == number)

    def _pass_on(self) -> None:
        """Gives the turn to the next job; where all that have not ended ask, they are served first."""
        if _READY not in self._states and self._asked:
            asked, self._asked = self._asked, {}
            try:
                self._answers = dict(self._serve(asked))
            except BaseException as error:
                self._answers = dict.fromkeys(asked, _Raised(error))
            for number in asked:
                self._states[number] = _READY
        self._turn = self._states.index(_READY) if _READY in self._states else None
        self._changed.notify_all()


class _Raised:
    def __init__(self, error: BaseException):
        self.error = error
