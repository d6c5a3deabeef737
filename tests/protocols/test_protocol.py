"""Protocols: how terms are compared with what a run does, and what is said of deviations."""

import dataclasses

import pytest

from tl_jax import protocols
from tl_jax.config import default_config, set_field
from tl_jax.errors import InputError
from tl_jax.protocols import Facts, Protocol, protocol, terms

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def facts_of(config, **changes):
    """Returns the facts of a run at the terms of most protocols."""
    given = {
        "config": config,
        "phases": (config,),
        "steps": config.train.steps,
        "preprocessing": {**IMAGENET, "image_size": config.data.image_size, "resize": 256},
        "native": {**IMAGENET, "image_size": 224, "resize": 256},
        "train_examples": 45_000,
        "validation_examples": 5_000,
        **changes,
    }
    return Facts(**given)


def keeping(name):
    """Returns the facts of a run that keeps all terms of a protocol."""
    config = default_config(init__weights="resnet50.tv_in1k", model__name="resnet50")
    for assignment in protocols.assignments(name):
        # Fields of solved heads and of fitting rules are those of the config.
        set_field(config, assignment)
    more = {
        "kornblith2019_finetune": {"trials": 56},
        "lp_ft_table1": {
            "trials": 6,
            "steps": 14_063,
            "phases": tuple(_frozen(config, strategy) for strategy in ("backbone", "none")),
        },
        "bit_fewshot": {"validation_examples": 0},
        "vtab_1k": {"train_examples": 800, "validation_examples": 200, "trials": 4},
        "he2015_cifar": {"validation_examples": 0, "native": None},
    }
    if name == "bit_fewshot":
        config.data.examples_per_class = 10
    if name == "tllib_cifar10":
        config.data.validation_split = "test"
    if name == "he2015_cifar":
        config.model.name = "resnet56_cifar"
    return facts_of(config, **more.get(name, {}))


def _frozen(config, strategy):
    phase = config.copy_and_resolve_references()
    phase.freeze.strategy = strategy
    return phase


@pytest.mark.parametrize("name", protocols.list_protocols())
def test_a_run_with_the_terms_filled_in_conforms(name):
    found = protocols.report(name, keeping(name))
    assert (found["name"], found["conforms"], found["deviations"]) == (name, True, [])
    assert protocols.lines(found) == [f"protocol {name}: conforms"]
    assert found["claims"] and all(50 < claim["accuracy"] < 100 for claim in found["claims"])


def test_three_planted_deviations_are_each_listed():
    """A smaller image, steps chosen by the test split, another normalisation."""
    facts = keeping("kornblith2019_finetune")
    facts.config.data.validation_split = "test[:50%]"
    preprocessing = {**facts.preprocessing, "image_size": 96, "mean": (0.5, 0.5, 0.5)}
    found = protocols.report(
        "kornblith2019_finetune", dataclasses.replace(facts, preprocessing=preprocessing)
    )
    assert not found["conforms"]
    assert protocols.lines(found) == [
        "protocol kornblith2019_finetune: resolution: expected 224 pixels, found 96",
        "protocol kornblith2019_finetune: normalisation: expected that of the weights, found mean [0.5, 0.5, 0.5]",
        "protocol kornblith2019_finetune: selection: expected images held out of train, found the test split",
    ]


@pytest.mark.parametrize(
    ("name", "changes", "fields", "deviation"),
    [
        ("kornblith2019_finetune", {"trials": 3}, {}, ("number of trials", "56", "3")),
        ("kornblith2019_finetune", {"steps": 300}, {}, ("length", "20,000 updates", "300 updates")),
        (
            "kornblith2019_finetune",
            {},
            {"optim.schedule": "constant"},
            ("optim.schedule", "cosine", "constant"),
        ),
        (
            "kornblith2019_finetune",
            {"native": None},
            {},
            ("normalisation", "that of the weights", "weights that do not say how theirs was"),
        ),
        (
            "kornblith2019_finetune",
            {"validation_examples": 0},
            {},
            ("selection", "images held out of train", "nothing held out"),
        ),
        (
            "kornblith2019_finetune",
            {},
            {"data.validation_split": "val"},
            ("selection", "images held out of train", "val, a split of its own"),
        ),
        (
            "kornblith2019_finetune",
            {},
            {"init.weights": ""},
            ("initialisation", "pretrained weights", "random weights"),
        ),
        (
            "kornblith2019_finetune",
            {},
            {"data.test_split": "test[:10%]"},
            ("test split", "all of it", "test[:10%]"),
        ),
        (
            "kornblith2019_finetune",
            {},
            {"data.folds": 5, "data.fold": 2},
            ("test split", "all of it", "fold 2 of train"),
        ),
        ("lp_ft_table1", {"steps": 7_000}, {}, ("length", "20 epochs", "9.956 epochs")),
        (
            "lp_ft_table1",
            {},
            {"augment.flip": True, "augment.mixing": ("mixup=0.2",)},
            ("augmentation", "none", "flip, mixup=0.2"),
        ),
        (
            "bit_fewshot",
            {},
            {"data.examples_per_class": 20},
            ("labels per class", "one of 1, 5, 10, 25, 100", "20"),
        ),
        (
            "bit_fewshot",
            {},
            {"data.examples_per_class": 0},
            ("labels per class", "one of 1, 5, 10, 25, 100", "all"),
        ),
        (
            "vtab_1k",
            {"train_examples": 900, "validation_examples": 100},
            {},
            ("training images", "1,000, or 800 and 200 to choose by", "900 and 100 to choose by"),
        ),
        (
            "tllib_cifar10",
            {},
            {"data.validation_split": ""},
            ("selection", "the test split", "images held out of train"),
        ),
        (
            "tllib_cifar10",
            {},
            {"optim.step_steps": (5_000,)},
            ("optim.step_steps", "(6000,)", "(5000,)"),
        ),
        (
            "he2015_cifar",
            {},
            {"model.name": "resnet18"},
            ("network", "a CIFAR ResNet of depth 20, 32, 44, 56 or 110", "resnet18"),
        ),
        (
            "he2015_cifar",
            {},
            {"init.weights": "resnet20_cifar.tin32"},
            ("initialisation", "random weights", "resnet20_cifar.tin32"),
        ),
    ],
)
def test_each_deviation_is_named_with_what_was_found(name, changes, fields, deviation):
    facts = dataclasses.replace(keeping(name), **changes)
    facts.config.update_from_flattened_dict(fields)
    found = protocols.report(name, facts)
    assert [tuple(row.values()) for row in found["deviations"]] == [deviation]


def test_phases_that_are_others():
    facts = keeping("lp_ft_table1")
    found = protocols.report("lp_ft_table1", dataclasses.replace(facts, phases=(facts.config,)))
    assert protocols.lines(found) == [
        "protocol lp_ft_table1: phases: expected the head alone, then all parameters, found freeze.strategy=none"
    ]


def test_trials_that_are_known_later():
    facts = dataclasses.replace(keeping("kornblith2019_finetune"), trials=1)
    single = protocols.report("kornblith2019_finetune", facts)
    assert [row["found"] for row in single["deviations"]] == ["1"]
    assert protocols.with_trials(single, 56)["conforms"]
    assert protocols.with_trials(single, 7)["deviations"] == [
        {"term": "number of trials", "expected": "56", "found": "7"}
    ]
    without = protocols.report("kornblith2019_logistic", keeping("kornblith2019_logistic"))
    assert protocols.with_trials(without, 5) == without


def test_names():
    with pytest.raises(InputError, match=r"^unknown protocol 'he2015'; nearest: he2015_cifar"):
        protocols.assignments("he2015")
    ours = protocols.get("vtab_1k")
    with pytest.raises(InputError, match="a protocol 'vtab_1k' is registered already"):
        protocols.register(ours)
    protocols.register(ours, replace=True)
    assert protocols.lines(None) == []


def test_an_own_protocol(monkeypatch):
    monkeypatch.setattr(protocol, "_PROTOCOLS", dict(protocol._PROTOCOLS))
    protocols.register(
        Protocol("mine", "Small images.", "Nobody 2026.", (terms.resolution(8), terms.trials(1)))
    )
    assert protocols.assignments("mine") == ("report.protocol=mine", "data.image_size=8")
    found = protocols.report("mine", facts_of(default_config(data__image_size=16)))
    assert protocols.lines(found) == ["protocol mine: resolution: expected 8 pixels, found 16"]
    lines = protocols.page().splitlines()
    assert lines[lines.index("### mine") :] == [
        "### mine",
        "",
        "Small images. Nobody 2026.",
        "",
        "| term | expected |",
        "|---|---|",
        "| resolution | 8 pixels |",
        "| number of trials | 1 |",
    ]
    assert "- ResNet-56, CIFAR-10: 93.03% (He et al. 2015, table 6)" in lines
    assert any(line.startswith("Not compared: With the chosen values") for line in lines)
