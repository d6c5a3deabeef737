"""The commands that show and store what augmentation makes of images."""

import pytest

CONFIG = (
    "--config=configs/quickstart.py",
    "--config.data.train_split=train",
    "--config.data.test_split=test",
    "--config.init.weights=",
)
DARKER = "--config.augment.operations=('brightness=0.3',)"


def test_a_data_set_is_written_and_the_command_says_what(launcher, tmp_path):
    out = tmp_path / "out"
    argv = [*CONFIG, DARKER, f"--out={out}", "--copies=1"]
    code, said, err = launcher.run("extend_data", *argv, small=True)
    assert code == 0, err
    assert "20 training images, 1 copy of each at 32 x 32 pixels" in said
    assert f"{out} is written: train 40, validation 648, test 500 images" in said
    assert f"--config.data.name=folder:{out}" in said
    assert "--config.data.validation_split=validation" in said
    code, said, err = launcher.run("extend_data", *argv, small=True)
    assert code == 2 and "is not empty; expected a folder that does not exist yet" in err


def test_a_page_is_written(launcher, tmp_path):
    argv = [*CONFIG, DARKER, f"--workdir={tmp_path}", "--images=2", "--draws=2"]
    code, said, err = launcher.run("preview_augment", *argv, small=True)
    assert code == 0, err
    assert f"{tmp_path}/augmentation.html: augmentation.png, augmentation_changes.png" in said
    assert (tmp_path / "augmentation_changes.png").is_file()


@pytest.mark.parametrize(
    ("command", "argv", "message"),
    [
        (
            "extend_data",
            ["--out=new", "--store_as=tdfs"],
            "unknown --store_as 'tdfs'; nearest: tfds",
        ),
        ("extend_data", [], "--out must be given"),
        ("extend_data", ["--out=new", "--config.augment.fill=reflekt"], "reflect"),
        ("preview_augment", [], "--workdir must be given"),
        ("preview_augment", ["--workdir=new", "--draws=0"], "--draws=0"),
    ],
)
def test_wrong_input_exits_with_2(launcher, command, argv, message):
    code, _, err = launcher.run(command, *CONFIG, *argv, small=True)
    assert code == 2 and message in err and "Traceback" not in err
