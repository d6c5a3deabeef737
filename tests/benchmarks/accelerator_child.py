"""A process for the tests of `benchmarks.accelerator`: answers at once, and misbehaves where a row says so.

    python accelerator_child.py NAME

`behaviour` of the command "prepare" is "killed", "hung", "failed", "disagrees", "not_a_number", "killed_in_turn",
"talks" or "".
"""

import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from benchmarks.accelerator import child

NAME = sys.argv[1]
HELD = {}


def describe():
    device = {"platform": "cpu", "kind": "NVIDIA H100", "count": 1}
    return {"device": device, "versions": {"jax": "0"}, "memory": {}, "option_sets": {}}


def prepare(label, behaviour="", images=100, **_):
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif behaviour == "hung":
        time.sleep(600)
    elif behaviour == "failed":
        print(f"{pathlib.Path.home()}/somewhere says it first", file=sys.stderr)
        raise MemoryError("out of memory")
    elif behaviour == "talks":
        print("no JSON", flush=True)
    HELD[label] = behaviour
    last = {"disagrees": 2.5, "not_a_number": float("nan")}.get(behaviour, 2.0)
    prepared = {"outputs": [1.0, last], "images_per_step": images, "pid": os.getpid()}
    return prepared | ({"flops_per_step": 1e12 * images} if NAME == "jax" else {})


def turn(label, repeats):
    if HELD[label] == "killed_in_turn":
        os.kill(os.getpid(), signal.SIGKILL)
    seconds = 0.5 if NAME == "jax" else 1.0
    names = ("first_seconds", "user_seconds", "system_seconds", "page_faults")
    return {"seconds": seconds, **dict.fromkeys(names, 0.0)}


def drop(label):
    del HELD[label]


def answer(value=1, wait=0.0, not_run="", name=""):
    time.sleep(wait)
    if value == "failed":
        raise MemoryError("out of memory")
    return {"not_run": not_run} if not_run else {"value": value, "pid": os.getpid()}


if __name__ == "__main__":
    named = (describe, prepare, turn, drop, answer)
    child.serve({function.__name__: function for function in named}, sys.stdin, sys.stdout)
