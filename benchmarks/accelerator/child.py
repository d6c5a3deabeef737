"""A process that measures one side: commands come in, answers go out, a line of JSON each.

    python -m benchmarks.accelerator.child jax|torch_eager|torch_compile SCRATCH SHARE

What libraries print goes to standard error, of which the parent records the end where something fails. The process
ends when its input does, and when its parent is no more.
"""

import json
import os
import pathlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

_BEGAN = time.perf_counter()
_ERROR_LENGTH = 600


def main() -> None:
    """Serves one side."""
    side, scratch, share = sys.argv[1], pathlib.Path(sys.argv[2]), float(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    serve(Commands(side, scratch, share), sys.stdin, answers)


class Commands(Mapping[str, Callable[..., Any]]):
    """The commands of a side; its framework is imported when the first of them is asked for."""

    def __init__(self, side: str, scratch: pathlib.Path, share: float):
        """Takes the name of the side, the folder that processes share, and the share of the memory."""
        self._arguments = (side, scratch, share)
        self._commands: dict[str, Callable[..., Any]] | None = None

    def _made(self) -> dict[str, Callable[..., Any]]:
        if self._commands is None:
            side, scratch, share = self._arguments
            if side == "jax":
                from benchmarks.accelerator import jax_side

                self._commands = jax_side.commands(scratch, _BEGAN)
            else:
                from benchmarks.accelerator import torch_side

                compiled = side == "torch_compile"
                self._commands = torch_side.commands(scratch, _BEGAN, share, compiled)
        return self._commands

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._made()[name]

    def __iter__(self):
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())


def serve(
    commands: Mapping[str, Callable[..., Any]], requests: Iterable[str], answers: TextIO
) -> None:
    """Answers each request: {"result": ...}, or {"error": ...} where the command failed."""
    for line in requests:
        request = json.loads(line)
        name = request.pop("command")
        try:
            answer = json.dumps({"result": commands[name](**request)})
        except Exception as error:  # Whatever it is, it is recorded, and the row after it goes on.
            traceback.print_exc()
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"[:_ERROR_LENGTH]})
        answers.write(answer + "\n")
        answers.flush()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    main()
