"""Threads that compute the same activations as those of other processes, at the same moment.

Usage: store_worker.py FOLDER. Reads the number of a round from each line; answers "done" when all threads
have the right activations, else with what went wrong.
"""

import pathlib
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np

from tl_jax.features.storage import Store

SHAPE = (5, 2, 3)
THREADS = 2
VALUES = np.arange(30, dtype=np.float32).reshape(SHAPE) / 8


def compute(folder: str, number: int, barrier: threading.Barrier, problems: list[str]) -> None:
    """Writes the activations of a round and compares what comes back."""
    try:
        store = Store(folder, {"round": number}, SHAPE, "float32")
        draft = store.create()
        draft[:] = VALUES
        barrier.wait(timeout=60)
        if not np.array_equal(store.keep(draft), VALUES):
            problems.append("kept activations are wrong")
        if not np.array_equal(store.open(), VALUES):
            problems.append("opened activations are wrong")
    except Exception as error:
        problems.append(f"{type(error).__name__}: {error}")


def main(folder: str) -> None:
    """Answers every line."""
    sys.stdin.readline()
    print("ready", flush=True)
    for line in sys.stdin:
        problems: list[str] = []
        barrier = threading.Barrier(THREADS)
        arguments = (folder, int(line), barrier, problems)
        threads = [threading.Thread(target=compute, args=arguments) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("; ".join(problems) or "done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
