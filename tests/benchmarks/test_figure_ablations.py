"""The tables of ablations, from results that are written by hand."""

import json

import pytest

from benchmarks import figure_ablations, figure_cells

FACTS = {
    "command": "python -m benchmarks.shipped_ablations --spec=null",
    "date": "2026-11-23",
    "revision": "0123456789abcdef",
    "machine": "a machine",
    "cores": 2,
    "device": {"platform": "cpu", "kind": "cpu", "count": 1},
    "versions": {"python": "3.13.0", "jax": "0.12.0", "flax": "0.12.12"},
}
DIFFERENCE = {"mean": 0.02, "interval": [0.01, 0.03], "p": 0.012345, "differs": True}


def row(variant, shots, values, difference=None, **estimate):
    test = {"n": 3, "mean": 0.5, "interval": [0.4, 0.6]} | estimate
    return {
        "variant": variant,
        "shots": shots,
        "values": values,
        "trials": 2,
        "test": test,
        "difference": difference,
    }


def shipped(tmp_path, name, rows):
    folder = tmp_path / "ablations"
    folder.mkdir()
    content = FACTS | {
        "test": rows,
        "runs": [
            *({"variant": "head", "shots": 5, "seconds": seconds} for seconds in (1.0, 2.0, None)),
            *[{"variant": "other", "shots": 5, "seconds": 9.0}] * 9,
        ],
        "seeds": [0, 1, 2],
        "seconds_of_cells": 1234.0,
        "seconds_of_test": 56.0,
        "revisions_of_cells": ["aaaaaaaaaaaaaa", "bbbbbbbbbbbbbb"],
    }
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_an_ablation_over_labels_with_what_was_tuned(tmp_path):
    rate = {"optim.learning_rate": 0.1}
    noise = DIFFERENCE | {"mean": -0.001, "interval": None, "p": None, "differs": None}
    rows = [
        row("head", 5, rate),
        row("all", 5, rate, DIFFERENCE),
        row("all", 0, {}, noise, mean=None, interval=None),
    ]
    shipped(tmp_path, "cifar10_depth", rows)
    table, said = figure_cells.TABLES["ablation_cifar10_depth"](tmp_path).split("\n\n")
    assert table.splitlines() == [
        "| labels per class | variant | n | test, % | difference, points | p |  | time of a run | chosen |",
        "|---:|---|---:|---:|---:|---:|---|---:|---|",
        "| 5 | `head` | 3 | 50.00 (40.00 to 60.00) | compared with |  |  | 1.5 s | "
        "`optim.learning_rate=0.1` (of 2) |",
        "| 5 | `all` | 3 | 50.00 (40.00 to 60.00) | +2.00 (+1.00 to +3.00) | 0.012 | differs | - | "
        "`optim.learning_rate=0.1` (of 2) |",
        "| all | `all` | 3 | not finite | -0.10 |  |  | - |  |",
    ]
    assert said.startswith(
        "12 runs, 3 seeds; training and validation 21 min, reading test 56 s; cells of revision `aaaaaaaaaa`, "
        "`bbbbbbbbbb`. Python 3.13.0"
    )


def test_an_ablation_of_nothing_but_names(tmp_path):
    noise = DIFFERENCE | {"mean": 0.0, "interval": [0.0, 0.0], "p": 1.0, "differs": False}
    shipped(tmp_path, "null", [row("one", 10, {}), row("other", 10, {}, noise)])
    lines = figure_cells.TABLES["ablation_null"](tmp_path).splitlines()
    assert lines[0] == "| variant | n | test, % | difference, points | p |  | time of a run |"
    assert (
        lines[3]
        == "| `other` | 3 | 50.00 (40.00 to 60.00) | +0.00 (+0.00 to +0.00) | 1 | noise | - |"
    )
    assert "--spec=cifar10_depth" in figure_cells.TABLES["ablation_cifar10_depth"](tmp_path)


@pytest.mark.parametrize(("read_once", "shown"), [(True, "yes"), (False, "no")])
def test_what_the_engine_is_worth(tmp_path, read_once, shown):
    held = {"mean": 0.951, "paired difference": 0.9494}
    run = FACTS | {
        "cells": {
            "seconds": {"one_by_one": 200.4, "ablation": 80.0},
            "cells": 60,
            "opened": 20,
            "same_to_the_bit": 58,
            "largest_difference": {"validation_loss": 1.2e-7, "test_loss": 3.4e-8},
        },
        "killed": {
            "cells": 60,
            "killed_at": [15, 30, 46],
            "same_tables": True,
            "read_once": read_once,
        },
        "simulated": {
            "coverage_by_seeds": {"3": held},
            "bootstrap_over_images": {"coverage": 0.9525},
            "null_specs": {"marked": 14, "specs": 200, "level": 0.05},
        },
    }
    folder = tmp_path / "cpu-jax0.12"
    folder.mkdir()
    (folder / "ablations.json").write_text(json.dumps(run))
    text = figure_ablations.ablations(tmp_path)
    for line in (
        "| 60 cells, one after the other as ordinary runs | 200 s |",
        "with tables and figures | 80 s (2.5x) |",
        "the same to the bit | 58 of 60 |",
        "| largest difference of a loss or accuracy | 1.2e-7 |",
        f"| killed with SIGKILL at 15, 30, 46 of 60 cells: the same tables | {shown} |",
        "| 95% intervals over 3 seeds hold the truth | mean 95.1%, paired difference 94.9% |",
        "| 95% bootstrap intervals over images do | 95.2% |",
        "at a level of 0.05 | 14 of 200 |",
    ):
        assert line in text, line
