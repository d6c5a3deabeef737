"""The command that classifies images: as a table, CSV or JSON."""

import csv
import io
import json

import pytest
from PIL import Image
from running import tiny_config

from tl_jax.data.arrays import Digits
from tl_jax.runs import finished, training


@pytest.fixture(scope="module")
def run(small_networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    training.run(tiny_config(train__steps=1), folder / "run")
    split = Digits().split("test")
    (folder / "images").mkdir()
    for number in range(3):
        Image.fromarray(split.images[number]).save(folder / "images" / f"{number}.png")
    return folder / "run", folder / "images"


def test_formats(launcher, run):
    workdir, images = run
    expected = finished.predict_files(finished.load_run(workdir), [images], 2)
    argv = [str(workdir), str(images), "--top=2"]
    code, out, err = launcher.run("predict", *argv, "--format=json", small=True)
    assert (code, [row["file"] for row in json.loads(out)]) == (0, [r["file"] for r in expected]), (
        err
    )
    code, out, _ = launcher.run("predict", *argv, "--format=csv", small=True)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [row["class1"] for row in rows] == [row["class1"] for row in expected]
    assert list(rows[0]) == ["file", "class1", "probability1", "class2", "probability2"]
    code, out, _ = launcher.run("predict", *argv, small=True)
    assert code == 0 and "0.png" in out and "probability2" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected RUN IMAGE..."),
        (("{run}",), "expected RUN IMAGE..."),
        (("{run}", "nowhere.png"), "nowhere.png: no such file or folder"),
        (("nowhere", "{images}"), "expected the folder of a finished run"),
        (("{run}", "{images}", "--top=0"), "--top=0: expected"),
        (("{run}", "{images}", "--format=jsn"), "unknown --format 'jsn'; nearest: json"),
    ],
)
def test_wrong_arguments(launcher, run, arguments, message):
    filled = [argument.format(run=run[0], images=run[1]) for argument in arguments]
    code, out, err = launcher.run("predict", *filled, small=True)
    assert (code, out) == (2, "") and message in err and "Traceback" not in err
