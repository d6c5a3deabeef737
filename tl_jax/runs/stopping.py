"""Whether a run is to stop or to save, asked after every update; an interrupt as a request to stop."""

import signal
import threading
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils


class StopRequests:
    """Whether to stop or to save; several processes ask each other, every so many updates."""

    def __init__(self, stop_requested: Callable[[], bool], every: int, save_seconds: float):
        self._stop_requested, self._every, self._save_seconds = stop_requested, every, save_seconds
        self._asked, self._saved = -1, time.monotonic()
        self._save = False

    def stop(self, step: int) -> bool:
        """Returns whether to stop after `step` updates; to be asked before `save`."""
        due = self._save_seconds > 0 and time.monotonic() - self._saved >= self._save_seconds
        asked = np.array([self._stop_requested(), due])
        if jax.process_count() > 1:
            if step // self._every == self._asked:
                asked = np.zeros(2, bool)
            else:
                self._asked = step // self._every
                asked = np.any(multihost_utils.process_allgather(asked), axis=0)
        stopping, self._save = map(bool, asked)
        if self._save:
            self._saved = time.monotonic()
        return stopping

    def save(self, step: int) -> bool:
        """Returns whether the time for a checkpoint has come."""
        return self._save


class Interrupts:
    """Makes an interrupt a request to stop, which the run answers with a checkpoint; a second one raises.

    Signals reach the main thread alone; in others nothing changes.
    """

    def __init__(self) -> None:
        self._requested = False

    def __enter__(self) -> Callable[[], bool]:
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_interrupt)
        return lambda: self._requested

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_interrupt(self, *_: object) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
