"""From made-up evidence to sentences: what they say, and the numbers in them."""

import numpy as np
import pytest

from tl_jax import advice
from tl_jax.advice import findings, sentences
from tl_jax.advice.evidence import Evidence, Judged


def judged(boundary, right, of=200, shifted=0):
    """Returns a boundary at which so many of the images are right, from `shifted` on."""
    correct = np.roll(np.arange(of) < right, shifted)
    return Judged(boundary, 8, np.roll(correct, 1), correct)


RANDOM = (judged("pool", 40),)


def evidence_of(pretrained, random=RANDOM, **fields):
    values = {
        "data": "digits",
        "network": "resnet20_cifar",
        "weights": "resnet20_cifar.tin32",
        "train_images": 1000,
        "labels_per_class": 100,
        "least_labels": 90,
        "classes": 10,
        "images": 200,
        "shift": 0.25,
        "images_per_second": 500.0,
        "updates": 100,
        "batch_size": 50,
    }
    return Evidence(pretrained=tuple(pretrained), random=tuple(random), **(values | fields))


def finding(
    spec, variant, accuracy, difference=None, shots=10, width=0.01, network="net", freeze="none"
):
    interval = None if difference is None else (difference - width, difference + width)
    return advice.Finding(
        spec,
        "some",
        network,
        shots,
        variant,
        5,
        accuracy,
        "full_finetune",
        difference,
        interval,
        9.0,
        freeze,
    )


def of(question, evidence, found=()):
    return [one for one in advice.say(evidence, found) if one.question == question]


def test_every_question_is_answered_in_order():
    said = advice.say(evidence_of([judged("pool", 100)]), ())
    assert list(dict.fromkeys(one.question for one in said)) == list(sentences.QUESTIONS)
    assert all(any(digit.isdigit() for digit in one.text) for one in said if one.numbers)


@pytest.mark.parametrize(
    ("right", "verdict", "opening"),
    [(100, "yes", "Yes"), (10, "no", "No: "), (42, "unclear", "No difference is seen")],
)
def test_transfer_pays_where_the_interval_says_so(right, verdict, opening):
    first, *_ = of("transfer", evidence_of([judged("pool", right)]))
    assert first.verdict == verdict and first.text.startswith(opening)
    assert first.numbers["pretrained"] == right / 200 and first.numbers["random"] == 0.2
    assert first.numbers["difference"] == pytest.approx(right / 200 - 0.2)
    low, high = first.numbers["interval"]
    assert low < first.numbers["difference"] < high
    assert f"{right / 2:.1f}% after pool" in first.text and "chance 10.0%" in first.text


def test_the_control_is_the_best_boundary_of_the_random_network():
    random = [judged("stem", 90, shifted=60), judged("pool", 40)]
    first, *_ = of("transfer", evidence_of([judged("pool", 100)], random))
    assert first.numbers["random"] == 0.45 and first.verdict == "unclear"


def test_neighbors_and_statistics():
    _, neighbors, shift = of("transfer", evidence_of([judged("pool", 100)]))
    assert neighbors.numbers == {"pretrained": 0.5, "random": 0.2}
    assert "50.0% and 20.0%" in neighbors.text
    assert "0.25 standard deviations" in shift.text and shift.numbers == {"shift": 0.25}
    assert len(of("transfer", evidence_of([judged("pool", 100)], shift=None))) == 2


def test_the_last_features_are_frozen_where_nothing_is_better():
    (said,) = of("depth", evidence_of([judged("stage1", 60), judged("pool", 100)]))
    assert said.verdict == "freeze.strategy=backbone" and "50.0%" in said.text
    # Of equals the last.
    (said,) = of("depth", evidence_of([judged("stage1", 100), judged("pool", 100)]))
    assert "no features are better than the last ones" in said.text


def test_earlier_features_that_are_better_say_where_to_freeze():
    (said,) = of("depth", evidence_of([judged("stage1", 120), judged("pool", 60)]))
    assert said.verdict == "freeze.strategy=up_to:stage1"
    assert (said.numbers["best"], said.numbers["last"]) == (0.6, 0.3)
    assert "60.0%" in said.text and "30.0% (+30.0 points" in said.text


def test_a_difference_that_is_not_seen_freezes_nothing_else():
    (said,) = of("depth", evidence_of([judged("stage1", 101, shifted=60), judged("pool", 100)]))
    assert said.verdict == "freeze.strategy=backbone" and "no difference that is seen" in said.text


def test_what_was_found_about_depth_is_said_after():
    found = [
        finding("a_depth", "head", 0.5),
        finding("a_depth", "last_stage", 0.6, 0.1),
        finding("a_depth", "all", 0.7, 0.2, shots=1000),
    ]
    _, said = of("depth", evidence_of([judged("pool", 100)], labels_per_class=12), found)
    assert "last_stage was best, 60.0% on test, +10.0 points, +9.0 to +11.0" in said.text
    assert "10 labels per class (a_depth)" in said.text and said.numbers["shots"] == 10


DEEPER = {
    "last_stage": ("resnet20_cifar", "up_to:stage2", 0.01),
    "all": ("resnet20_cifar", "none", 0.1),  # better by no interval
    "phases": ("resnet20_cifar", "", 0.01),
    "of another network": ("net", "up_to:stage1", 0.01),
}


def depths(names, differences):
    return [
        finding("a_depth", "head", 0.5, network="resnet20_cifar", freeze="backbone"),
        *(
            finding(
                "a_depth",
                name,
                0.5 + difference,
                difference,
                network=DEEPER[name][0],
                freeze=DEEPER[name][1],
                width=DEEPER[name][2],
            )
            for name, difference in zip(names, differences, strict=True)
        ),
    ]


def test_what_was_better_than_the_head_is_trained():
    """The best of what an interval shows, of the same network, unless earlier features are better."""
    found = depths(DEEPER, (0.05, 0.08, 0.3, 0.2))
    first, *_ = of("depth", evidence_of([judged("stage1", 60), judged("pool", 100)]), found)
    assert first.verdict == "freeze.strategy=up_to:stage2"
    assert "with 10 labels per class last_stage was better than full_finetune" in first.text
    assert "+5.0 points, +4.0 to +6.0; a_depth" in first.text and "50.0%" in first.text
    assert first.numbers["deeper"] == 0.05 and first.numbers["shots"] == 10
    first, *_ = of("depth", evidence_of([judged("stage1", 120), judged("pool", 60)]), found)
    assert first.verdict == "freeze.strategy=up_to:stage1"
    unseen = evidence_of([judged("stage1", 101, shifted=60), judged("pool", 100)])
    first, *_ = of("depth", unseen, found)
    assert first.verdict == "freeze.strategy=up_to:stage2" and "no difference that" in first.text


@pytest.mark.parametrize("name", ["all", "phases", "of another network"])
def test_what_does_not_say_to_train_more(name):
    found = depths([name], [0.05])
    first, *_ = of("depth", evidence_of([judged("pool", 100)]), found)
    assert first.verdict == "freeze.strategy=backbone"


def test_a_reference_that_nothing_beats():
    found = [finding("a_depth", "head", 0.5), finding("a_depth", "all", 0.4, -0.1)]
    _, said = of("depth", evidence_of([judged("pool", 100)]), found)
    assert "nothing was better than head, 50.0% on test" in said.text


def test_the_first_strategy_is_the_best_on_average_over_data_sets():
    found = [
        finding("a_strategies", "full_finetune", 0.5),
        finding("a_strategies", "lp_ft", 0.54, 0.04),
        finding("a_strategies", "sam", 0.56, 0.06),
        finding("b_strategies", "full_finetune", 0.5),
        finding("b_strategies", "lp_ft", 0.55, 0.05),
        finding("b_strategies", "sam", 0.48, -0.02),
        finding("b_strategies", "only_there", 0.9, 0.4),
    ]
    first, *each = of("strategy", evidence_of([judged("pool", 100)]), found)
    assert first.verdict == "lp_ft" and first.numbers["difference"] == pytest.approx(0.045)
    assert "of 3 strategies" in first.text and "+4.5 points from full_finetune" in first.text
    assert [one.numbers["variant"] for one in each] == ["sam", "only_there"]


def test_a_difference_that_is_noise_is_called_so():
    found = [
        finding("a_strategies", "full_finetune", 0.5),
        finding("a_strategies", "sam", 0.505, 0.005),
    ]
    _, said = of("strategy", evidence_of([judged("pool", 100)]), found)
    assert said.text.endswith("no difference that is seen.")


def test_without_findings_nothing_is_recommended():
    (said,) = of("strategy", evidence_of([judged("pool", 100)]))
    assert not said.verdict and "No shipped ablation" in said.text


def test_cost():
    (said,) = of("cost", evidence_of([judged("pool", 100)]))
    # 1,000 images once at 500 a second; 100 updates of 50 images, three passes each.
    assert said.numbers["features_seconds"] == 2 and said.numbers["updates_seconds"] == 30
    assert "2.0 s" in said.text and "30.0 s" in said.text
    (said,) = of("cost", evidence_of([judged("pool", 100)], updates=1000))
    assert "about 5 min" in said.text


@pytest.mark.parametrize(
    ("labels", "shots"), [(1, 5), (9, 5), (10, 5), (11, 20), (45, 100), (5000, 100), (44, 20)]
)
def test_the_nearest_number_of_labels_by_ratio(labels, shots):
    """44 is 2.2 times 20, and 100 is 2.27 times 44."""
    found = [finding("a", "x", 0.5, shots=number) for number in (5, 20, 100)]
    assert {one.shots for one in findings.nearest(found, labels)} == {shots}


def test_specs_have_their_own_nearest_numbers():
    found = [
        finding("a", "x", 0.5, shots=5),
        finding("a", "x", 0.5, shots=100),
        finding("b", "x", 0.5, shots=50),
        finding("c", "x", 0.5, shots=0),
    ]
    assert [(one.spec, one.shots) for one in findings.nearest(found, 90)] == [("a", 100), ("b", 50)]
