"""Programs have the precision and the options that they are asked for, forward and backward."""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import compilation, compiler_options
from tl_jax.compilation import Compilation
from tl_jax.errors import InputError

# Of each product of a lowered program, the precision of both sides.
PRECISIONS = re.compile(r"precision\w* = \[(?:#stablehlo<precision )?(\w+)>?, .*?(\w+)>?\]")
MATRICES = [jax.ShapeDtypeStruct((3, 3), jnp.float32)] * 2
UNKNOWN = {"xla_no_such_option": True}


@jax.custom_vjp
def product(x, matrix):
    return x @ matrix


def _forward(x, matrix):
    return product(x, matrix), (x, matrix)


@jax.jit
def _backward(saved, grad):
    x, matrix = saved
    return grad @ matrix.T, x.T @ grad


product.defvjp(_forward, _backward)


def gradients(x, matrix):
    """One product forward and two backward, by rules that are written by hand."""
    return jax.value_and_grad(lambda *given: product(*given).sum(), (0, 1))(x, matrix)


def precisions(made, function=gradients, platform="cuda"):
    lowered = made.jit(function).trace(*MATRICES).lower(lowering_platforms=(platform,))
    return PRECISIONS.findall(lowered.as_text())


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("precision", compilation.PRECISIONS)
def test_precision_of_every_product(precision, platform):
    # In one process after the other: none is taken from what was traced before.
    found = precisions(Compilation(precision), platform=platform)
    assert found == [(precision.upper(),) * 2] * 3


def test_a_product_that_asks_for_a_precision_has_it():
    def own(x, matrix):
        return jnp.matmul(x, matrix, precision="highest")

    assert precisions(Compilation("high"), own) == [("HIGHEST", "HIGHEST")]


def test_default_leaves_it_to_jax():
    with jax.default_matmul_precision("high"):
        assert set(precisions(Compilation())) == {("HIGH", "HIGH")}
        assert set(precisions(Compilation("highest"))) == {("HIGHEST", "HIGHEST")}
        assert Compilation().facts()["jax_default_matmul_precision"] == "high"
    assert set(precisions(Compilation())) == {("DEFAULT", "DEFAULT")}
    assert Compilation().facts()["jax_default_matmul_precision"] is None


def test_plain_is_what_jax_makes():
    here, there = (jit(gradients).lower(*MATRICES) for jit in (compilation.PLAIN.jit, jax.jit))
    assert here.as_text() == there.as_text()
    # A program has its function's name at every precision, in traces and profiles.
    assert "@jit_gradients" in Compilation("high").jit(gradients).lower(*MATRICES).as_text()


def test_options_reach_the_compiler():
    made, x = Compilation(options=UNKNOWN), np.ones((8, 3, 3), np.float32)
    lowered = made.jit(gradients).lower(*MATRICES)
    for compiled in (
        lambda: made.jit(gradients)(x[0], x[0]),
        lowered.compile,
        lambda: made.compile(lowered),
        lambda: made.compile(made.pmap(gradients).lower(x, x)),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
            compiled()


def test_arguments_are_those_of_jit_and_pmap():
    def add(count, x):
        return x + count

    for made in (compilation.PLAIN, Compilation("high")):
        assert made.jit(add, static_argnums=0)(2, 3) == 5
        np.testing.assert_array_equal(made.pmap(add, in_axes=(None, 0))(2, np.arange(2)), [2, 3])


@pytest.fixture
def in_use(monkeypatch):
    def use(platform, **options):
        monkeypatch.setitem(compiler_options.SETS, platform, {"tried": options})
        monkeypatch.setitem(compiler_options._IN_USE, platform, ("tried",))

    return use


def test_what_the_compiler_refuses_is_left_out_and_told(in_use):
    in_use("cpu", xla_gpu_autotune_level=4, **UNKNOWN)
    made = compilation.make("cpu", "high", False)
    assert made.options == {"xla_gpu_autotune_level": 4} and list(made.refused) == list(UNKNOWN)
    assert made.facts() == {
        "precision": "high",
        "jax_default_matmul_precision": None,
        "deterministic": False,
        "compiler_options": {"xla_gpu_autotune_level": 4},
        "refused_options": made.refused,
    }
    assert made.jit(lambda x: 2 * x)(1.0) == 2


def test_determinism_that_the_compiler_cannot_give_is_an_error(monkeypatch):
    own = {"deterministic": {"xla_gpu_deterministic_ops": True, **UNKNOWN}}
    monkeypatch.setitem(compiler_options.SETS, "gpu", own)
    made = compilation.make("gpu", "default", True)
    assert made.deterministic and made.options == {"xla_gpu_deterministic_ops": True}
    monkeypatch.setitem(compiler_options.SETS, "gpu", {"deterministic": UNKNOWN})
    with pytest.raises(InputError, match=r"deterministic is True: .*none of xla_no_such_option"):
        compilation.make("gpu", "default", True)
    assert compilation.make("gpu", "default", False).refused == {}


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_cpu_needs_no_options(deterministic):
    made = compilation.make("cpu", "highest", deterministic)
    assert made == Compilation("highest", deterministic)


def test_options_are_part_of_a_key():
    assert Compilation("highest", True).key() == {}
    one, other = (Compilation(options={"a": value}).key() for value in (1, 2))
    assert one != other and one.keys() == {"compiler_options"}


def compiled_by(programs, compilation=compilation.PLAIN):
    """Returns what each of these functions is compiled to."""
    return [compilation.compile(jax.jit(one).lower(np.float32(1))) for one in programs]


def test_the_same_program_is_compiled_once_while_programs_are_kept():
    same = [lambda x: x + 1, lambda x: x + 1]
    one, other = compiled_by(same)
    assert one is not other
    with compilation.programs_kept():
        one, other = compiled_by(same)
        assert one is other and one(np.float32(2)) == 3
        with compilation.programs_kept():
            (inner,) = compiled_by(same[:1])
            assert inner is not one  # and what is inside leaves with it
        assert compiled_by(same)[0] is one
    assert compiled_by(same)[0] is not one


def test_programs_that_differ_in_a_constant_a_name_or_an_option_are_kept_apart():
    table = np.zeros(100_000, np.float32)
    changed = table.copy()
    changed[777] += 1
    with compilation.programs_kept():
        one, other = compiled_by([lambda x: (x * table).sum(), lambda x: (x * changed).sum()])
        assert one is not other and other(np.float32(1)) - one(np.float32(1)) == 1
        one, other = compiled_by([lambda x: {"a": x}, lambda x: {"b": x}])
        assert list(one(np.float32(1))) == ["a"] and list(other(np.float32(1))) == ["b"]
        added = [lambda x: x + 1]
        plain = compiled_by(added)[0]
        option = Compilation(options={"xla_cpu_enable_fast_min_max": True})
        assert compiled_by(added, option)[0] is not plain


@pytest.mark.parametrize("kept", [False, True])
def test_a_function_that_is_computed(kept):
    compiled = []
    with compilation.programs_kept() if kept else contextlib.nullcontext():
        for _ in range(2):

            def function(x, y):
                compiled.append(x)
                return {"sum": x + y}

            assert compilation.computed(function, np.float32(1), np.float32(2))["sum"] == 3
        assert len(compilation._KEPT) == kept
        assert [len(programs) for programs in compilation._KEPT] == [1] * kept
