"""Choice by validation, differences of pairs and what counts as one, on results made up here."""

import math

import numpy as np
import pytest

from tl_jax.ablation import analysis


def rows_of(spec, values, test=None):
    """Returns a row for each cell; values: {(variant, trial): validation of each seed}."""
    return [
        {
            "variant": variant,
            "shots": shots,
            "trial": trial,
            "seed": seed,
            "status": "finished" if value is not None else "diverged",
            "held_out": True,
            "validation": value,
            **({} if test is None else {"test": test[variant, trial][place]}),
        }
        for shots in spec.labelled
        for (variant, trial), of_seeds in values.items()
        for place, (seed, value) in enumerate(zip(spec.seeds, of_seeds, strict=True))
    ]


TUNE = {"optim.momentum": (0.1, 0.2)}


def test_the_trial_with_the_best_mean_on_validation_is_chosen(spec):
    made = spec(tune=TUNE, seeds=(0, 1))
    values = {
        ("slow", 0): (0.5, 0.9),
        ("slow", 1): (0.6, 0.7),
        ("fast", 0): (0.1, 0.2),
        ("fast", 1): (0.2, 0.1),
    }
    chosen = analysis.choose(made, rows_of(made, values))
    assert chosen == {("slow", 2): 0, ("fast", 2): 0}  # among equals the first
    lowest = analysis.choose(spec(tune=TUNE, metric="loss"), rows_of(made, values))
    assert lowest["slow", 2] == 1


@pytest.mark.parametrize("broken", [None, math.nan])
def test_a_trial_that_diverged_once_is_chosen_last(spec, broken):
    made = spec(tune=TUNE)
    values = {
        ("slow", 0): (0.9, broken),
        ("slow", 1): (0.1, 0.1),
        ("fast", 0): (broken, broken),
        ("fast", 1): (broken, 0.9),
    }
    assert analysis.choose(made, rows_of(made, values)) == {("slow", 2): 1, ("fast", 2): 0}


def test_differences_are_those_of_pairs_on_test(spec):
    made = spec(seeds=(0, 1, 2))
    test = {("slow", 0): (0.10, 0.40, 0.70), ("fast", 0): (0.12, 0.41, 0.73)}
    rows = rows_of(made, {key: (0.5, 0.5, 0.5) for key in test}, test)
    slow, fast = analysis.summarise(made, rows, analysis.choose(made, rows), "test")
    assert slow["difference"] is None and slow["test"]["mean"] == pytest.approx(0.4)
    difference = fast["difference"]
    assert difference["mean"] == pytest.approx(0.02) and difference["n"] == 3
    assert difference["p_signs"] == 0.25
    assert difference["p"] == pytest.approx(0.0742, abs=1e-4) == difference["p_corrected"]
    assert difference["differs"] is False
    assert difference["seeds_needed"] == 5
    flipped = spec(seeds=(0, 1, 2), baseline="fast", level=0.1)
    slow, fast = analysis.summarise(flipped, rows, analysis.choose(made, rows), "test")
    assert slow["difference"]["mean"] == pytest.approx(-0.02) and slow["difference"]["differs"]
    assert fast["difference"] is None


def test_pairs_are_compared_with_their_own_variant(spec):
    variants = {"base": (), "plain": (), "sound": (), "flawed": ()}
    made = spec(variants, seeds=(0, 1, 2), pairs={"flawed": "sound"})
    test = {
        ("base", 0): (0.1, 0.2, 0.3),
        ("plain", 0): (0.2, 0.31, 0.4),
        ("sound", 0): (0.5, 0.61, 0.7),
        ("flawed", 0): (0.45, 0.55, 0.66),
    }
    rows = rows_of(made, {key: (0.5, 0.5, 0.5) for key in test}, test)
    found = analysis.summarise(made, rows, analysis.choose(made, rows), "test")
    assert [row["reference"] for row in found] == ["base", "base", "sound", "sound"]
    base, plain, sound, flawed = (row["difference"] for row in found)
    assert base is None and sound is None
    assert plain["mean"] == pytest.approx(0.31 / 3)
    assert flawed["mean"] == pytest.approx(-0.05)


def test_which_is_best_is_asked_of_validation_and_corrected(spec):
    made = spec({"a": (), "b": (), "c": ()}, seeds=(0, 1, 2), question="best", fields={"seed": 0})
    validation = {("a", 0): (0.5, 0.5, 0.5), ("b", 0): (0.9, 0.8, 0.9), ("c", 0): (0.6, 0.6, 0.6)}
    test = {("a", 0): (0.7, 0.71, 0.7), ("b", 0): (0.60, 0.62, 0.61), ("c", 0): (0.5, 0.55, 0.5)}
    rows = rows_of(made, validation, test)
    found = analysis.summarise(made, rows, analysis.choose(made, rows), "test")
    assert {row["reference"] for row in found} == {"b"}  # although another is better on test
    a, b, c = found
    assert b["difference"] is None
    least, most = sorted((a["difference"], c["difference"]), key=lambda one: one["p"])
    assert least["p_corrected"] == pytest.approx(2 * least["p"])
    assert most["p_corrected"] == pytest.approx(max(2 * least["p"], most["p"]))


def test_a_run_that_diverged_is_not_left_out(spec):
    made = spec(seeds=(0, 1, 2))
    values = {("slow", 0): (0.1, 0.2, 0.3), ("fast", 0): (0.5, None, 0.5)}
    rows = rows_of(made, values)
    slow, fast = analysis.summarise(made, rows, analysis.choose(made, rows), "validation")
    assert slow["failed"] == 0 and fast["failed"] == 1
    assert fast["validation"]["n"] == 3 and math.isnan(fast["validation"]["mean"])
    assert math.isnan(fast["difference"]["mean"]) and fast["difference"]["differs"] is None


def test_differences_without_spread_say_nothing(spec):
    """Two seeds of the same difference, but for rounding: no measure of what is chance."""
    made = spec(question="best")
    values = {("slow", 0): (0.5, 0.6), ("fast", 0): (0.7, 0.8)}
    rows = rows_of(made, values)
    found = {
        row["variant"]: row["difference"]
        for row in analysis.summarise(made, rows, analysis.choose(made, rows), "validation")
    }
    assert found["fast"] is None and found["slow"]["mean"] == pytest.approx(-0.2)
    unknown = ("p", "p_corrected", "differs", "seeds_needed")
    assert [found["slow"][name] for name in unknown] == [None] * 4


def test_a_variant_that_holds_nothing_out_has_no_validation(spec):
    made = spec()
    rows = rows_of(made, {("slow", 0): (0.1, 0.2), ("fast", 0): (0.5, 0.5)})
    for row in rows[2:]:
        row |= {"held_out": False, "validation": None}
    _, fast = analysis.summarise(made, rows, analysis.choose(made, rows), "validation")
    assert (fast["validation"]["n"], fast["validation"]["mean"], fast["difference"]) == (
        0,
        None,
        None,
    )


def test_runs_to_come_do_not_count_yet(spec):
    made = spec(seeds=(0, 1, 2))
    rows = rows_of(made, {("slow", 0): (0.1, 0.2, 0.3), ("fast", 0): (0.5, 0.5, None)})
    rows[-1]["status"] = analysis.TO_BE_RUN
    _, fast = analysis.summarise(made, rows, analysis.choose(made, rows), "validation")
    assert (fast["validation"]["n"], fast["validation"]["mean"], fast["failed"]) == (2, 0.5, 0)
    assert fast["difference"]["n"] == 2


def test_pairs_are_of_one_seed_where_another_is_to_come(spec):
    made = spec(seeds=(0, 1, 2))
    rows = rows_of(made, {("slow", 0): (0.1, 0.2, 0.3), ("fast", 0): (None, 0.6, 0.9)})
    rows[3]["status"] = analysis.TO_BE_RUN
    _, fast = analysis.summarise(made, rows, analysis.choose(made, rows), "validation")
    assert fast["difference"]["values"] == pytest.approx({1: 0.4, 2: 0.6})
    assert fast["difference"]["mean"] == pytest.approx(0.5)


def test_p_values_of_all_numbers_of_labels_are_corrected_together(spec):
    made = spec(seeds=(0, 1, 2), shots=(2, 4), question="best")
    values = {("slow", 0): (0.1, 0.2, 0.3), ("fast", 0): (0.2, 0.32, 0.41)}
    rows = rows_of(made, values)
    rows[-1]["validation"] = 0.5  # with more labels, less alike
    found = analysis.summarise(made, rows, analysis.choose(made, rows), "validation")
    few, more = (row["difference"] for row in found if row["difference"] is not None)
    assert few["p"] < more["p"]
    assert few["p_corrected"] == pytest.approx(2 * few["p"])
    assert more["p_corrected"] == pytest.approx(max(more["p"], 2 * few["p"]))


@pytest.mark.parametrize("question", ["effects", "best"])
def test_of_nothing_a_difference_is_marked_as_rarely_as_the_level_says(spec, question):
    """200 specs of a variant under two names, ten seeds with noise of their own."""
    made = spec(seeds=tuple(range(10)), question=question)
    random = np.random.default_rng(0)
    marked = 0
    for _ in range(200):
        values = {key: tuple(random.normal(0.7, 0.01, 10)) for key in KEYS}
        test = {key: tuple(random.normal(0.7, 0.01, 10)) for key in KEYS}
        rows = rows_of(made, values, test)
        found = analysis.summarise(made, rows, analysis.choose(made, rows), "test")
        marked += any(row["difference"] and row["difference"]["differs"] for row in found)
    # 10 are expected; four standard deviations of a binomial are 12.
    assert 1 <= marked <= 22


KEYS = [("slow", 0), ("fast", 0)]
