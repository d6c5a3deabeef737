"""The examples of CONTRIBUTING.md do what they say."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", TEXT, re.S | re.M)
ARGUMENTS = {"A command": ["--config=configs/quickstart.py"]}
OUTPUT = {
    "A network": "True",
    "A data set": "{'train': 24, 'test': 8, 'validation': 8}",
    "An objective": "{'distance': 1.0}",
    "An operation": "[[[155.  55.   0.]]]",
    "A mixing": "[1. 1.] [0 1]",
    "A command": "train 20\n",
}


def test_every_example_is_run():
    assert {title for title, _ in EXAMPLES} == OUTPUT.keys()
    assert TEXT.count("```python") == len(EXAMPLES)


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_an_example(tmp_path, title, code):
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), *ARGUMENTS.get(title, [])],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert OUTPUT[title] in done.stdout
