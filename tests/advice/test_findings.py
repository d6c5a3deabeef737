"""The findings that come with the package are those of the committed results."""

import json
import pathlib

from benchmarks import findings as made
from tl_jax import advice

RESULTS = pathlib.Path(made.RESULTS)


def test_they_are_up_to_date():
    assert made.FINDINGS.read_text("utf-8") == made.made()


def test_every_finding_is_a_row_of_a_result():
    found = advice.load_findings()
    assert {one.spec for one in found} == {path.stem for path in RESULTS.glob("*.json")} - {"null"}
    for one in found:
        content = json.loads((RESULTS / f"{one.spec}.json").read_text())
        (row,) = [
            row
            for row in content["test"]
            if (row["variant"], row["shots"]) == (one.variant, one.shots)
        ]
        assert abs(row["test"]["mean"] - one.accuracy) < 1e-5 and row["test"]["n"] == one.seeds
        assert (one.difference is None) == (one.variant == one.reference)
        if one.interval is not None:
            assert one.interval[0] <= one.difference <= one.interval[1]
        assert one.seconds is None or one.seconds > 0
