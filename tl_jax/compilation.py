"""How the programs of a run are compiled: the precision of their products, and the options of the compiler.

Every program that computes with a network is made by `Compilation.jit` (or `pmap`): nothing else decides these two.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from tl_jax import compiler_options
from tl_jax.compiler_options import Value
from tl_jax.errors import InputError

PRECISIONS = ("default", "high", "highest")


@dataclasses.dataclass(frozen=True)
class Compilation:
    """How programs are compiled.

    Attributes:
        precision: of products of float32 numbers, one of `PRECISIONS`: of every matrix product and convolution that
            asks for none itself, forward and backward, in a user's network too. "default" leaves it to JAX: to
            `jax_default_matmul_precision` where that is set, else to the platform.
        deterministic: whether options of determinism are in use, where the platform has such.
        options: of the compiler, all of them taken by the installed one.
        refused: {option: what the compiler said against it}, of those that are left out.
    """

    precision: str = "default"
    deterministic: bool = False
    options: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def jit(self, function: Callable, **arguments: Any) -> Any:
        """Returns `jax.jit(function, **arguments)`, compiled so; not to be called inside another `jit`."""
        return jax.jit(
            self._at_precision(function), compiler_options=dict(self.options) or None, **arguments
        )

    def pmap(self, function: Callable, **arguments: Any) -> Any:
        """Returns `jax.pmap(function, **arguments)` at this precision; it takes options in `compile` alone."""
        return jax.pmap(self._at_precision(function), **arguments)

    def compile(self, lowered: Any) -> Any:
        """Returns the compiled form of what was lowered from `jit` or `pmap`; see `programs_kept` too."""
        if not _KEPT:
            return self._compiled(lowered)
        text = hashlib.sha256(lowered.as_text().encode()).hexdigest()
        options = tuple(sorted(self.options.items()))
        key = text, options, lowered.in_tree, lowered.out_tree
        programs = _KEPT[-1]
        if key not in programs:
            programs[key] = self._compiled(lowered)
        return programs[key]

    def _compiled(self, lowered: Any) -> Any:
        return lowered.compile(compiler_options=dict(self.options) or None)

    def facts(self) -> dict[str, Any]:
        """Returns what `result.json` says of it."""
        return {
            "precision": self.precision,
            "jax_default_matmul_precision": jax.config.values["jax_default_matmul_precision"],
            "deterministic": self.deterministic,
            "compiler_options": dict(self.options),
            "refused_options": dict(self.refused),
        }

    def key(self) -> dict[str, str]:
        """Returns what a key of stored results holds besides the lowered program, which says the precision."""
        if not self.options:
            return {}
        return {"compiler_options": json.dumps(dict(self.options), sort_keys=True)}

    def _at_precision(self, function: Callable) -> Callable:
        if self.precision == "default":
            return function

        # Around the tracing of the whole function: a gradient written by hand is traced after the forward pass.
        @functools.wraps(function)
        def at_precision(*arguments: Any, **named: Any) -> Any:
            with jax.default_matmul_precision(self.precision):
                return function(*arguments, **named)

        return at_precision


PLAIN = Compilation()


def computed(function: Callable, *arguments: Any) -> Any:
    """Returns `jax.jit(function)(*arguments)`, for a function that is made anew by every run; see `programs_kept`."""
    program = jax.jit(function)
    return PLAIN.compile(program.lower(*arguments))(*arguments) if _KEPT else program(*arguments)


# What was compiled inside each `programs_kept`, the innermost one last.
_KEPT: list[dict[Any, Any]] = []


@contextlib.contextmanager
def programs_kept() -> Iterator[None]:
    """Has `Compilation.compile` give what it compiled before inside it, where the lowered program is the same.

    For runs that differ in their data and seeds alone. All programs stay in memory until it ends.
    """
    _KEPT.append({})
    try:
        yield
    finally:
        _KEPT.pop()


def make(platform: str, precision: str, deterministic: bool) -> Compilation:
    """Returns how programs for a platform are compiled, options that the compiler refuses left out.

    Args:
        platform: of the devices, such as "gpu".
        precision: one of `PRECISIONS`.
        deterministic: whether the same program and input must give the same bits.

    Raises:
        InputError: if determinism is asked for, and the compiler takes none of the options that give it.
    """
    options = compiler_options.chosen(platform, deterministic)
    refused = compiler_options.refused(options)
    needed = set(options) - set(compiler_options.chosen(platform))
    if needed and needed <= refused.keys():
        said = "; ".join(refused[option] for option in sorted(needed))
        raise InputError(
            f"deterministic is True: the compiler for {platform} of this jaxlib takes none of "
            f"{', '.join(sorted(needed))} ({said}); expected False, or another version"
        )
    taken = {option: value for option, value in options.items() if option not in refused}
    return Compilation(precision, deterministic, taken, refused)
