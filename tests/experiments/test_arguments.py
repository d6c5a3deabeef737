"""The config on the command line: --config=FILE and --config.FIELD=VALUE."""

import sys

import pytest
from running import REPOSITORY

from experiments import cli, evaluate, finetune  # they define the flags
from experiments.cli import arguments
from tl_jax.errors import InputError

QUICKSTART = f"--config={REPOSITORY / 'configs' / 'quickstart.py'}"


@pytest.fixture(autouse=True)
def unparsed():
    yield
    arguments.flags.FLAGS.unparse_flags()
    for name in ("config", "workdir", "checkpoint", "strategy", "protocol"):
        arguments.flags.FLAGS[name].unparse()


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        (["--config.train.steps=7"], "train.steps", 7),
        (["--config.train.steps", "7"], "train.steps", 7),
        (["--config.train.steps=0x10"], "train.steps", 16),
        (["--config.optim.learning_rate=1"], "optim.learning_rate", 1.0),
        (["--config.report.html=false"], "report.html", False),
        (["--config.report.tensorboard"], "report.tensorboard", True),
        (["--config.init.weights="], "init.weights", ""),
        (["--config.freeze.patterns=stem/.*"], "freeze.patterns", ("stem/.*",)),
        (["--config.freeze.patterns=('a', 'b')"], "freeze.patterns", ("a", "b")),
        (["--config.freeze.patterns="], "freeze.patterns", ()),
        (["--config.sweep.learning_rate=0.1,1"], "sweep.learning_rate", (0.1, 1)),
        (["--config.compare.methods.full_finetune=('seed=1',)"], None, ("seed=1",)),
        (["--config.data.seed=1", "--config.data.seed=2"], "data.seed", 2),
    ],
)
def test_fields(typed, name, value):
    arguments.parse(["finetune", QUICKSTART, *typed, "--workdir=new"])
    config = cli.config()
    if name is None:
        assert config.compare.methods.full_finetune == value
    else:
        section, field = name.split(".")
        assert config[section][field] == value and type(config[section][field]) is type(value)
    assert str(cli.workdir()) == "new"


def config_of(*typed):
    arguments.parse(["finetune", QUICKSTART, *typed, "--workdir=new"])
    return cli.config()


def test_a_strategy_divides_the_length_that_is_given_and_counts_less_than_fields():
    config = config_of("--strategy=lp_ft,l2_sp", "--config.train.steps=30")
    assert [phase[-2:] for phase in config.phases] == [
        ("train.steps=15", "optim.warmup_steps=5")
    ] * 2
    assert config.objective.l2_sp == 0.01
    config = config_of("--strategy=l2_sp,discriminative_rates", "--config.objective.l2_sp=0.5")
    assert (config.objective.l2_sp, config.optim.layerwise_decay) == (0.5, 1 / 2.6)


def test_a_protocol_fills_in_terms_and_counts_less_than_fields():
    typed = ("--protocol=he2015_cifar", "--config.data.batch_size=64")
    config = config_of(*typed)
    assert (config.report.protocol, config.data.batch_size) == ("he2015_cifar", 64)
    assert (config.train.steps, config.optim.step_steps) == (64_000, (32_000, 48_000))
    assert cli.changes()[0] == "report.protocol=he2015_cifar"
    assert cli.changes()[-1] == "data.batch_size=64"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([QUICKSTART, "--strategy=lpft"], "unknown strategy 'lpft'; nearest: lp_ft"),
        ([QUICKSTART, "--protocol=he2015"], "unknown protocol 'he2015'; nearest: he2015_cifar"),
        (
            [QUICKSTART, "--config.optim.lr=1"],
            "unknown config field 'optim.lr'; nearest: optim.lea",
        ),
        ([QUICKSTART, "--config.optim.lr", "1"], "unknown config field 'optim.lr'; nearest: "),
        ([QUICKSTART, "--config.train.steps=x"], "--config.train.steps=x: expected an integer"),
        ([QUICKSTART, "--config.train.steps"], "--config.train.steps: expected a value, as in"),
        (
            [QUICKSTART, "--config.train.steps", "--workdir=a"],
            "--config.train.steps: expected a value, as in",
        ),
        ([QUICKSTART, "--config.report.html=2"], "--config.report.html=2: expected true or false"),
        (
            [QUICKSTART, "--config.compare.methods.new=()"],
            "unknown config field 'compare.methods.new'",
        ),
        (["--config.seed=1"], "--config.seed=1 without --config: give the config file too"),
        ([QUICKSTART, "--checkpoint=run"], "--checkpoint and --config: give one"),
        ([QUICKSTART, "seed=1"], "unexpected argument 'seed=1'"),
        ([QUICKSTART, "--config_file=a"], "unknown flag '--config_file'; nearest: --config"),
        (
            ["--config=configs/quickstat.py"],
            "unknown config file 'configs/quickstat.py'; nearest: ",
        ),
    ],
)
def test_wrong_arguments(typed, message, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(InputError) as raised:
        arguments.parse(["finetune", *typed])
    assert str(raised.value).startswith(message)


def test_changes_of_a_checkpoint_need_no_config():
    arguments.parse(["evaluate", "--checkpoint=run", "--config.data.name", "digits"])
    assert cli.changes() == ("data.name=digits",)
    with pytest.raises(InputError, match="--config must be given"):
        cli.config()
    with pytest.raises(InputError, match="--workdir must be given"):
        cli.workdir()


def test_the_commands_define_the_flags_once():
    assert evaluate.cli is finetune.cli is sys.modules["experiments.cli"]
