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

pytestmark = pytest.mark.usefixtures("small_networks")


def config_of(path, **fields):
    options = {
        "data__examples_per_class": 0,
        "data__batch_size": 8,
        "data__validation_fraction": 0.2,
    }
    return tiny_config(
        data__name=f"folder:{path}", train__steps=4, report__html=True, **options | fields
    )


@pytest.fixture
def photos(tmp_path):
    """Returns the folders of the same images with broken files and without, of one name."""
    found = {}
    for name in ("broken", "clean"):
        found[name] = tmp_path / name / "photos"
        broken_files.write(found[name], broken=name == "broken")
    return found


def test_a_run_that_leaves_images_out_is_the_run_without_them(photos, tmp_path):
    with pytest.raises(InputError, match="13 images cannot be used"):
        tl_jax.finetune(config_of(photos["broken"]), tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()
    runs = {
        name: tl_jax.finetune(config_of(path, data__unreadable=how), tmp_path / "runs" / name)
        for (name, path), how in zip(photos.items(), ("skip", "stop"), strict=True)
    }
    digests = {
        name: files.digest(run.workdir / "weights.safetensors") for name, run in runs.items()
    }
    assert digests["broken"] == digests["clean"]
    skipped = runs["broken"].result["data_skipped"]
    assert skipped["count"] == 13 and skipped["first"][0].endswith("cat/checksum.png")
    assert "data_skipped" not in runs["clean"].result
    assert any(
        "13 images that cannot be read are left out" in note
        for note in runs["broken"].result["data_notes"]
    )
    page = (runs["broken"].workdir / "report.html").read_text()
    assert "13 that cannot be read: checksum.png, " in page
    assert "images left out" not in (runs["clean"].workdir / "report.html").read_text()


def test_a_resumed_run_leaves_out_the_same_images(photos, tmp_path):
    config = config_of(photos["broken"], data__unreadable="skip", train__checkpoint_every_steps=2)
    whole = tl_jax.finetune(config, tmp_path / "whole")

    def stop(step, split, metrics):
        if step == 2:
            raise Stopped(step)

    with pytest.raises(Stopped):
        tl_jax.finetune(config, tmp_path / "run", callbacks=[stop])
    assert len(json.loads((tmp_path / "run/skipped_images.json").read_text())) == 13
    repaired = photos["broken"] / "cat/empty.jpg"
    repaired.write_bytes(broken_files.encoded("JPEG"))
    with pytest.raises(
        InputError,
        match=r"left out 13 images .*now 12 left out; readable since then: .*empty\.jpg\.",
    ):
        tl_jax.finetune(config, tmp_path / "run")
    repaired.write_bytes(b"")
    run = tl_jax.finetune(config, tmp_path / "run")
    weights = [files.digest(one.workdir / "weights.safetensors") for one in (run, whole)]
    assert weights[0] == weights[1]
    assert run.result["data_skipped"]["count"] == 13
