"""The tutorial runs from its first cell to its last, and says what it shows."""

import json
import os
import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOK = REPOSITORY / "docs" / "tutorial.ipynb"
SECONDS = 540


def test_every_cell_runs(tmp_path, compiled_programs):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = tmp_path / "tutorial.py"
    # As a script, plots are drawn and not shown.
    script.write_text("\n".join(code), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "XLA_FLAGS": "",  # one device, as a reader has
        "MPLBACKEND": "agg",
        "TMPDIR": str(tmp_path),
        "JAX_COMPILATION_CACHE_DIR": str(compiled_programs),
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "full fine-tuning" in said and "of 500 test images" in said
    assert said.count("frozen leaves changed: []") == 3
    assert "(8, 64)" in said  # features before the head
