"""Plants the mutants of the catalogue and says which the tests do not notice; see the package."""

import argparse
import fnmatch
import json
import pathlib
import signal
import sys
import time
from collections import Counter

from tests.mutants import planting
from tests.mutants.catalogue import MUTANTS


def main() -> int:
    """Returns 0 if every mutant was caught, 1 if not, 2 if the tests fail without any."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="names, with * and ?")
    parser.add_argument("--survivors", action="store_true", help="only those once not noticed")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--seconds", type=float, default=300.0, help="time limit of each")
    parser.add_argument(
        "--unchecked", action="store_true", help="do not run the tests without mutants first"
    )
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for the results")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    mutants = [
        mutant
        for mutant in MUTANTS
        if (mutant.survivor or not arguments.survivors)
        and any(fnmatch.fnmatch(mutant.name, pattern) for pattern in arguments.only or ["*"])
    ]
    if not mutants:
        print(f"no mutant is called like {arguments.only}; see tests/mutants/catalogue.py")
        return 2
    began = time.perf_counter()
    with planting.Runner(arguments.jobs, arguments.seconds) as runner:
        if not arguments.unchecked:
            failing = runner.without_mutants(mutants)
            if failing:
                print(f"{failing}\nthe tests fail without any mutant: mend them first")
                return 2
        results = runner.run(mutants, _show)
    seconds = time.perf_counter() - began
    counts = Counter(result.outcome for result in results)
    noticed = sum(result.outcome == planting.CAUGHT for result in results if result.mutant.survivor)
    survivors = sum(mutant.survivor for mutant in mutants)
    print(
        f"{len(results)} mutants in {seconds:.0f} s: "
        + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        + f"; of the {survivors} that were not noticed before, {noticed} caught"
    )
    for result in results:
        if result.outcome != planting.CAUGHT:
            print(
                f"  {result.outcome}: {result.mutant.name} in {result.mutant.file}: {result.detail}"
            )
    if arguments.out:
        content = {
            "seconds": round(seconds, 1),
            "jobs": arguments.jobs,
            "counts": dict(sorted(counts.items())),
            "survivors": {"planted": survivors, "caught": noticed},
            "mutants": [
                {
                    "name": result.mutant.name,
                    "file": result.mutant.file,
                    "survivor": result.mutant.survivor,
                    "outcome": result.outcome,
                    "seconds": round(result.seconds, 1),
                    "detail": result.detail,
                }
                for result in results
            ],
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if counts[planting.CAUGHT] == len(results) else 1


def _show(result: planting.Result) -> None:
    mark = " (a former survivor)" if result.mutant.survivor else ""
    print(f"{result.outcome:11} {result.seconds:5.1f} s  {result.mutant.name}{mark}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
