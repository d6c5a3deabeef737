"""The packaged weights are what their card says: bytes, preprocessing, and accuracy where the data are available."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tl_jax import files, models, porting
from tl_jax.augment import preprocessing
from tl_jax.data import InMemorySplit, stream
from tl_jax.training import evaluation, steps

WEIGHTS = models.get_pretrained("resnet20_cifar.tin32")
FILE = pathlib.Path(models.__file__).parent.parent / "weights" / WEIGHTS.filename
CARD = FILE.with_name("MODEL_CARD.md").read_text()


def numbers(pattern):
    """Returns the numbers of the first match in the card, thousands separators left out."""
    found = re.search(pattern, CARD)
    assert found, f"the card says nothing like {pattern!r}"
    return [float(text.replace(",", "")) for text in found.groups()]


def test_the_card_describes_the_file():
    assert f"SHA-256 `{files.digest(FILE)}`" in CARD and WEIGHTS.sha256 == files.digest(FILE)
    (num_classes,) = numbers(rf'create_model\("{WEIGHTS.model}", (\d+)\)')
    assert num_classes == WEIGHTS.num_classes


def test_the_registry_has_the_preprocessing_of_the_card():
    triple = r"`\(([\d.]+), ([\d.]+), ([\d.]+)\)`"
    assert list(WEIGHTS.mean) == numbers(f"mean {triple}")
    assert list(WEIGHTS.std) == numbers(f"standard deviation {triple}")
    assert [WEIGHTS.image_size] * 2 == numbers(r"(\d+) x (\d+) \|")
    (percent,) = numbers(r"\*\*([\d.]+)%\*\* of all 10,000")
    assert WEIGHTS.top1_accuracy == pytest.approx(percent / 100)


def tiny_imagenet(folder):
    """Returns the 10,000 official validation images at 32 px from sheets of 50 x 50 of them.

    `index.json` says how many sheets there are; images are in the order of the classes.
    """
    index = json.loads((folder / "index.json").read_text())
    side, tile, stored = index["tiles_per_side"], index["tile"], index["val"]
    sheets = []
    for number in range(stored["sheets"]):
        with Image.open(folder / f"val-{number:02d}.jpg") as opened:
            pixels = np.asarray(opened.convert("RGB"))
        tiles = pixels.reshape(side, tile, side, tile, 3).swapaxes(1, 2)
        sheets.append(tiles.reshape(-1, tile, tile, 3))
    names = [entry["name"] for entry in index["classes"]]
    labels = np.repeat(np.arange(len(names)), stored["images_per_class"])
    return InMemorySplit(np.concatenate(sheets), labels, names, "Tiny ImageNet val")


def test_the_accuracy_of_the_card(real_data):
    """All 10,000 images, to the image."""
    split = tiny_imagenet(real_data / "tinyimagenet32")
    assert len(split) == 10_000
    model = models.create_model(WEIGHTS.model, WEIGHTS.num_classes)
    variables, _ = porting.load_pretrained(WEIGHTS.name, model, input_shape=(1, 32, 32, 3))
    spec = preprocessing.Preprocessing(
        image_size=WEIGHTS.image_size,
        interpolation=WEIGHTS.interpolation,
        mean=WEIGHTS.mean,
        std=WEIGHTS.std,
    )
    step = jax.jit(
        steps.make_eval_step(models.make_forward(model), preprocessing.make_eval_transform(spec))
    )
    measured, _ = evaluation.evaluate(
        lambda params, batch_stats, batch: step(
            params, batch_stats, jax.tree.map(jnp.asarray, batch)
        ),
        variables["params"],
        variables["batch_stats"],
        stream.eval_batches(split, 100),
        len(split),
    )
    (top1,) = numbers(r"\*\*([\d.]+)%\*\* of all 10,000")
    (top5,) = numbers(r"top-5 ([\d.]+)%\)")
    # One image is 0.01%; two may fall on the other side of a tie under another version of XLA.
    assert 100 * measured["top1_accuracy"] == pytest.approx(top1, abs=0.02)
    assert 100 * measured["top5_accuracy"] == pytest.approx(top5, abs=0.02)
