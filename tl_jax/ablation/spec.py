"""What an ablation compares: a base run, what each variant changes, seeds, labels, and what may be tuned."""

import copy
import dataclasses
import itertools
import math
import os
import pathlib
import re
import runpy
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from tl_jax import files, strategies
from tl_jax.config import FIELDS, changes, check, flat, set_field, set_value
from tl_jax.errors import InputError, unknown
from tl_jax.training.metrics import CLASS_AVERAGES, SELECTION

QUESTIONS = ("effects", "best")
# Given by the spec itself, to every variant alike.
_OF_THE_SPEC = {"seed": "seeds", "data.seed": "seeds", "data.examples_per_class": "shots"}
# Fields that are tuples.
_SEVERAL = ("seeds", "shots", "test", "further_metrics")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")


@dataclasses.dataclass(frozen=True)
class Spec:
    """An ablation.

    A seed is that of initialisation, of the order of examples, of what is held out and of which few examples are
    labelled, alike for all variants: runs of one seed are compared in pairs.

    Attributes:
        base: the config that variants change.
        variants: {name: a strategy such as "lp_ft", or assignments such as "optim.learning_rate=0.1" and names of
            strategies in a tuple, or a whole config}; see `strategies.list_strategies`. Of a config, what differs
            from the base is assigned, but for what the spec gives to all, such as seeds.
        seeds: of every variant.
        baseline: the variant that others are compared with; "" for the first.
        pairs: {variant: the one that it is compared with, in place of the baseline}; such a one is itself compared
            with none.
        shots: labelled images per class, 0 for all; empty: what `base` says.
        tune: {field: values}: every variant is trained with each combination of them, and reported with the one that
            is best on validation, on average over the seeds.
        tune_of: {variant: its own `tune`}, of as many combinations.
        metric: on validation, which chooses the combination, and on test, which is reported; of `metrics.SELECTION`.
        question: "effects": how each variant differs from the baseline; "best": which is best, for which p-values
            are corrected for being several (Holm).
        test: variants whose test split is opened; empty: all.
        level: below which a p-value counts as a difference.
        further_metrics: more columns of the table of test: of `metrics.CLASS_AVERAGES`.
    """

    base: ml_collections.ConfigDict
    variants: Mapping[str, Sequence[str] | str | ml_collections.ConfigDict]
    seeds: Sequence[int]
    baseline: str = ""
    shots: Sequence[int] = ()
    tune: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    tune_of: Mapping[str, Mapping[str, Sequence[Any]]] = dataclasses.field(default_factory=dict)
    metric: str = "top1_accuracy"
    question: str = "effects"
    test: Sequence[str] = ()
    level: float = 0.05
    further_metrics: Sequence[str] = ()
    pairs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks that it can be expanded; what its runs need is checked when they are prepared.

        Raises:
            InputError: listing everything that is wrong.
        """
        _raise(self._problems_of_types())
        object.__setattr__(self, "variants", self._assigned_variants())
        for name in _SEVERAL:
            object.__setattr__(self, name, _plain(getattr(self, name)))
        object.__setattr__(self, "tune", _plain_values(self.tune))
        of_variants = {variant: _plain_values(of) for variant, of in self.tune_of.items()}
        object.__setattr__(self, "tune_of", of_variants)
        _raise([*self._problems_of_names(), *self._problems_of_values()])
        check(self.base)
        _raise(self._problems_of_assignments())

    @property
    def reference(self) -> str:
        """The variant that others are compared with."""
        return self.baseline or next(iter(self.variants))

    def compared_with(self, variant: str) -> str:
        """Returns the variant that one is compared with, where the question is of effects; itself: with none."""
        itself = variant if variant in self.pairs.values() else self.reference
        return self.pairs.get(variant, itself)

    @property
    def opened(self) -> tuple[str, ...]:
        """The variants whose test split is opened, in their order."""
        return tuple(name for name in self.variants if not self.test or name in self.test)

    @property
    def labelled(self) -> tuple[int, ...]:
        """The numbers of labelled images per class, 0 for all."""
        return tuple(self.shots) or (self.base.data.examples_per_class,)

    def assignments(
        self, variant: str, config: ml_collections.ConfigDict | None = None
    ) -> tuple[str, ...]:
        """Returns what a variant sets.

        Args:
            variant: its name.
            config: of the run, with the values of a trial; None: the base.
        """
        return strategies.expand(self.variants[variant], self.base if config is None else config)

    def trials(self, variant: str) -> list[dict[str, Any]]:
        """Returns the combinations of what is tuned, the last field changing fastest; one, empty, of nothing."""
        tuned = self.tune_of.get(variant, self.tune)
        return [
            dict(zip(tuned, values, strict=True)) for values in itertools.product(*tuned.values())
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON values."""
        fields = dataclasses.asdict(self) | {"base": self.base.to_dict()}
        return files.plain(fields)

    def _assigned_variants(self) -> dict[str, Sequence[str] | str]:
        """Returns the variants with assignments in place of configs."""
        given_to_all = [
            name for name in _OF_THE_SPEC if name != "data.examples_per_class" or self.shots
        ]
        return {
            name: changes(self.base, given, leave_out=given_to_all)
            if isinstance(given, ml_collections.ConfigDict)
            else given
            for name, given in self.variants.items()
        }

    def _problems_of_types(self) -> list[str]:
        problems = []
        if not isinstance(self.base, ml_collections.ConfigDict):
            problems.append(
                f"base is a {type(self.base).__name__}: expected a config, such as tl_jax.load_config(FILE) returns"
            )
        for name in _SEVERAL:
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                problems.append(f"{name}={given!r}: expected several in a tuple, ({given!r},)")
            elif not all(isinstance(one, str | int | float | np.generic) for one in given):
                problems.append(f"{name}={given!r}: expected numbers or texts")
        for name in ("baseline", "metric", "question"):
            given = getattr(self, name)
            if not isinstance(given, str):
                problems.append(f"{name}={given!r}: expected a text")
        if not isinstance(self.level, int | float):
            problems.append(f"level={self.level!r}: expected a number between 0 and 1")
        if not _are_texts(self.pairs):
            problems.append(f"pairs={self.pairs!r}: expected {{variant: another variant}}")
        of_fields = {"tune": self.tune}
        for name, expected in (
            ("variants", '{name: ("field=value", ...)}'),
            ("tune", "{field: (value, ...)}"),
            ("tune_of", "{variant: {field: (value, ...)}}"),
        ):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                of_fields.pop(name, None)
                problems.append(f"{name} is a {type(given).__name__}: expected {expected}")
            elif name == "tune_of":
                of_fields |= {f"tune_of[{variant!r}]": of for variant, of in given.items()}
        for what, of in of_fields.items():
            if not isinstance(of, Mapping):
                problems.append(
                    f"{what} is a {type(of).__name__}: expected {{field: (value, ...)}}"
                )
                continue
            problems += [
                f"{what}: {field}={values!r}: expected several values in a tuple, ({values!r},)"
                for field, values in of.items()
                if isinstance(values, str | Mapping) or not isinstance(values, Collection)
            ]
        if isinstance(self.variants, Mapping):
            problems += [
                f"variant {name!r}: expected a text as its name"
                for name in self.variants
                if not isinstance(name, str)
            ]
            problems += [
                f'variant {name} is {given!r}: expected assignments in a tuple, ("field=value",), or a strategy: '
                f"{', '.join(strategies.list_strategies())}"
                for name, given in self.variants.items()
                if not isinstance(given, str | ml_collections.ConfigDict)
                and not (isinstance(given, Sequence) and all(isinstance(one, str) for one in given))
            ]
        return problems

    def _problems_of_assignments(self) -> list[str]:
        problems = []
        for name in self.variants:
            config = copy.deepcopy(self.base)
            try:
                for assignment in self.assignments(name):
                    set_field(config, assignment)
                for values in self.trials(name):
                    for field, value in values.items():
                        set_value(config, field, value)
            except InputError as error:
                problems.append(f"variant {name}: {error}")
        return problems

    def _problems_of_names(self) -> list[str]:
        if not self.variants:
            return ["variants: expected one at least"]
        problems = [
            f"variant {name!r}: expected letters, digits and any of _.+- as its name, 100 of them at most"
            for name in self.variants
            if not _NAME.fullmatch(name)
        ]
        problems += [
            f"variant {name} is {given!r}: assignments go into a tuple, ({given!r},)"
            for name, given in self.variants.items()
            if isinstance(given, str) and "=" in given
        ]
        problems += [
            f"variant {name}: {text!r}: expected FIELD=VALUE"
            if text in FIELDS
            else str(unknown(f"strategy of variant {name}", text, strategies.list_strategies()))
            for name, given in self.variants.items()
            for text in ((given,) if isinstance(given, str) else given)
            if "=" not in text and not strategies.is_strategy(text)
        ]
        named = {"baseline": (self.baseline,) if self.baseline else (), "test": self.test}
        named["pairs"] = tuple(dict.fromkeys((*self.pairs, *self.pairs.values())))
        chained = [name for name in self.pairs if name in self.pairs.values()]
        problems += [
            f"pairs: {name} is compared with {self.pairs[name]}, and others with {name}: expected one of them"
            for name in chained
        ]
        if self.pairs and self.question == "best":
            problems.append(
                "pairs have no effect with question='best', where all are compared with the best one"
            )
        for what, names in {**named, "tune_of": tuple(self.tune_of)}.items():
            for name in names:
                if name not in self.variants:
                    problems.append(str(unknown(f"variant in {what}", name, self.variants)))
        for what, value, known in (
            ("metric", self.metric, SELECTION),
            ("question", self.question, QUESTIONS),
            *(("further metric", name, CLASS_AVERAGES) for name in self.further_metrics),
        ):
            if value not in known:
                problems.append(str(unknown(what, value, known)))
        return problems

    def _problems_of_values(self) -> list[str]:
        problems = []
        for what, values in (("seeds", self.seeds), ("shots", self.shots)):
            if len(set(values)) < len(values):
                problems.append(f"{what}={tuple(values)}: a value is there twice")
        if not self.seeds:
            problems.append("seeds: expected one at least")
        for field, values in (("seed", self.seeds), ("data.examples_per_class", self.shots)):
            known = FIELDS[field]
            found = (known.type_problem(one) or known.value_problem(one) for one in values)
            problems += [f"{_OF_THE_SPEC[field]}: {problem}" for problem in found if problem]
        if not 0 < self.level < 1:
            problems.append(f"level={self.level}: expected a number between 0 and 1")
        tuned = {"tune": self.tune, **{f"tune_of[{k!r}]": v for k, v in self.tune_of.items()}}
        counts = {what: math.prod(len(v) for v in of.values()) for what, of in tuned.items()}
        if self.tune_of and len(set(counts.values())) > 1:
            problems.append(
                "every variant has as many trials as any other: "
                + ", ".join(f"{what} has {count}" for what, count in counts.items())
            )
        for what, of in tuned.items():
            problems += [f"{what}: {field} has no values" for field, v in of.items() if not len(v)]
            problems += [
                f"{what}: {field}={tuple(v)}: a value is there twice"
                for field, v in of.items()
                if len({repr(one) for one in v}) < len(v)
            ]
            problems += [
                str(unknown("field", field, FIELDS)) for field in of if field not in FIELDS
            ]
        for name in self.variants:
            try:
                fields = [one.partition("=")[0] for one in self.assignments(name)]
            except InputError:
                continue  # Reported as a name, or with the assignments.
            fields += list(self.tune_of.get(name, self.tune))
            for field in fields:
                if field in _OF_THE_SPEC and (field != "data.examples_per_class" or self.shots):
                    problems.append(f"variant {name} sets {field}: give {_OF_THE_SPEC[field]}")
            repeated = {field for field in fields if fields.count(field) > 1}
            problems += [f"variant {name} sets {field} twice" for field in sorted(repeated)]
        selected = ["what is tuned"] if self.tunes else []
        selected += ["which variant is best"] if self.question == "best" else []
        if selected and not _holds_out(self.base):
            problems.append(
                f"{' and '.join(selected)} is chosen by validation, and the base holds nothing out: expected "
                "data.validation_split, or data.validation_fraction above 0"
            )
        return problems

    @property
    def tunes(self) -> bool:
        """Whether validation chooses a trial of some variant."""
        return any(len(self.trials(name)) > 1 for name in self.variants)


def _plain(values: Iterable[Any]) -> tuple[Any, ...]:
    """Returns values of a sequence or an array."""
    return tuple(value.item() if isinstance(value, np.generic) else value for value in values)


def _plain_values(tuned: Mapping[str, Iterable[Any]]) -> dict[str, tuple[Any, ...]]:
    return {field: _plain(values) for field, values in tuned.items()}


def _are_texts(given: Any) -> bool:
    return isinstance(given, Mapping) and all(
        isinstance(text, str) for pair in given.items() for text in pair
    )


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise InputError("\n".join(problems))


def load_spec(path: str | os.PathLike[str], assignments: Sequence[str] = ()) -> Spec:
    """Returns `get_spec()` of a Python file.

    Args:
        path: of the file; `~` is the home folder.
        assignments: to fields of its base, such as "data.data_dir=DIR".

    Raises:
        InputError: if there is no such file, it does not run or makes no spec, or a change does not fit.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        known = [str(p) for p in pathlib.Path("configs/ablations").glob("*.py")]
        raise unknown("spec", str(path), known)
    try:
        namespace = runpy.run_path(str(path))
        spec = namespace["get_spec"]() if "get_spec" in namespace else None
    except InputError as error:
        raise InputError(f"spec {path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"spec {path} does not run: {type(error).__name__}: {error}") from error
    if "get_spec" not in namespace:
        raise InputError(f"spec {path} defines no get_spec()")
    if not isinstance(spec, Spec):
        raise InputError(
            f"spec {path}: get_spec() returned {type(spec).__name__}, expected a tl_jax.ablation.Spec"
        )
    base = copy.deepcopy(spec.base)
    for assignment in assignments:
        field = assignment.partition("=")[0]
        if field in _OF_THE_SPEC and (field != "data.examples_per_class" or spec.shots):
            raise InputError(
                f"--config.{field} has no effect: the spec gives {_OF_THE_SPEC[field]}"
            )
        set_field(base, assignment, "--config.")
    return dataclasses.replace(spec, base=base)


def _holds_out(config: ml_collections.ConfigDict) -> bool:
    fields = flat(config)
    return bool(fields["data.validation_split"] or fields["data.validation_fraction"])
