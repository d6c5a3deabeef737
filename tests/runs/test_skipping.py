"""Runs that leave out images which cannot be read: those on a folder without them, to the bit."""

import json
import pathlib
import sys

import pytest
from running import tiny_config

import tl_jax
from tl_jax import files
from tl_jax.errors import InputError
from tl_jax.training.loops import Stopped

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "data"))

import broken_files


def config_of(path, **fields):
    """A linear probe, whose programs are the smallest."""
    options = {"data__examples_per_class": 0, "data__batch_size": 8, "freeze__strategy": "backbone"}
    options |= {"train__checkpoint_every_steps": 2, "data__validation_fraction": 0.2}
    return tiny_config(
        data__name=f"folder:{path}", train__steps=4, report__html=True, **options | fields
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Returns the folders of the same images with broken files and without."""
    found = {}
    for name in ("broken", "clean"):
        found[name] = tmp_path_factory.mktemp(name) / "photos"
        broken_files.write(found[name], broken=name == "broken")
    return found


@pytest.fixture(scope="module")
def runs(small_networks, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: tl_jax.finetune(config_of(path, data__unreadable=how), folder / name)
        for (name, path), how in zip(photos.items(), ("skip", "stop"), strict=True)
    }


def weights_of(run) -> str:
    return files.digest(run.workdir / "weights.safetensors")


def test_a_run_stops_at_images_that_cannot_be_read(small_networks, photos, tmp_path):
    with pytest.raises(InputError, match="13 images cannot be used"):
        tl_jax.finetune(config_of(photos["broken"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_leaves_images_out_is_the_run_without_them(runs):
    assert weights_of(runs["broken"]) == weights_of(runs["clean"])
    skipped = runs["broken"].result["data_skipped"]
    assert skipped["count"] == 13 and skipped["first"][0].endswith("cat/checksum.png")
    assert "data_skipped" not in runs["clean"].result
    notes = runs["broken"].result["data_notes"]
    assert any("13 images that cannot be read are left out" in note for note in notes)
    page = (runs["broken"].workdir / "report.html").read_text()
    assert "13 that cannot be read: checksum.png, " in page
    assert "images left out" not in (runs["clean"].workdir / "report.html").read_text()


def test_an_evaluation_says_what_it_left_out(runs, tmp_path):
    result = tl_jax.evaluate(runs["broken"].workdir, tmp_path / "evaluation")
    assert result["data_skipped"]["count"] == 13
    assert (
        result["splits"]["test"]["examples"] == runs["clean"].result["splits"]["test"]["examples"]
    )


def test_a_resumed_run_leaves_out_the_same_images(runs, photos, tmp_path):
    config = config_of(photos["broken"], data__unreadable="skip")

    def stop(step, split, metrics):
        if step == 2:
            raise Stopped(step)

    with pytest.raises(Stopped):
        tl_jax.finetune(config, tmp_path / "run", callbacks=[stop])
    assert len(json.loads((tmp_path / "run/skipped_images.json").read_text())) == 13
    repaired = photos["broken"] / "cat/empty.jpg"
    repaired.write_bytes(broken_files.encoded("JPEG"))
    try:
        with pytest.raises(
            InputError,
            match=r"left out 13 images .*now 12 left out; readable since then: .*empty\.jpg\.",
        ):
            tl_jax.finetune(config, tmp_path / "run")
    finally:
        repaired.write_bytes(b"")
    run = tl_jax.finetune(config, tmp_path / "run")
    assert weights_of(run) == weights_of(runs["broken"])
    assert run.result["data_skipped"]["count"] == 13
