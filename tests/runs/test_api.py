"""Runs from Python: arrays in, a run out; predictions, evaluation, interrupts; nothing printed."""

import os
import pathlib
import shutil
import signal
import threading

import jax
import numpy as np
import pytest
from PIL import Image
from running import tiny_config, tree_of

import tl_jax
from tl_jax import reporting
from tl_jax.data.arrays import Digits
from tl_jax.errors import InputError
from tl_jax.runs import finished, results, stopping, training
from tl_jax.training.loops import Stopped

FIELDS = {"data__examples_per_class": 0, "data__validation_fraction": 0.2, "train__steps": 4}


def digits(name, count):
    split = Digits().split(name)
    chosen = np.arange(len(split))[:: len(split) // count][:count]
    return split.images[chosen], split.labels[chosen]


@pytest.fixture(scope="module")
def made(small_networks, tmp_path_factory):
    config, workdir = tiny_config(**FIELDS), tmp_path_factory.mktemp("api") / "run"
    return config, workdir, tl_jax.finetune(config, workdir, data=digits("train", 100))


def test_a_run_from_arrays(made, capfd):
    config, workdir, run = made
    assert run.result["splits"]["test"]["examples"] == 20  # a fifth
    assert run.result["splits"].keys() == {"validation", "test"}
    assert run.class_names == tuple("0123456789")
    assert config.data.name == "digits"  # as it was given
    before = tree_of(workdir)
    again = tl_jax.finetune(config, workdir, data=digits("train", 100))
    assert again.result == run.result and tree_of(workdir) == before
    assert capfd.readouterr() == ("", "")


def test_other_arrays_are_another_run(made):
    config, workdir, _ = made
    images, labels = digits("train", 100)
    for other in [(images[::-1], labels), (images, labels[::-1])]:
        with pytest.raises(InputError, match=r"data\.name: .* in the folder, .* given"):
            tl_jax.finetune(config, workdir, data=other)


def test_a_loaded_run_is_the_run(made):
    _, workdir, run = made
    loaded = tl_jax.load_run(str(workdir))
    assert (loaded.result, loaded.class_names) == (run.result, run.class_names)
    assert loaded.config.to_dict() == run.config.to_dict()
    saved = np.load(workdir / "predictions.npz")
    test = tl_jax.data.Arrays.split_off_test(*digits("train", 100)).split("test")
    probabilities = loaded.predict(test.images)
    np.testing.assert_allclose(probabilities, saved["probabilities"], atol=1e-6)
    kernel = loaded.variables["params"]["head"]["kernel"]
    assert kernel.shape[1] == 10 and loaded.model.num_classes == 10


def test_groups_of_batch_norm_are_of_the_run_and_no_matter_of_predictions(made, tmp_path):
    """Groups of 5 in batches of 10; then any number of images."""
    _, _, plain = made
    config = tiny_config(**FIELDS, model__batch_norm_rows=5)
    run = tl_jax.finetune(config, tmp_path / "run", data=digits("train", 100))
    assert run.model.batch_norm_rows == tl_jax.load_run(tmp_path / "run").model.batch_norm_rows == 5
    means = [each.variables["batch_stats"]["stem"]["bn"]["mean"] for each in (run, plain)]
    assert (means[0] != means[1]).any()
    assert run.predict(digits("test", 3)[0]).shape == (3, 10)
    config.model.batch_norm_rows = 2
    with pytest.raises(InputError, match=r"model\.batch_norm_rows: 5 in the folder, 2 given"):
        tl_jax.finetune(config, tmp_path / "run", data=digits("train", 100))


def test_every_split_of_its_own(small_networks, tmp_path):
    arrays = {
        "train": digits("train", 60),
        "validation": digits("train", 30),
        "test": digits("test", 40),
    }
    names = [f"digit {number}" for number in range(10)]
    run = tl_jax.finetune(
        tiny_config(**FIELDS), tmp_path / "run", data=arrays, class_names=tuple(names)
    )
    examples = {name: split["examples"] for name, split in run.result["splits"].items()}
    assert (examples, run.result["train_examples"]) == ({"validation": 30, "test": 40}, 60)
    assert run.class_names == tuple(names)


def test_a_name_in_place_of_arrays(small_networks, tmp_path):
    config = tiny_config(train__steps=2, data__name="npz:nowhere.npz")
    run = tl_jax.finetune(config, tmp_path / "run", data="digits")
    assert run.config.data.name == "digits"


def test_progress_is_printed_when_asked_for(small_networks, tmp_path, capsys):
    tl_jax.finetune(tiny_config(train__steps=2), tmp_path / "run", progress=True)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == [
        "weights",
        "data",
        "trained",
        "memory",
    ]
    assert lines[-1].startswith(f"{tmp_path / 'run'}: test top-1 ") and len(lines) <= 10
    assert "step 2/2 (100%)" in said.err


def test_an_evaluation_on_other_arrays(made, tmp_path):
    _, _, run = made
    images, labels = digits("test", 50)
    result = tl_jax.evaluate(run, tmp_path / "new", data=(images, labels))
    assert result["splits"]["test"]["examples"] == 50
    assert result["overlap"] == {"examples": 0}
    right = (run.predict(images).argmax(-1) == labels).mean()
    assert result["splits"]["test"]["top1_accuracy"] == pytest.approx(right)
    with pytest.raises(InputError, match="has 10 classes, the data have 11"):
        tl_jax.evaluate(
            run, tmp_path / "other", data=(images, labels), class_names=tuple("abcdefghijk")
        )


def test_an_evaluation_on_what_the_run_was_trained_on_says_so(made, tmp_path, capsys):
    _, _, run = made
    result = tl_jax.evaluate(run, tmp_path / "seen", data=digits("train", 100), progress=True)
    count = run.result["train_examples"]
    assert result["overlap"] == {"examples": count} and 0 < count < 100
    line = (
        f"{count} of 100 test images are among those that the run was trained on: this is not its"
    )
    assert line in capsys.readouterr().err and line in result["data_notes"][-1]


def test_arrays_that_cannot_be_data(small_networks, tmp_path):
    images, labels = digits("train", 20)
    for wrong in [(images.astype(np.float32), labels), (images, labels.astype(np.float32))]:
        with pytest.raises(InputError, match="expected"):
            tl_jax.finetune(tiny_config(**FIELDS), tmp_path / "run", data=wrong)
    assert tree_of(tmp_path) == {}


def test_an_interrupt_saves_and_the_same_call_goes_on(small_networks, tmp_path, monkeypatch):
    config = tiny_config(train__steps=40, train__updates_per_dispatch=1)
    timer = []

    def interrupt_soon(*arguments, **options):
        if not timer:
            timer.append(threading.Timer(0.0, os.kill, (os.getpid(), signal.SIGINT)))
            timer[0].start()
        return train(*arguments, **options)

    train = training.train
    monkeypatch.setattr(training, "train", interrupt_soon)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as raised:
        tl_jax.finetune(config, tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before and 0 < raised.value.step < 40
    resumed = tl_jax.finetune(config, tmp_path / "run")
    whole = tl_jax.finetune(config, tmp_path / "whole")
    assert resumed.result["resumed_at_step"] == raised.value.step
    for one, other in zip(*map(jax.tree.leaves, (resumed.variables, whole.variables)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_callbacks_are_told_what_is_logged(small_networks, tmp_path):
    told = []
    config = tiny_config(**FIELDS | {"train__eval_every_steps": 2, "train__log_every_steps": 2})
    run = tl_jax.finetune(
        config,
        tmp_path / "run",
        data=digits("train", 100),
        callbacks=[lambda *arguments: told.append(arguments)],
    )
    assert [(step, split) for step, split, _ in told] == [
        (1, "train"), (2, "train"), (2, "validation"), (3, "train"), (4, "train"), (4, "validation"),
    ]  # fmt: skip
    lines = reporting.read_metrics(run.workdir)
    for (step, split, metrics), line in zip(told, lines, strict=True):
        assert (line["step"], line["split"], line["loss"]) == (step, split, metrics["loss"])
    assert "learning_rate" in told[0][2] and "top1_accuracy" in told[2][2]


def test_a_second_interrupt_ends_at_once():
    with pytest.raises(KeyboardInterrupt), stopping.StopRequest() as requested:
        os.kill(os.getpid(), signal.SIGINT)
        assert requested()
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("removed", ["weights.safetensors", "result.json", None])
def test_what_is_no_finished_run(made, tmp_path, removed):
    _, workdir, _ = made
    for path in workdir.iterdir() if removed else ():
        if path.is_file() and path.name != removed:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    missing = f"no {removed} there" if removed else "no config.json and no preprocessing.json"
    with pytest.raises(InputError, match=missing):
        tl_jax.load_run(tmp_path)


@pytest.mark.parametrize("damaged", ["config.json", "result.json", "preprocessing.json"])
def test_a_damaged_file_of_a_run_is_named(made, tmp_path, damaged):
    shutil.copytree(made[1], tmp_path / "run")
    (tmp_path / "run" / damaged).write_text("{")
    with pytest.raises(InputError, match=rf"run/{damaged} is no JSON"):
        tl_jax.load_run(tmp_path / "run")
    if damaged != "result.json":  # an interrupted run has none
        with pytest.raises(InputError, match=rf"run/{damaged} is no JSON"):
            tl_jax.evaluate(tmp_path / "run", tmp_path / "evaluated")


@pytest.fixture
def photos(tmp_path):
    """Returns a folder of photos of several sizes and formats, one in a folder inside."""
    images, _ = digits("test", 4)
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    paths = ["a.png", "b.jpg", "c.bmp", "inner/d.png"]
    for number, (name, image) in enumerate(zip(paths, images, strict=True)):
        picture = Image.fromarray(image).resize((40 + 8 * number, 48))
        picture.convert("L" if name == "c.bmp" else "RGB").save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def test_predictions_of_files(made, photos, capsys):
    _, _, run = made
    rows = finished.predict_files(run, [photos, photos / "b.jpg"], top=2)
    names = [pathlib.Path(row["file"]).name for row in rows]
    assert names == ["a.png", "b.jpg", "c.bmp", "d.png", "b.jpg"]
    assert rows[1] == rows[4]
    assert all(
        list(row) == ["file", "class1", "probability1", "class2", "probability2"] for row in rows
    )
    assert all(1 >= row["probability1"] >= row["probability2"] >= 0 for row in rows)
    assert "ignored" in capsys.readouterr().err


def test_a_prediction_depends_on_no_other_image(made, tmp_path):
    """Images of one size near the network's stay as stored elsewhere, those of several do not."""
    _, _, run = made
    images, _ = digits("test", 2)
    for side, image in zip((12, 14), images, strict=True):
        Image.fromarray(image).resize((side, side)).save(tmp_path / f"{side}.png")
    small, large = sorted(tmp_path.iterdir())
    # Two images each time: a batch of another size may round differently on some processors.
    np.testing.assert_array_equal(run.predict([small, large])[0], run.predict([small, small])[0])


def test_grey_arrays_and_single_channels(made):
    _, _, run = made
    images, _ = digits("test", 3)
    np.testing.assert_array_equal(run.predict(images[..., 0]), run.predict(images))
    np.testing.assert_array_equal(run.predict(images[..., :1]), run.predict(images))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no images; expected one"),
        (["missing.png"], "no such file: missing.png"),
        (np.zeros((2, 8, 8, 3), np.float32), "expected"),
        (np.zeros((8, 9, 3), np.uint8), r"one image; expected \[N, H, W, 3\]: images\[None\]"),
        (None, "None is given; expected an array, or a list of paths"),
        ("photo.png", "'photo.png' is given; expected an array, or a list of paths"),
    ],
)
def test_what_cannot_be_predicted(made, given, message):
    with pytest.raises(InputError, match=message):
        made[2].predict(given)


def test_a_folder_without_images_and_a_broken_file(made, tmp_path):
    with pytest.raises(InputError, match="has no images; names of images end in"):
        finished.predict_files(made[2], [tmp_path])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"broken\.png"):
        finished.predict_files(made[2], [tmp_path])


def test_class_names_are_those_of_the_run(made):
    assert results.class_names_of(made[1]) == list("0123456789")
