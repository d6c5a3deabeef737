"""What a spec may say, and the cells that it expands to."""

import copy
import re

import numpy as np
import pytest
from running import tiny_config

from tl_jax import ablation
from tl_jax.ablation import cells
from tl_jax.config import default_config
from tl_jax.errors import InputError


def test_a_cell_for_every_variant_shots_trial_and_seed(spec):
    made = spec(
        shots=(1, 3),
        tune={"optim.learning_rate": (0.1, 0.2), "optim.momentum": (0.0, 0.9)},
        variants={"head": "linear_probe", "all": "full_finetune"},
        seeds=(4, 5, 6),
    )
    found = cells.expand(made)
    assert len(found) == 2 * 2 * 4 * 3
    last = found[-1]
    assert (last.variant, last.shots, last.trial, last.seed) == ("all", 3, 3, 6)
    assert last.values == {"optim.learning_rate": 0.2, "optim.momentum": 0.9}
    config = last.config
    assert (config.seed, config.data.seed, config.data.examples_per_class) == (6, 6, 3)
    assert (config.optim.learning_rate, config.optim.momentum) == (0.2, 0.9)
    assert {cell.config.freeze.strategy for cell in found} == {"backbone", "none"}
    assert len({cell.name for cell in found}) == len(found)
    # What is compared in pairs is run together.
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)


def test_without_shots_a_variant_may_say_how_many_labels(spec):
    made = spec(variants={"few": ("data.examples_per_class=1",), "more": ()})
    assert {cell.variant: cell.config.data.examples_per_class for cell in cells.expand(made)} == {
        "few": 1,
        "more": 2,
    }


def test_a_variant_may_tune_other_values_of_as_many_trials(spec):
    tune = {"optim.learning_rate": (0.1, 0.2)}
    made = spec(tune=tune, tune_of={"slow": {"optim.momentum": (0.1, 0.2)}}, variants=VARIANTS)
    assert made.trials("slow") == [{"optim.momentum": 0.1}, {"optim.momentum": 0.2}]
    assert made.trials("fast") == [{"optim.learning_rate": 0.1}, {"optim.learning_rate": 0.2}]


VARIANTS = {"slow": ("optim.warmup_steps=2",), "fast": ()}


def test_a_folder_is_named_by_what_can_change_a_number(spec):
    one, other = (cells.expand(spec())[0] for _ in range(2))
    assert one.name == other.name
    quiet = cells.expand(spec(fields={"report__html": True, "data__workers": 1}))[0]
    assert quiet.name == one.name
    longer = cells.expand(spec(fields={"train__steps": 7}))[0]
    assert longer.name != one.name and longer.name.parent == one.name.parent


def test_a_field_of_a_later_version_changes_no_name():
    config = default_config(optim__learning_rate=0.3)
    digest = cells.digest(config)
    config.unlock()
    config.optim.of_later = 1
    assert cells.digest(config) != digest
    del config.optim["of_later"]
    del config.optim["nesterov"]  # at its default, as in a version that did not have it
    assert cells.digest(config) == digest


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": ()}, "seeds: expected one at least"),
        ({"seeds": 5}, "seeds=5: expected several in a tuple, (5,)"),
        ({"test": "slow"}, "test='slow': expected several in a tuple, ('slow',)"),
        ({"variants": ["a"]}, 'variants is a list: expected {name: ("field=value", ...)}'),
        (
            {"variants": {"a": 1}},
            'variant a is 1: expected assignments in a tuple, ("field=value",)',
        ),
        ({"variants": {"a": ("optim.lr=1",)}}, "variant a: unknown config field 'optim.lr'"),
        (
            {"variants": {"a": ("train.steps=x",)}},
            "variant a: train.steps=x: expected an integer",
        ),
        ({"tune": ["optim.momentum"]}, "tune is a list: expected {field: (value, ...)}"),
        (
            {"tune": {"optim.momentum": "0.1"}},
            "tune: optim.momentum='0.1': expected several values in a tuple, ('0.1',)",
        ),
        ({"tune": {"optim.momentum": 0.1}}, "tune: optim.momentum=0.1: expected several values"),
        (
            {"tune": {"optim.momentum": ("x", 0.1)}},
            "variant slow: optim.momentum='x': expected a number",
        ),
        (
            {"tune": {"optim.momentum": {0.1: 0.2}}},
            "tune: optim.momentum={0.1: 0.2}: expected several",
        ),
        (
            {"tune": {"optim.momentum": (0.1, 0.1)}},
            "optim.momentum=(0.1, 0.1): a value is there twice",
        ),
        ({"level": "0.05"}, "level='0.05': expected a number between 0 and 1"),
        ({"metric": ["loss"]}, "metric=['loss']: expected a text"),
        (
            {"pairs": ("slow", "fast")},
            "pairs=('slow', 'fast'): expected {variant: another variant}",
        ),
        ({"pairs": {"slow": 1}}, "pairs={'slow': 1}: expected {variant: another variant}"),
        ({"pairs": {"slow": "fats"}}, "unknown variant in pairs 'fats'; nearest: fast"),
        ({"pairs": {"slwo": "fast"}}, "unknown variant in pairs 'slwo'; nearest: slow"),
        (
            {"pairs": {"slow": "fast", "fast": "slow"}},
            "pairs: slow is compared with fast, and others with slow: expected one of them",
        ),
        ({"pairs": {"slow": "slow"}}, "pairs: slow is compared with slow, and others with slow"),
        (
            {"pairs": {"slow": "fast"}, "question": "best"},
            "pairs have no effect with question='best'",
        ),
        ({"baseline": 0}, "baseline=0: expected a text"),
        ({"seeds": ([0], [1])}, "seeds=([0], [1]): expected numbers or texts"),
        ({"variants": {1: ()}}, "variant 1: expected a text as its name"),
        ({"variants": {"a" * 101: ()}}, "of them at most"),
        ({"tune_of": {"slow": 3}}, "tune_of['slow'] is a int: expected {field: (value, ...)}"),
        ({"seeds": (1, 1)}, "seeds=(1, 1): a value is there twice"),
        ({"shots": (5, 5)}, "shots=(5, 5): a value is there twice"),
        ({"seeds": (0, -1)}, "seeds: seed=-1: expected an integer from 0 "),
        ({"seeds": (0, 0.5)}, "seeds: seed=0.5: expected an integer"),
        ({"shots": (5, -1)}, "shots: data.examples_per_class=-1: expected an integer from 0 "),
        (
            {"further_metrics": ("macro_f2",)},
            "unknown further metric 'macro_f2'; nearest: macro_f1",
        ),
        ({"baseline": "slwo"}, "unknown variant in baseline 'slwo'; nearest: slow"),
        ({"test": ("fats",)}, "unknown variant in test 'fats'; nearest: fast"),
        ({"metric": "top1"}, "unknown metric 'top1'; nearest: top1_accuracy"),
        ({"question": "bets"}, "unknown question 'bets'; nearest: best"),
        ({"level": 5.0}, "level=5.0: expected a number between 0 and 1"),
        ({"variants": {"a b": ()}}, "variant 'a b': expected letters, digits"),
        ({"variants": {"../a": ()}}, "variant '../a': expected letters, digits"),
        ({"variants": {"a": "linear_prob"}}, "unknown strategy of variant a 'linear_prob'"),
        (
            {"variants": {"a": "optim.momentum=0.5"}},
            "variant a is 'optim.momentum=0.5': assignments go into a tuple, ('optim.momentum=0.5',)",
        ),
        ({"variants": {"a": ("seed=3",)}}, "variant a sets seed: give seeds"),
        ({"variants": {"a": ("data.seed=3",)}}, "variant a sets data.seed: give seeds"),
        (
            {"variants": {"a": ("data.examples_per_class=3",)}, "shots": (1,)},
            "variant a sets data.examples_per_class: give shots",
        ),
        ({"tune": {"optim.lerning_rate": (1.0,)}}, "unknown field 'optim.lerning_rate'"),
        ({"tune": {"optim.momentum": ()}}, "tune: optim.momentum has no values"),
        (
            {"tune": {"optim.learning_rate": (0.1, 0.2)}},
            "variant slow sets optim.learning_rate twice",
        ),
        (
            {"tune": {"optim.momentum": (0.1,)}, "tune_of": {"fast": {"optim.momentum": (0, 0.1)}}},
            "every variant has as many trials as any other: tune has 1, tune_of['fast'] has 2",
        ),
        (
            {
                "tune": {"optim.momentum": (0.1, 0.2)},
                "fields": {"data__validation_fraction": 0.0},
            },
            "what is tuned is chosen by validation, and the base holds nothing out",
        ),
        (
            {"question": "best", "fields": {"data__validation_fraction": 0.0}},
            "which variant is best is chosen by validation, and the base holds nothing out",
        ),
    ],
)
def test_what_does_not_fit_is_refused(spec, given, message):
    given = dict(given)
    fields = given.pop("fields", {})
    if "data__validation_fraction" in fields:
        with pytest.raises(InputError, match=re.escape(message)):
            made = spec()
            made.base.data.validation_fraction = 0.0
            ablation.Spec(made.base, made.variants, made.seeds, **given)
        return
    with pytest.raises(InputError, match=re.escape(message)):
        spec(**given)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"a": ("optim.lerning_rate=1",)}, "variant a: unknown config field 'optim.lerning_rate'"),
        ({"a": ("optim.momentum=x",)}, "variant a: optim.momentum=x: expected a number"),
    ],
)
def test_a_variant_names_what_it_cannot_set(spec, variants, message):
    with pytest.raises(InputError, match=re.escape(message)):
        cells.expand(spec(variants))


def test_strategies_by_name_set_what_they_say(spec):
    names = ("random_init", "linear_probe", "full_finetune")
    made = spec({name: name for name in names}, seeds=(0,))
    made.base.init.weights = "resnet20_cifar.tin32"
    made.base.freeze.strategy = "up_to:stage1"
    found = {cell.variant: cell.config for cell in cells.expand(made)}
    assert [found[name].init.weights for name in names] == ["", *["resnet20_cifar.tin32"] * 2]
    assert [found[name].freeze.strategy for name in names[1:]] == ["backbone", "none"]


def test_the_name_of_a_run_is_the_same_in_every_version():
    config = default_config(
        seed=3, data__seed=3, optim__learning_rate=0.05, freeze__strategy="backbone"
    )
    assert cells.digest(config) == "207ef0915c"


def test_a_base_that_is_no_config_and_no_variants(spec):
    with pytest.raises(InputError, match=r"^base is a dict: expected a config, such as"):
        ablation.Spec({}, {"a": ()}, (0,))
    with pytest.raises(InputError, match=r"^variants: expected one at least$"):
        ablation.Spec(default_config(), {}, (0,))


def test_values_may_be_arrays(spec):
    made = spec(tune={"optim.momentum": np.linspace(0.0, 0.5, 2)}, seeds=np.arange(2))
    assert made.trials("slow") == [{"optim.momentum": 0.0}, {"optim.momentum": 0.5}]
    own = {"slow": {"optim.momentum": np.full(1, 0.5)}}
    made = spec(tune={"optim.momentum": (0.0,)}, tune_of=own)
    assert made.trials("slow") == [{"optim.momentum": 0.5}]


def test_a_file_is_read_and_its_base_changed(tmp_path):
    path = tmp_path / "spec.py"
    path.write_text(
        "import tl_jax\nfrom tl_jax.ablation import Spec\n"
        "def get_spec():\n    return Spec(tl_jax.default_config(), {'a': ()}, (0,))\n"
    )
    made = ablation.load_spec(path, ["data.data_dir=there"])
    assert made.base.data.data_dir == "there" and made.reference == "a"
    with pytest.raises(InputError, match=r"unknown config field 'data\.dir'"):
        ablation.load_spec(str(path), ["data.dir=there"])
    with pytest.raises(InputError, match=r"--config\.seed has no effect: the spec gives seeds"):
        ablation.load_spec(path, ["seed=3"])
    for text, message in [
        ("", rf"^spec {path} defines no get_spec\(\)$"),
        ("def get_spec(): return 1", r"returned int, expected a tl_jax\.ablation\.Spec"),
        ("def get_spec(): return 1 / 0", "does not run: ZeroDivisionError"),
        ("raise SystemExit('bye')", "does not run: SystemExit: bye"),
        ("import nothing_there", "does not run: ModuleNotFoundError"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            ablation.load_spec(path)
    with pytest.raises(InputError, match="unknown spec"):
        ablation.load_spec(tmp_path / "spce.py")


def test_a_variant_may_be_a_config(spec):
    """What differs from the base is assigned; what the spec gives to all, and an object of the caller's, stay."""
    other = tiny_config(
        data__validation_fraction=0.0,
        preprocess__mean=(0.5, 0.25, 0.5),
        model__stem="",
        augment__flip=True,
        optim__learning_rate=0.3,
        init__reset=("head/.*", "a,b"),
        seed=7,
        data__seed=8,
        data__examples_per_class=3,
    )
    given = {"base": (), "other": other}
    made = spec(given, shots=(2,))
    assert given["other"] is other and isinstance(made.to_json()["variants"]["other"], list)
    assert made.assignments("base") == () and all(
        "seed" not in one for one in made.variants["other"]
    )
    of = {cell.variant: cell for cell in cells.expand(made) if cell.seed == 1}
    expected = copy.deepcopy(other)
    expected.seed = expected.data.seed = 1
    expected.data.examples_per_class = 2
    assert of["other"].config.to_dict() == expected.to_dict()
    assert of["base"].config.data.validation_fraction == 0.2
    without = spec(given)
    assert "data.examples_per_class=3" in without.assignments("other")


def test_a_config_is_compared_with_the_base_as_the_spec_was_made(spec, tmp_path):
    path = tmp_path / "spec.py"
    path.write_text(
        "import tl_jax\nfrom tl_jax.ablation import Spec\n\n"
        "def get_spec():\n"
        "    base, other = tl_jax.default_config(), tl_jax.default_config(optim__learning_rate=0.3)\n"
        "    return Spec(base, {'a': (), 'b': other}, (0,))\n"
    )
    made = ablation.load_spec(path, ("data.data_dir=there",))
    assert made.assignments("b") == ("optim.learning_rate=0.3",)
    assert made.base.data.data_dir == "there"


def test_what_a_variant_is_compared_with(spec):
    variants = {"one": (), "two": (), "sound": (), "flawed": ()}
    made = spec(variants, pairs={"flawed": "sound"})
    found = {name: made.compared_with(name) for name in variants}
    assert found == {"one": "one", "two": "one", "sound": "sound", "flawed": "sound"}
