"""The command that classifies images: as a table, CSV or JSON."""

import csv
import io
import json
import pathlib
import shutil

import pytest
from PIL import Image
from running import tiny_config

from tl_jax.data.arrays import Digits
from tl_jax.data.broken import BrokenImages
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
        (("{run}", "{images}", "--top=0"), "--top=0: expected an integer from 1\n"),
        (("{run}", "{images}", "--unreadable=skp"), "unknown --unreadable 'skp'; nearest: skip"),
        (("{run}", "{images}", "--format=jsn"), "unknown --format 'jsn'; nearest: json"),
    ],
)
def test_wrong_arguments(launcher, run, arguments, message):
    filled = [argument.format(run=run[0], images=run[1]) for argument in arguments]
    code, out, err = launcher.run("predict", *filled, small=True)
    assert (code, out) == (2, "") and message in err and "Traceback" not in err


def test_images_that_cannot_be_read(launcher, run, tmp_path):
    workdir, images = run
    photos = tmp_path / "photos"
    shutil.copytree(images, photos)
    (photos / "0.png").write_text("text")
    (photos / "9.png").symlink_to("nowhere")
    argv = [str(workdir), str(photos), "--top=1", "--format=csv"]
    code, out, err = launcher.run("predict", *argv, small=True)
    assert (code, out) == (2, "") and err.strip().endswith("leave them out: --unreadable=skip")
    code, out, err = launcher.run("predict", *argv, "--unreadable=skip", small=True)
    assert code == 0 and err.startswith("2 images left out:\n") and "0.png" in err
    assert f"\n  {photos / '9.png'} cannot be read: No such file or directory\n" in err
    kept = [str(photos / "1.png"), str(photos / "2.png")]
    assert [row["file"] for row in csv.DictReader(io.StringIO(out))] == kept
    expected = finished.predict_files(finished.load_run(workdir), kept, 1)
    assert finished.predict_files(finished.load_run(workdir), [photos], 1, "skip") == expected
    for path in kept:
        pathlib.Path(path).write_text("text")
    with pytest.raises(BrokenImages, match="4 images cannot be used") as raised:
        finished.predict_files(finished.load_run(workdir), [photos], 1, "skip")
    assert "leave them out" not in str(raised.value)


def test_an_archive_is_to_be_unpacked_or_evaluated(launcher, run, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", run[1])
    code, out, err = launcher.run("predict", str(run[0]), archive, small=True)
    assert (code, out) == (2, "") and f"unpack {archive}" in err
    assert f"--config.data.name=folder:{archive}" in err
