"""Runs that go on, with the data they began with or with others."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from running import tiny_config

import tl_jax
from tl_jax import files
from tl_jax.errors import InputError
from tl_jax.parallel import placement
from tl_jax.training.loops import Stopped

pytestmark = pytest.mark.usefixtures("small_networks")


def config_of(path, **fields):
    options = {"data__examples_per_class": 0, "data__batch_size": 8, "freeze__strategy": "backbone"}
    options |= {"train__checkpoint_every_steps": 2, "data__validation_fraction": 0.2}
    options |= {
        "optim__schedule": "constant",
        "train__eval_every_epochs": 0.0,
        "data__cache_dir": "",
    }
    options["train__eval_every_steps"] = 2
    options |= {"data__name": f"folder:{path}", "train__steps": 4}
    return tiny_config(**options | fields)


SQUARE = {"data__image_size": 16, "preprocess__resize": 16}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    for number in range(40):
        split = "test" if number % 5 == 4 else "train"
        write(folder / split / "ab"[number % 2] / f"{number:02}.png", number)
    return folder


@pytest.fixture(scope="module")
def interrupted(small_networks, stored, tmp_path_factory):
    """Returns the folder of photos and that of a run on them, stopped after two of four updates are saved."""
    place = tmp_path_factory.mktemp("interrupted")
    shutil.copytree(stored, place / "photos")

    def stop(step, split, metrics):
        if step == 3:
            raise Stopped(step)

    with pytest.raises(Stopped):
        tl_jax.finetune(config_of(place / "photos"), place / "run", callbacks=[stop])
    return place


def removed(photos):
    (photos / "train/a/00.png").unlink()


def moved_to_test(photos):
    (photos / "train/a/00.png").rename(photos / "test/a/00.png")


def moved_to_another_class(photos):
    (photos / "train/a/00.png").rename(photos / "train/b/00.png")
    (photos / "train/b/01.png").rename(photos / "train/a/01.png")


def rewritten(photos):
    write(photos / "train/a/06.png", 1000)


def rewritten_in_test(photos):
    write(photos / "test/b/09.png", 1000)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (removed, "train had 26 images and has 25"),
        (moved_to_test, "test had 8 images and has 9; train had 26 images and has 25"),
        (moved_to_another_class, "the 26 images of train are others"),
        (rewritten, "the 26 images of train are others"),
        (rewritten_in_test, "the 8 images of test are others"),
    ],
)
def test_a_run_does_not_go_on_with_other_data(interrupted, tmp_path, change, said):
    shutil.copytree(interrupted, tmp_path / "copy")
    photos, run = tmp_path / "copy/photos", tmp_path / "copy/run"
    config = json.loads((run / "config.json").read_text())
    config["data"]["name"] = f"folder:{photos}"
    files.write(run / "config.json", json.dumps(config))
    change(photos)
    with pytest.raises(InputError) as raised:
        tl_jax.finetune(config_of(photos), run)
    assert said in str(raised.value)
    assert "give a new --workdir" in str(raised.value)


def test_a_run_goes_on_with_its_own_data_from_another_place(interrupted, stored, tmp_path):
    """Times of change are others, what the files hold is not; and they are put back after a change."""
    whole = tl_jax.finetune(config_of(stored), tmp_path / "whole")
    photos = interrupted / "photos"
    (photos / "train/a/00.png").rename(photos / "train/b/00.png")
    with pytest.raises(InputError, match="holds a run on other data"):
        tl_jax.finetune(config_of(photos), interrupted / "run")
    (photos / "train/b/00.png").rename(photos / "train/a/00.png")
    for path in photos.rglob("*.png"):
        path.write_bytes(path.read_bytes())
    run = tl_jax.finetune(config_of(photos), interrupted / "run")
    assert run.result["resumed_at_step"] == 2
    digests = [files.digest(one.workdir / "weights.safetensors") for one in (run, whole)]
    assert digests[0] == digests[1]
    # A longer run goes on from it; one on other images does not.
    write(photos / "train/a/06.png", 1000)
    with pytest.raises(InputError, match="the 26 images of train are others"):
        tl_jax.finetune(config_of(photos, train__steps=8), interrupted / "run")
    assert json.loads((interrupted / "run/result.json").read_text())["steps"] == 4


def test_images_on_access_are_told_apart_by_their_names(stored, tmp_path, monkeypatch):
    """Their content would have to be read whole at every start; with less memory, a run goes on all the same."""
    shutil.copytree(stored, tmp_path / "photos")
    config = config_of(tmp_path / "photos")
    tl_jax.finetune(config, tmp_path / "run")
    monkeypatch.setattr(placement, "room_for_decoded_images", lambda: 0)
    config.train.steps = 6
    run = tl_jax.finetune(config, tmp_path / "run")
    assert run.result["resumed_at_step"] == 4
    write(tmp_path / "photos/train/a/06.png", 1000)
    config.train.steps = 8
    assert tl_jax.finetune(config, tmp_path / "run").result["steps"] == 8
    (tmp_path / "photos/train/a/06.png").rename(tmp_path / "photos/train/a/03.png")
    config.train.steps = 10
    with pytest.raises(InputError, match="the 26 images of train are others"):
        tl_jax.finetune(config, tmp_path / "run")


def test_labels_that_changed_are_noticed(tmp_path):
    """The images and their order are the same."""
    random = np.random.default_rng(0)
    arrays = {
        f"{split}_{what}": values
        for split in ("train", "test")
        for what, values in (
            ("images", random.integers(0, 256, (20, 12, 12, 3), np.uint8)),
            ("labels", np.arange(20) % 2),
        )
    }
    np.savez(tmp_path / "photos.npz", **arrays)
    config = config_of(tmp_path, data__name=f"npz:{tmp_path / 'photos.npz'}")
    tl_jax.finetune(config, tmp_path / "run")
    np.savez(tmp_path / "photos.npz", **arrays | {"train_labels": arrays["train_labels"][::-1]})
    config.train.steps = 6
    with pytest.raises(
        InputError, match=r"images of train are others.*; the \d+ images of validation"
    ):
        tl_jax.finetune(config, tmp_path / "run")


def test_an_evaluation_sees_the_pixels_of_the_run(tmp_path):
    """Photos of several sizes in train and of one in test: all are brought to squares, here as there."""
    for number in range(32):
        split = "test" if number % 5 == 4 else "train"
        size = 24 if split == "test" else 20 + number % 5
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)
        path = tmp_path / "photos" / split / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    run = tl_jax.finetune(config_of(tmp_path / "photos", **SQUARE), tmp_path / "run")
    evaluated = tl_jax.evaluate(tmp_path / "run", tmp_path / "evaluated")
    assert evaluated["splits"]["test"]["loss"] == run.result["splits"]["test"]["loss"]
    predictions = [
        np.load(tmp_path / name / "predictions.npz")["probabilities"]
        for name in ("run", "evaluated")
    ]
    np.testing.assert_array_equal(*predictions)
