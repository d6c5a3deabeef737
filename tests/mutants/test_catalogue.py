"""The list of mutants is in order: each can be planted, and the runner tells what it has to tell."""

import ast
import pathlib
import re
import textwrap

import pytest

from tests.mutants import planting
from tests.mutants.catalogue import MUTANTS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NAMES = [mutant.name for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_mutant_can_be_planted(mutant):
    """Its old text is there once; the file with the new text is Python still, and another one."""
    planted = mutant.planted(ROOT)
    original = (ROOT / mutant.file).read_text()
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(original))
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), file
        last = name.partition("[")[0].rpartition("::")[2]
        assert re.search(rf"(def|class) {last}\b", (ROOT / file).read_text()), test


def test_names_are_unique_and_all_parts_of_the_library_have_some():
    assert len(set(NAMES)) == len(NAMES) >= 80
    assert sum(mutant.survivor for mutant in MUTANTS) == 25
    folders = {str(pathlib.PurePath(mutant.file).parent) for mutant in MUTANTS}
    packages = {str(path.parent.relative_to(ROOT)) for path in (ROOT / "tl_jax").rglob("*.py")}
    assert packages - {"tl_jax"} <= folders and "experiments/cli" in folders


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Returns a runner on a tree of one module and its test."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "module.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "tree" / "test_module.py").write_text(
        textwrap.dedent("""
            import module

            def test_double():
                assert module.double(3) == 6

            def test_nothing():
                assert module.double

            def test_slow():
                while module.double(1) != 2:
                    pass
        """)
    )
    monkeypatch.setattr(planting, "ROOT", tmp_path / "tree")
    with planting.Runner(seconds=10.0) as runner:
        yield runner


CASES = {
    "caught": ("return 2 * x", "return 3 * x", "test_module.py::test_double", planting.CAUGHT),
    "survived": ("return 2 * x", "return 3 * x", "test_module.py::test_nothing", planting.SURVIVED),
    "no such text": ("return 5", "return 3", "test_module.py", planting.NOT_PLANTED),
    "no such test": ("2 * x", "3 * x", "test_module.py::test_none", planting.NO_ANSWER),
}


def test_what_becomes_of_mutants(runner):
    mutants = [
        planting.Mutant(name, "module.py", old, new, (test,))
        for name, (old, new, test, _) in CASES.items()
    ]
    shown = []
    results = runner.run(mutants, shown.append)
    assert [result.outcome for result in results] == [case[-1] for case in CASES.values()]
    assert shown == results
    assert "test_double" in results[0].detail
    # Nothing of one is left for the next, and nothing is done to the tree itself.
    assert runner.without_mutants(mutants[:2]) == ""
    assert "return 2 * x" in (planting.ROOT / "module.py").read_text()


def test_a_mutant_that_never_ends_is_ended(runner):
    runner._seconds = 3.0
    mutant = planting.Mutant("slow", "module.py", "2 * x", "3 * x", ("test_module.py::test_slow",))
    (result,) = runner.run([mutant], lambda result: None)
    assert (result.outcome, result.detail) == (planting.NO_ANSWER, "the time limit was reached")
