"""Whether a run is to stop or to save, asked after every update; a signal as a request to stop."""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

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


class StopRequest:
    """Makes a signal a request to stop, which a run answers with a checkpoint; the second signal ends the process.

    A context manager, which gives a function that returns whether a signal has come. Signals reach the main thread
    alone; in others nothing changes.

    Args:
        signals: to listen to; the default is an interrupt, such as Ctrl-C or the stop button of a notebook.
        raises: whether a second signal raises KeyboardInterrupt; otherwise the process ends at once.
    """

    def __init__(self, *signals: signal.Signals, raises: bool = True) -> None:
        self.requested = False
        self._signals, self._raises = signals or (signal.SIGINT,), raises
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Callable[[], bool]:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._on_signal) for number in self._signals
            }
        return lambda: self.requested

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        if self.requested:
            if self._raises:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.requested = True
