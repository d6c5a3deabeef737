"""The command line: the config file and its fields, the run folder, and messages about flags."""

import functools
import pathlib
import re
import sys

import ml_collections
from absl import app as absl_app
from absl import flags

from tl_jax import errors, protocols
from tl_jax.config import FIELDS, load, set_field
from tl_jax.errors import InputError
from tl_jax.strategies import with_strategy


# Cached: a process that imports several commands defines the flags they share once.
@functools.cache
def define_run_flags() -> None:
    """Defines --config, the file of a config whose fields --config.FIELD=VALUE sets, and --workdir."""
    flags.DEFINE_string(
        "config",
        None,
        "The experiment, such as configs/quickstart.py; --config.FIELD=VALUE changes it.",
    )
    _define_workdir()


@functools.cache
def define_strategy_flag() -> None:
    """Defines --strategy, names of strategies that change the config."""
    flags.DEFINE_list(
        "strategy",
        [],
        "How the network is adapted, such as lp_ft or l2_sp,mixup: docs/strategies.md lists them; it changes the "
        "config, and --config.FIELD=VALUE changes what it sets.",
    )


@functools.cache
def define_protocol_flag() -> None:
    """Defines --protocol, the name of a protocol whose terms are filled in."""
    flags.DEFINE_string(
        "protocol",
        None,
        "A published experiment, such as he2015_cifar (docs/protocols.md): its terms are filled in, the run says "
        "whether it keeps them, and --config.FIELD=VALUE departs from them.",
    )


@functools.cache
def define_spec_flags() -> None:
    """Defines --spec, the file of an ablation whose base --config.FIELD=VALUE changes, and --workdir."""
    flags.DEFINE_string(
        "spec",
        None,
        "The ablation, such as configs/ablations/null.py; --config.FIELD=VALUE changes its base.",
    )
    _define_workdir()


@functools.cache
def _define_workdir() -> None:
    flags.DEFINE_string("workdir", None, "The run folder: made, or resumed where it exists.")


@functools.cache
def define_out_flag() -> None:
    """Defines --out, the folder of what a command makes where that is no run."""
    flags.DEFINE_string("out", None, "The folder that is written: new or empty; --help says more.")


class _Given:
    """What the command line says of the config."""

    config: ml_collections.ConfigDict | None = None
    changes: tuple[str, ...] = ()


def config() -> ml_collections.ConfigDict:
    """Returns the config of the command line.

    Raises:
        InputError: if none was given.
    """
    if _Given.config is None:
        raise InputError("--config must be given; --help says how")
    return _Given.config


def spec() -> str:
    """Returns the file of the spec of the command line.

    Raises:
        InputError: if none was given.
    """
    if not flags.FLAGS.spec:
        raise InputError("--spec must be given; --help says how")
    return flags.FLAGS.spec


def workdir() -> pathlib.Path:
    """Returns the run folder of the command line.

    Raises:
        InputError: if none was given.
    """
    if not flags.FLAGS.workdir:
        raise InputError("--workdir must be given; --help says how")
    return pathlib.Path(flags.FLAGS.workdir).expanduser()


def out() -> pathlib.Path | None:
    """Returns the folder that --out names; None where it is not given."""
    return None if flags.FLAGS.out is None else pathlib.Path(flags.FLAGS.out).expanduser()


def changes() -> tuple[str, ...]:
    """Returns the assignments of --protocol and then of `--config.FIELD=VALUE`, such as "train.steps=10"."""
    return _Given.changes


def parse(argv: list[str], positional: bool = False) -> list[str]:
    """Returns the arguments that are no flags, having parsed the flags and read the config.

    With --checkpoint, a run brings its own config.

    Args:
        argv: of the command, its name first.
        positional: whether there may be arguments that are no flags.

    Raises:
        InputError: if a flag, the config file or a field is unknown, or a value has another type.
    """
    takes_fields = "config" in flags.FLAGS or "spec" in flags.FLAGS
    own, assignments = _split(argv) if takes_fields else (argv, [])
    absl_app.define_help_flags()
    try:
        rest = flags.FLAGS(own)
    except flags.Error as error:
        raise InputError(_flag_message(str(error))) from error
    if len(rest) > 1 and not positional:
        raise InputError(f"unexpected argument {rest[1]!r}; flags look like --config.seed=1")
    _Given.config, _Given.changes = None, (*_terms(), *assignments)
    path = flags.FLAGS.config if "config" in flags.FLAGS else None
    checkpoint = "checkpoint" in flags.FLAGS and flags.FLAGS.checkpoint
    if "spec" in flags.FLAGS and flags.FLAGS.spec:
        return rest[1:]
    if path and checkpoint:
        raise InputError("--checkpoint and --config: give one; a run brings its own config")
    if path:
        _Given.config = load(pathlib.Path(path).expanduser())
        for assignment in _Given.changes:
            set_field(_Given.config, assignment, "--config.")
        if "strategy" in flags.FLAGS and flags.FLAGS.strategy:
            # Its phases divide the length of the run; what the command line sets counts more than the strategy.
            _Given.config = with_strategy(_Given.config, flags.FLAGS.strategy)
            for assignment in assignments:
                set_field(_Given.config, assignment, "--config.")
    elif assignments and not checkpoint:
        raise InputError(
            f"--config.{assignments[0]} without --config: give the config file too, such as "
            "--config=configs/quickstart.py"
        )
    return rest[1:]


def _terms() -> tuple[str, ...]:
    """Returns the assignments of --protocol."""
    name = flags.FLAGS.protocol if "protocol" in flags.FLAGS else None
    return protocols.assignments(name) if name else ()


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments without fields of the config, and the assignments to these."""
    kept, assignments, rest = argv[:1], [], argv[1:]
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not name.startswith("config."):
            kept.append(argument)
            continue
        field = name.removeprefix("config.")
        if not equals:
            if field in FIELDS and FIELDS[field].kind is bool:
                text = "true"
            elif rest and not re.match("--?[a-z]", rest[0]):
                text = rest.pop(0)
            elif field in FIELDS:
                raise InputError(f"--{name}: expected a value, as in --{name}=VALUE")
        assignments.append(f"{field}={text}")
    return kept, assignments


def _flag_message(text: str) -> str:
    """Returns absl's message about a flag in the words of ours."""
    unknown_flag = re.search(r"Unknown command line flag '([^']*)'", text)
    if unknown_flag:
        return f"{errors.unknown('flag', f'--{unknown_flag[1]}', _own_flags())}; --help says more"
    illegal = re.match(r"flag --([\w.]+)=(.*?): ", text, re.DOTALL)
    if illegal and illegal[1] in flags.FLAGS:
        name, value = illegal[1], illegal[2]
        choices = getattr(flags.FLAGS[name].parser, "enum_values", None)
        if choices:
            return str(errors.unknown(f"--{name}", value, choices))
        kind = flags.FLAGS[name].parser.flag_type()
        expected = {"int": "an integer", "bool": "true or false", "float": "a number"}
        lowest = getattr(flags.FLAGS[name].parser, "lower_bound", None)
        bound = "" if lowest is None else f" from {lowest}"
        return f"--{name}={value}: expected {expected.get(kind, kind)}{bound}"
    missing = re.match(r"Missing value for flag (\S+)", text)
    if missing:
        return f"{missing[1]}: expected a value, as in {missing[1]}=VALUE"
    return text


def _own_flags() -> list[str]:
    """Returns the flags that this project defines, without the fields of the config."""
    modules = flags.FLAGS.flags_by_module_dict()
    names = [
        flag.name
        for module, defined in modules.items()
        if module.startswith("experiments") or module == sys.argv[0] or module == "__main__"
        for flag in defined
    ]
    return sorted(f"--{name}" for name in names if not name.startswith("config."))
