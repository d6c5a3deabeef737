"""The table of all fields: complete, and each default allowed."""

import pathlib

import ml_collections
import pytest

import tl_jax
from tl_jax import config as configs
from tl_jax.config import COMMAND_SECTIONS, FIELDS, SECTIONS
from tl_jax.config.field import Field
from tl_jax.errors import InputError

PAGE = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "config.md"


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())
def test_a_default_is_allowed_and_the_field_is_described(field):
    assert field.type_problem(field.default) is None
    if field.kind is not dict:
        assert field.value_problem(field.default) is None
    assert field.help and "\n" not in field.help and not field.help.endswith(".")
    assert field.section == "" or field.section in SECTIONS


def test_the_default_config_has_every_field_and_no_other():
    config = tl_jax.default_config()
    assert {*configs.flat(config), "compare.methods"} == FIELDS.keys()
    for name, value in configs.flat(config).items():
        assert value == FIELDS[name].default and type(value) is FIELDS[name].kind
    with pytest.raises(AttributeError, match="mixup"):
        config.augment.mixup = 1
    with pytest.raises(AttributeError, match="early"):
        config.early = ml_collections.ConfigDict()
    config.compare.methods.mine = ("seed=1",)


def test_overrides():
    config = tl_jax.default_config(
        optim__learning_rate=1, freeze__patterns=("stem/.*",), report__html=False
    )
    assert (config.optim.learning_rate, config.freeze.patterns) == (1.0, ("stem/.*",))
    assert type(config.optim.learning_rate) is float and config.report.html is False
    assert tl_jax.default_config().report.html is True


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optim__lr": 1.0}, "unknown config field 'optim.lr'; nearest: optim.learning_rate"),
        ({"train__steps": 1.5}, "train.steps=1.5: expected an integer"),
        ({"train__steps": True}, "train.steps=True: expected an integer"),
        ({"optim__learning_rate": float("nan")}, "optim.learning_rate=nan: expected a number"),
        ({"freeze__patterns": (1,)}, "freeze.patterns=(1,): expected a tuple of texts"),
    ],
)
def test_wrong_overrides(overrides, message):
    with pytest.raises(InputError) as raised:
        tl_jax.default_config(**overrides)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("within", "value", "inside"),
    [
        ("[0, 1)", 0, True),
        ("[0, 1)", 1.0, False),
        ("(0, 1]", 0.0, False),
        ("(0, 1]", 1, True),
        ("[0, inf)", 1e30, True),
        ("[0, inf)", -1e-9, False),
    ],
)
def test_intervals(within, value, inside):
    field = Field("optim.rate", 0.5, "a rate", within=within)
    expected = None if inside else f"optim.rate={value}: expected a number in {within}"
    assert field.value_problem(value) == expected


def test_all_elements_of_a_tuple_are_looked_at():
    field = FIELDS["sweep.label_smoothing"]
    assert field.value_problem((0.0, 0.5)) is None
    assert field.value_problem(()) is None
    expected = "sweep.label_smoothing=(0.5, 1.0): expected numbers in [0, 1)"
    assert field.value_problem((0.5, 1.0)) == expected


def test_all_problems_are_listed():
    config = tl_jax.default_config(
        data__validation_fraction=1.0, optim__name="sdg", preprocess__mean=(0.5, 0.5), seed=-1
    )
    with pytest.raises(InputError) as raised:
        configs.check(config)
    lines = str(raised.value).splitlines()
    assert [line.partition("=")[0].partition(";")[0] for line in lines] == [
        "seed",
        "data.validation_fraction",
        "unknown optim.name 'sdg'",
        "preprocess.mean",
    ]


def test_the_page_of_fields_is_that_of_the_table():
    assert PAGE.read_text(encoding="utf-8") == configs.page(), (
        "python -m tl_jax.config > docs/config.md"
    )


def test_every_field_is_listed():
    listed = configs.list_fields()
    assert all(f"  {name}=" in listed for name in FIELDS)
    assert all(field.help in listed for field in FIELDS.values())


def test_a_run_records_the_section_of_its_command_alone():
    config = tl_jax.default_config(sweep__seed=(1, 2))
    assert not configs.of_command(config).keys() & set(COMMAND_SECTIONS)
    recorded = configs.of_command(config, "sweep")
    assert recorded["sweep"]["seed"] == (1, 2) and "probe" not in recorded


def test_an_older_config_keeps_its_values_and_gets_the_others():
    fields = tl_jax.default_config(seed=7).to_dict()
    del fields["data"]["workers"], fields["report"], fields["sweep"]
    config = configs.completed(fields)
    assert {*configs.flat(config), "compare.methods"} == FIELDS.keys()
    assert (config.seed, config.data.workers, config.report.mistakes) == (7, 0, 25)


def test_fields_of_other_names_in_earlier_versions():
    fields = {"optim": {"l2_sp": 0.5, "learning_rate": 0.2}, "objective": {"weight": 2.0}}
    config = configs.completed(fields)
    assert (config.objective.l2_sp, config.objective.weight) == (0.5, 2.0)
    assert config.optim.learning_rate == 0.2 and "l2_sp" not in config.optim
    assert fields["optim"]["l2_sp"] == 0.5  # what was given is not changed
    with pytest.raises(InputError, match=r"'optim\.l2_sp': it is objective\.l2_sp now"):
        tl_jax.default_config(optim__l2_sp=0.5)


def test_an_empty_tuple_is_one_in_the_config_of_an_older_version_too():
    fields = tl_jax.default_config().to_dict()
    fields["freeze"]["patterns"], fields["sweep"]["seed"] = [""], ["", ""]
    config = configs.completed(fields)
    assert list(config.freeze.patterns) == [] and list(config.sweep.seed) == ["", ""]
    assert configs.upgraded({"a": {"b": [""], "c": "", "d": {}}}) == {
        "a": {"b": [], "c": "", "d": {}}
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lda,knn", ("lda", "knn")),
        ("lda, knn", ("lda", "knn")),
        ("lda", ("lda",)),
        ('("lda", "knn")', ("lda", "knn")),
        ("stem/.*", ("stem/.*",)),
    ],
)
def test_texts_of_a_tuple_that_are_names_need_no_quotes(text, value):
    assert FIELDS["routes.methods"].parse(text) == value


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.kind is tuple])
def test_an_empty_text_is_an_empty_tuple(name):
    config = tl_jax.default_config()
    for text in ("", " ", "()", "[]"):
        configs.set_field(config, f"{name}={text}")
        assert configs.flat(config)[name] == ()
    if FIELDS[name].element is not str:
        with pytest.raises(InputError, match="expected a tuple of"):
            tl_jax.default_config(**{name.replace(".", "__"): ("",)})


def test_what_cannot_change_a_number_is_no_part_of_a_run():
    identity = configs.identity_of(tl_jax.default_config(optim__schedule="constant"))
    assert {"report.html", "data.workers", "cache.dir"} <= set(identity.without_effect)
    assert not {"seed", "objective.l2_sp", "parallel.mode"} & set(identity.without_effect)
    assert "sweep.*" in identity.without_effect
    assert identity.extendable and not identity.not_extendable_because
    sweep = configs.identity_of(tl_jax.default_config(), "sweep")
    assert "sweep.*" not in sweep.without_effect and not sweep.extendable
    assert "cosine" in sweep.not_extendable_because
