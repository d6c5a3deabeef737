"""Writes what the shipped ablations found to where advice looks it up, tl_jax/advice/findings.json.

python -m benchmarks.findings            write it
python -m benchmarks.findings --check    say whether it is up to date
"""

import argparse
import json
import pathlib
import sys
from typing import Any

from tl_jax import ablation
from tl_jax.config import assigned

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "results" / "ablations"
FINDINGS = REPOSITORY / "tl_jax" / "advice" / "findings.json"
# Nothing is to be learned from nothing against nothing.
_LEFT_OUT = ("null",)


def main() -> None:
    """Writes or compares the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    text = made()
    if not args.check:
        FINDINGS.write_text(text, "utf-8")
    elif not FINDINGS.is_file() or FINDINGS.read_text("utf-8") != text:
        sys.exit(
            f"{FINDINGS.name} is not that of results/ablations; run python -m benchmarks.findings"
        )


def made() -> str:
    """Returns what the file should hold: a list of `advice.Finding`, a line each."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        if path.stem not in _LEFT_OUT:
            spec = ablation.load_spec(
                REPOSITORY / "configs" / "ablations" / path.name.replace(".json", ".py")
            )
            content = json.loads(path.read_text("utf-8"))
            rows += [_row(path.stem, spec, content, one) for one in content["test"]]
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f"[\n{lines}\n]\n"


def _row(
    name: str, spec: ablation.Spec, content: dict[str, Any], row: dict[str, Any]
) -> dict[str, Any]:
    difference, base = row["difference"], spec.base
    config = assigned(base, spec.assignments(row["variant"]))
    seconds = [
        run["seconds"]
        for run in content["runs"]
        if run["variant"] == row["variant"] and run["shots"] == row["shots"] and run["seconds"]
    ]
    return {
        "spec": name,
        "data": base.data.name,
        "network": base.model.name,
        "shots": row["shots"],
        "variant": row["variant"],
        "seeds": row["test"]["n"],
        "accuracy": round(row["test"]["mean"], 5),
        "reference": row["reference"],
        "difference": None if difference is None else round(difference["mean"], 5),
        "interval": None
        if difference is None or difference["interval"] is None
        else [round(end, 5) for end in difference["interval"]],
        "seconds": round(sum(seconds) / len(seconds), 2) if seconds else None,
        "freeze": "" if config.phases else config.freeze.strategy,
    }


if __name__ == "__main__":
    main()
