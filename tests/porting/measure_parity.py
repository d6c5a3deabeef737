"""Records the largest relative error per network, reference and boundary.

python tests/porting/measure_parity.py --out parity.json
"""

import argparse
import json
import time

import jax
import torch
from parity import CASES, measure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="parity.json")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    arguments = parser.parse_args()
    results = {}
    for case in CASES:
        if arguments.only in case.id:
            start = time.perf_counter()
            for reference, errors in measure(case).items():
                results[f"{case.id}/{reference}"] = errors
                worst = max(errors, key=errors.get)
                seconds = time.perf_counter() - start
                print(
                    f"{case.id:28} {reference:12} {errors[worst]:.2e} at {worst} ({seconds:.0f} s)"
                )
    table = {
        "what": "max |ours - reference| / max |reference|, float32, random weights and statistics",
        "jax": jax.__version__,
        "torch": torch.__version__,
        "platform": jax.default_backend(),
        "errors": results,
    }
    with open(arguments.out, "w") as file:
        json.dump(table, file, indent=1)


if __name__ == "__main__":
    main()
