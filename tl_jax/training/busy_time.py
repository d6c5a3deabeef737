"""How long the devices had something to do, seen from the host."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import jax


class BusyTime:
    """The seconds in which the devices were at work on calls that are watched.

    Devices make what they are given one after the other, so that the work of a call begins when the call has
    returned or when the work of the call before is done, whichever is later, and ends when its outputs are ready: a
    thread waits for those. What is done when its call returns, as small programs are on CPUs, was done inside
    it. Transfers from the host count where a call waits for them.

    Example:
        >>> with BusyTime() as busy:
        ...     step = busy.watch(jax.jit(lambda x: x + 1))
        ...     _ = step(1.0)
        >>> busy.seconds > 0
        True
    """

    def __init__(self) -> None:
        self._seconds, self._until = 0.0, 0.0
        self._calls: queue.SimpleQueue[tuple[float, float, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._wait, name="tl_jax busy time", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Of all calls that were watched; complete once closed."""
        return self._seconds

    def watch(
        self, call: Callable[..., Any], outputs: Callable[[Any], Any] = lambda result: result
    ) -> Callable[..., Any]:
        """Returns `call`, watched.

        Args:
            call: dispatches work to the devices.
            outputs: from its result to arrays that become ready with it; none that a later call is given to
                overwrite (donated).
        """

        def watched(*arguments, **options):
            began = time.perf_counter()
            result = call(*arguments, **options)
            arrays = outputs(result)
            returned = time.perf_counter()
            self._calls.put((began if _are_ready(arrays) else returned, returned, arrays))
            return result

        return watched

    def close(self) -> None:
        """Waits for the calls that were watched."""
        if self._thread.is_alive():
            self._calls.put(None)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self) -> None:
        while (call := self._calls.get()) is not None:
            began, returned, arrays = call
            done_inside = began < returned
            try:
                jax.block_until_ready(arrays)
            except Exception:  # Whoever reads the arrays meets it, and says so.
                continue
            ended = returned if done_inside else time.perf_counter()
            del call, arrays  # They are not held longer than by the run itself.
            self._seconds += max(0.0, ended - max(began, self._until))
            self._until = max(self._until, ended)


def _are_ready(arrays: Any) -> bool:
    # Those of NumPy are.
    return all(getattr(array, "is_ready", lambda: True)() for array in jax.tree.leaves(arrays))
