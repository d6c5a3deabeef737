"""Which GPUs the launchers of one machine have, as CUDA reads it from the environment when a process first asks."""

import os
import pathlib

_ENVIRONMENT = os.environ
_DEVICES = pathlib.Path("/dev")
_VISIBLE, _PREALLOCATE = "CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_PREALLOCATE"


def visible() -> list[str]:
    """Returns the NVIDIA GPUs that this process may use."""
    named = _ENVIRONMENT.get(_VISIBLE)
    if named is not None:
        return [one for one in named.split(",") if one]
    found = _DEVICES.glob("nvidia[0-9]*")
    return sorted(path.name.removeprefix("nvidia") for path in found)


def take(gpu: str) -> None:
    """Has this process use one GPU alone; to be called before JAX is asked for devices."""
    _ENVIRONMENT[_VISIBLE] = gpu


def share() -> None:
    """Has this process and those that it starts take memory of a GPU as they need it, unless something else is said.

    By default JAX takes most of it at its start, and leaves another process none.
    """
    _ENVIRONMENT.setdefault(_PREALLOCATE, "false")
