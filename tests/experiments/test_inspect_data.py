"""The command that looks at a data set: a summary, a page and its numbers."""

import json
import shutil

import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """Returns {train,test}/{a,b}/*.png of 8x8 pixels, one image of train in test too, and one that is broken."""
    for number, split in enumerate(("train", "test")):
        for label, name in enumerate("ab"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for place in range(5):
                colour = (40 * place, 100 * number, 50 * label)
                Image.new("RGB", (8, 8), colour).save(
                    tmp_path / "photos" / split / name / f"{place}.png"
                )
    shutil.copy(tmp_path / "photos/train/a/0.png", tmp_path / "photos/test/b/copy.png")
    (tmp_path / "photos/train/a/text.png").write_text("text")
    return tmp_path / "photos"


def test_a_folder_is_inspected(launcher, photos, tmp_path):
    code, out, err = launcher.run(
        "inspect_data", f"folder:{photos}", f"--workdir={tmp_path / 'page'}"
    )
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == (
        "leakage: 1 of 11 test images are in train too (1 byte for byte; 1 with another class)"
    )
    assert "1 image cannot be read:" in lines
    facts = json.loads((tmp_path / "page/inspection.json").read_text())
    assert facts["leakage"] == lines[0] and set(facts["splits"]) == {"train", "test"}
    assert (tmp_path / "page/inspection.html").is_file()


def test_the_splits_of_a_config_are_inspected(launcher, photos):
    code, out, err = launcher.run(
        "inspect_data",
        "--config=configs/quickstart.py",
        f"--config.data.name=folder:{photos}",
        "--config.data.unreadable=skip",
        "--config.data.train_split=train",
        "--config.data.test_split=test",
        "--config.data.validation_fraction=0.4",
        "--config.data.examples_per_class=0",
        "--config.data.cache_dir=",
    )
    assert code == 0, err
    assert "6 train, 11 test, 4 validation images, 2 classes" in out
    assert "1 image that cannot be read is left out: text.png" in out


def test_files_of_a_user_are_not_replaced(launcher, photos, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "inspection.html").write_text("precious")
    code, out, err = launcher.run("inspect_data", f"folder:{photos}", f"--workdir={own}")
    assert (code, out) == (2, "") and "holds inspection.html; give a new folder" in err
    assert (own / "inspection.html").read_text() == "precious"
    for _ in range(2):  # an earlier inspection is replaced
        code, _, err = launcher.run(
            "inspect_data", f"folder:{photos}", f"--workdir={tmp_path / 'new'}"
        )
        assert code == 0, err


def test_a_split_called_otherwise_is_proposed_as_it_is_called_and_once(launcher, photos):
    shutil.rmtree(photos / "test")
    (photos / "train").rename(photos / "Train")
    code, out, err = launcher.run("inspect_data", f"folder:{photos}")
    assert code == 0 and "unknown split" not in err
    assert out.count("unknown split") == 1 and "--config.data.train_split='Train[:80%]'" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a data set, such as folder:photos, or --config=FILE"),
        (("folder:nowhere",), "nowhere does not exist"),
        (("folders:photos",), "nearest: folder:photos;"),
        (("digits", "more"), "unexpected argument 'more'"),
        (("digits", "--config=configs/quickstart.py"), "digits and --config: give one"),
    ],
)
def test_wrong_arguments(launcher, arguments, message):
    code, out, err = launcher.run("inspect_data", *arguments)
    assert (code, out) == (2, "") and message in err and "Traceback" not in err
