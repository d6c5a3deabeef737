"""The preview of augmentation: what it shows is what updates draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import tiny_config

import tl_jax
from tl_jax.augment import Operation, make_mixing, make_train_transform
from tl_jax.errors import InputError
from tl_jax.features import compute, make_view_transform
from tl_jax.runs import preview
from tl_jax.runs.setup import prepare, prepare_phases

pytestmark = pytest.mark.usefixtures("small_networks")

OPERATIONS = ("brightness=0.5", "grey=0.5")


def shown(monkeypatch, tmp_path, config, **numbers):
    """Returns the sheets of a preview, which are not drawn."""
    sheets = []
    monkeypatch.setattr(preview, "write_preview", lambda folder, title, made: sheets.extend(made))
    preview.preview_augment(config, tmp_path / "preview", **numbers)
    return sheets


def pixels(setup, images):
    """Returns normalised images as levels."""
    spec = setup.preprocessing
    return np.round(255 * (np.asarray(images) * np.array(spec.std) + np.array(spec.mean)))


def assert_levels(pictures, expected):
    """Asserts equal levels; a half may be rounded either way."""
    found = np.stack([picture.image for picture in pictures]).astype(float)
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 1
    assert (np.abs(found - np.clip(expected, 0, 255)) > 0).mean() < 0.01


@pytest.mark.parametrize("mixing", [(), ("mixup=1",)], ids=["alone", "mixed"])
def test_a_column_is_what_an_update_draws(monkeypatch, tmp_path, mixing):
    config = tiny_config(augment__operations=OPERATIONS, augment__mixing=mixing, seed=3)
    sheet, changes = shown(monkeypatch, tmp_path, config, images=4, draws=3)
    setup = prepare(config)
    split, examples = setup.splits["train"], setup.order.examples(0)
    images, labels = jnp.asarray(split.gather(examples)), split.labels[examples]
    assert sheet.columns == ["image", "update 0", "update 1", "update 2"] and len(sheet.rows) == 4
    transform = jax.jit(make_train_transform(setup.preprocessing, setup.augmentation))
    for update in range(3):
        key = jax.random.fold_in(jax.random.key(3), update)
        expected = transform(key, jnp.arange(len(images)), images)
        if mixing:
            mix = jax.jit(make_mixing(setup.mixings, len(split.class_names)))
            expected, targets = mix(jax.random.fold_in(key, 2**31 - 2), expected, labels)
            first = np.asarray(targets[0])
            caption = sheet.rows[0][1 + update].caption.splitlines()[0]
            assert caption == f"{first.max():.2f} {split.class_names[first.argmax()]}"
        assert_levels([row[1 + update] for row in sheet.rows], pixels(setup, expected[:4]))
    assert [row[0].caption for row in sheet.rows] == [
        split.class_names[label] for label in labels[:4]
    ]
    plain = jax.jit(make_train_transform(setup.preprocessing))(key, jnp.arange(4), images[:4])
    assert_levels([row[0] for row in sheet.rows], pixels(setup, plain))
    assert changes.names == ["crop_padding=2", *OPERATIONS]


def test_every_change_is_shown_alone(monkeypatch, tmp_path):
    config = tiny_config(augment__operations=("cutout=4", "grey=1"), augment__flip=True)
    _, sheet = shown(monkeypatch, tmp_path, config, images=1, draws=5)
    assert sheet.names == ["crop_padding=2", "flip", "cutout=4", "grey=1"]
    _, flips, cut, grey = sheet.rows
    image = flips[0].image.astype(int)
    shown_images = [one.image.astype(int).tolist() for one in flips[1:]]
    assert all(one in (image.tolist(), image[:, ::-1].tolist()) for one in shown_images)
    erased = np.round([123.675, 116.28, 103.53])
    for one in cut[1:]:
        same = (one.image == image).all(-1)
        assert (one.image[~same] == erased).all() and 4 <= (~same).sum() <= 16
    for one in grey[1:]:
        assert np.abs(one.image - one.image[..., :1].astype(int)).max() == 0


def test_stored_views_are_shown_where_activations_are_stored(monkeypatch, tmp_path):
    """As the cache makes them, which numbers examples as in the split that they were taken from."""
    config = tiny_config(
        freeze__strategy="backbone", cache__boundary="auto", cache__views=2, cache__view_seed=5,
        data__validation_fraction=0.5,
    )  # fmt: skip
    sheet, _ = shown(monkeypatch, tmp_path, config, images=2, draws=6)
    assert sheet.columns == ["image", "view 0", "view 1"]
    setup = prepare(config)
    whole, places = setup.splits["train"].whole()
    examples = setup.order.examples(0)[:2]
    numbers = places[examples]
    assert (numbers != examples).all()
    transform = jax.jit(make_view_transform(setup.preprocessing, setup.augmentation, 2, 5))
    stored = np.empty((2, 2, *sheet.rows[0][0].image.shape), np.float32)
    batches = [{"image": whole.gather(numbers), "example": numbers}]
    compute(lambda batch: transform(batch["row"], batch["image"]), batches, 2, stored)
    for view in (0, 1):
        assert_levels([row[1 + view] for row in sheet.rows], pixels(setup, stored[:, view]))


def test_phases_are_shown_where_they_augment_differently(monkeypatch, tmp_path):
    phases = (("train.steps=2",), ("train.steps=3",), ("train.steps=1", "augment.crop_padding=0"))
    config = tiny_config(phases=phases)
    sheets = shown(monkeypatch, tmp_path, config, images=1, draws=2)
    assert [sheet.file for sheet in sheets] == [
        "augmentation_phase1.png", "augmentation_changes_phase1.png",
        "augmentation_phase3.png", "augmentation_changes_phase3.png",
    ]  # fmt: skip
    assert sheets[2].columns == ["image", "update 5", "update 6"]
    assert prepare_phases(config)[2].first_step == 5
    assert not sheets[3].rows and sheets[3].note == "Nothing changes the training images."


def test_page_and_pictures_are_written(tmp_path, capsys):
    config = tiny_config(augment__operations=("grey=0.5",))
    page = preview.preview_augment(config, tmp_path / "new", images=2, draws=2)
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "augmentation.html", "augmentation.png", "augmentation_changes.png",
    ]  # fmt: skip
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 2 * 3 + 2 * 3
    assert "grey=0.5" in html and "http" not in html.replace("http-equiv", "")
    assert (tmp_path / "new/augmentation.png").read_bytes().startswith(b"\x89PNG")
    assert "augmentation.png, augmentation_changes.png beside it" in capsys.readouterr().out


@pytest.mark.parametrize("numbers", [{"images": 0}, {"draws": 0}])
def test_wrong_numbers_are_refused(tmp_path, numbers):
    with pytest.raises(InputError, match="expected integers from 1"):
        preview.preview_augment(tiny_config(), tmp_path / "new", **numbers)
    assert not (tmp_path / "new").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give a folder"):
        preview.preview_augment(tiny_config(), tmp_path / "file")
    with pytest.raises(InputError, match="not empty: it holds file; give a new folder"):
        preview.preview_augment(tiny_config(), tmp_path)


def test_arrays_and_objects_are_shown_from_python(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    black = Operation("black", lambda key, image, strength: image * strength, 0.0)
    config = tl_jax.default_config(data__batch_size=4, parallel__devices=1, train__steps=1)
    page = tl_jax.preview_augment(
        config, tmp_path, data=(images, np.arange(12) % 3), operations=[black], images=1, draws=1
    )
    assert "black=0" in page.read_text() and not capsys.readouterr().out
    assert tuple(config.augment.operations) == ()
