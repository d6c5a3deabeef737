"""What runs cost, and what a variant brings for the time that it takes more."""

import pytest

from tl_jax.ablation import analysis, costs


def table(made, seconds, test, devices=2):
    """Returns the table of costs; seconds, test: {variant: a value for each seed}."""
    rows = [
        {
            "variant": variant,
            "shots": 2,
            "trial": 0,
            "seed": seed,
            "status": "finished" if seconds[variant][seed] is not None else "failed",
            "validation": 0.5,
            "test": test[variant][seed],
            "seconds": seconds[variant][seed],
            "devices": devices,
        }
        for variant in made.variants
        for seed in made.seeds
    ]
    chosen = analysis.choose(made, rows)
    return costs.table(made, rows, chosen, analysis.summarise(made, rows, chosen, "test"))


LONGER = {"slow": (10.0, 20.0), "fast": (39.9, 50.1)}
BETTER = {"slow": (0.5, 0.6), "fast": (0.599, 0.701)}


def test_device_seconds_are_compared_in_pairs(spec):
    reference, other = table(spec(), LONGER, BETTER)
    assert reference["device-seconds, difference"] == "(compared with)"
    assert reference["effect per device-minute"] == "-"
    # 30 s on two devices are a device-minute.
    assert other["device-seconds, difference"] == "+60 (+57.46 to +62.54), n=2"
    assert other["effect per device-minute"] == "+10 points"
    assert (other["time of a run"], other["in all"]) == ("45.0 s", "1:30 min")


@pytest.mark.parametrize(
    ("seconds", "test"),
    [
        ({**LONGER, "fast": (10.5, 50.0)}, BETTER),
        (LONGER, {**BETTER, "fast": (0.6, 0.9)}),
        ({**LONGER, "fast": (40.0, None)}, BETTER),
        ({**LONGER, "fast": (40.0, 50.0)}, BETTER),
        (LONGER, {**BETTER, "fast": (0.6, 0.7)}),
    ],
    ids=["time is noise", "effect is noise", "one pair", "equal times", "equal effects"],
)
def test_no_effect_of_time_where_either_could_be_nothing(spec, seconds, test):
    assert table(spec(), seconds, test)[1]["effect per device-minute"] == "-"


def test_device_seconds_are_those_of_the_trial_that_was_chosen(spec):
    made = spec(tune={"optim.momentum": (0.0, 0.9)})
    rows = [
        {
            "variant": variant,
            "shots": 2,
            "trial": trial,
            "seed": seed,
            "status": "finished",
            "validation": 0.5 - trial / 10,
            "test": BETTER[variant][seed],
            "seconds": LONGER[variant][seed] + (1000.0 if trial and variant == "fast" else 0.0),
            "devices": 2,
        }
        for variant in made.variants
        for trial in (0, 1)
        for seed in made.seeds
    ]
    chosen = analysis.choose(made, rows)
    assert set(chosen.values()) == {0}
    test = analysis.summarise(made, rows, chosen, "test")
    _, other = costs.table(made, rows, chosen, test)
    assert other["device-seconds, difference"] == "+60 (+57.46 to +62.54), n=2"
    assert other["effect per device-minute"] == "+10 points"


def test_a_loss_has_no_points(spec):
    assert table(spec(metric="loss"), LONGER, BETTER)[1]["effect per device-minute"] == "+0.1"


def test_without_devices_there_is_no_difference(spec):
    other = table(spec(), LONGER, BETTER, devices=None)[1]
    assert other["device-seconds, difference"] == "-" == other["effect per device-minute"]


def test_what_a_result_says_of_its_cost():
    groups = [{"trainable": 3, "parameters": 5}, {"trainable": 4, "parameters": 4}]
    result = {"parameters": groups, "device": {"count": 8}, "train_examples": 50}
    result |= {"wall_seconds": 12.0}
    expected = {"trainable": 7, "parameters": 9, "devices": 8, "train_examples": 50}
    assert costs.of_result(result, 5.0) == expected | {"seconds": 5.0, "together": 1}
    assert costs.of_result(result, None) == expected | {"seconds": 12.0, "together": 1}
    shared = costs.of_result(result | {"dispatch": {"together": 4}}, None)
    assert shared == expected | {"seconds": 3.0, "together": 4}
    needed = costs.of_result(result | {"shared_seconds": 30.0}, 5.0)
    assert needed == expected | {"seconds": 35.0, "together": 1}
    for seconds in (None, 5.0):  # a run that failed has no cost
        assert set(costs.of_result(None, seconds).values()) == {None}
    assert costs.of_result({}, None)["seconds"] is None
