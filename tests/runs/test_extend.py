"""Enlarged data sets: what they hold, that nothing held out is in them, whole or not at all."""

import collections
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from running import tiny_config

import tl_jax
from tl_jax import data, files
from tl_jax.augment import Augmentation, Operation, make_augment
from tl_jax.augment.preprocessing import Preprocessing
from tl_jax.data import images, writing
from tl_jax.errors import InputError
from tl_jax.runs import extend
from tl_jax.runs.parts import Parts
from tl_jax.runs.splits import make_splits


def config_of(**fields):
    """Returns a config of 6 + 4 digits a class at their size, flipped and made darker or brighter."""
    changes = {
        "data__image_size": 32,
        "preprocess__resize": 0,
        "augment__operations": ("brightness=0.3",),
        "data__validation_fraction": 0.9,
        "data__examples_per_class": 2,
    }
    return tiny_config(**changes | fields)


def loaded(name, **options):
    return data.load_splits(name, data.Selection(validation="validation"), **options)


def images_of(split):
    return split.gather(np.arange(len(split)))


def by_content(split):
    """Returns how often each image is in a split, with its label."""
    return collections.Counter(
        (image.tobytes(), split.class_names[label])
        for image, label in zip(images_of(split), split.labels, strict=True)
    )


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """Returns the folder of an enlarged data set with two copies of each image."""
    out = tmp_path_factory.mktemp("extended") / "new"
    counts = extend.extend_data(config_of(), out, copies=2)
    assert counts == {"train": 60, "validation": 1167, "test": 500}
    return out


def test_other_splits_are_as_they_were_and_train_holds_the_images(extended):
    before, after = make_splits(config_of()), loaded(f"folder:{extended}")
    for role in ("validation", "test"):
        assert by_content(after[role]) == by_content(before[role])
    assert len(after["train"]) == 3 * len(before["train"])
    assert by_content(before["train"]) <= by_content(after["train"])
    assert collections.Counter(after["train"].labels.tolist()) == dict.fromkeys(range(10), 6)


def test_no_image_that_is_held_out_is_in_train(extended):
    after = loaded(f"folder:{extended}")
    held_out = by_content(after["validation"]).keys() | by_content(after["test"]).keys()
    originals = {Image.open(path).tobytes() for path in (extended / "train").glob("*/*_0.png")}
    assert len(originals) == 20 and not originals & {pixels for pixels, _ in held_out}


def test_copies_are_what_the_augmentation_draws_by_seed_copy_and_image(extended):
    train = make_splits(config_of())["train"]
    pixels = jnp.asarray(images_of(train))
    operations = Augmentation(2, False, (Operation("brightness", brightness, 0.3),))
    augment = make_augment(Preprocessing(32), operations)
    for copy in (1, 2):
        key = jax.random.fold_in(jax.random.key(0), copy - 1)
        expected = np.asarray(augment(key, jnp.arange(20), pixels))
        for index, label in enumerate(train.labels):
            path = extended / "train" / train.class_names[label] / f"{index:07d}_{copy}.png"
            found = np.asarray(Image.open(path), float)
            assert np.abs(found - expected[index]).max() <= 0.501


def brightness(key, image, strength):
    factor = jax.random.uniform(key, minval=1 - strength, maxval=1 + strength)
    return jnp.clip(image * factor, 0, 255)


def test_the_same_seed_gives_the_same_files_and_another_seed_others(extended, tmp_path):
    def digests(folder):
        return {str(path.relative_to(folder)): files.digest(path) for path in folder.rglob("*.png")}

    for seed in (0, 1):
        config = config_of(seed=seed)
        extend.extend_data(config, tmp_path / str(seed), copies=2)
    first, same, other = (digests(folder) for folder in (extended, tmp_path / "0", tmp_path / "1"))
    assert first == same and first.keys() == other.keys()
    changed = {name for name in first if first[name] != other[name]}
    assert changed and all(name.startswith("train/") and "_0." not in name for name in changed)


def test_a_tfds_directory_holds_the_same(extended, tmp_path):
    out = tmp_path / "tfds"
    extend.extend_data(config_of(), out, copies=2, store_as="tfds")
    assert sorted(path.name for path in out.iterdir()) == [".extension.json", "extended"]
    found, expected = loaded("tfds:extended", data_dir=out), loaded(f"folder:{extended}")
    for role in ("train", "validation", "test"):
        assert by_content(found[role]) == by_content(expected[role])
    assert found["train"].class_names == expected["train"].class_names


def test_what_was_done_is_recorded(extended):
    facts = json.loads((extended / ".extension.json").read_text())
    assert (facts["copies"], facts["store_as"]) == (2, "png")
    assert facts["config"]["augment.operations"] == ["brightness=0.3"]
    assert facts["config"]["seed"] == 0 and facts["config"]["data.name"] == "digits"
    assert not loaded(f"folder:{extended}").notes


@pytest.fixture
def photos(tmp_path):
    """Returns a folder of JPEGs and a PNG of several sizes in two splits."""
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            place = tmp_path / "photos" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (20 + number, 24, 3), np.uint8)
                ending = "png" if number == 1 else "jpg"
                Image.fromarray(pixels).save(place / f"{number}.{ending}")
    return tmp_path / "photos"


@pytest.mark.parametrize("store_as", extend.FORMATS)
def test_files_are_copied_byte_for_byte(photos, tmp_path, store_as):
    config = config_of(
        data__name=f"folder:{photos}", data__image_size=16, data__validation_fraction=0.0,
        data__examples_per_class=0,
    )  # fmt: skip
    out = tmp_path / "out"
    counts = extend.extend_data(config, out, copies=1, store_as=store_as)
    assert counts == {"train": 12, "test": 4}
    stored = sorted(files.digest(path) for path in photos.rglob("*.*"))
    if store_as == "tfds":
        source = data.load_splits(
            "tfds:extended", data_dir=out, decoding=data.Decoding(16, max_memory_bytes=0)
        )
        found = [one for split in source.values() for one in split.encoded(np.arange(len(split)))]
        (tmp_path / "files").mkdir()
        for number, encoded in enumerate(found):
            (tmp_path / "files" / str(number)).write_bytes(encoded)
        digests = [files.digest(path) for path in (tmp_path / "files").iterdir()]
    else:
        digests = [files.digest(path) for path in out.rglob("*.*") if path.parent != out]
        copies = [path for path in out.rglob("*_1.*")]
        assert {path.suffix for path in copies} == {".jpg" if store_as == "jpeg" else ".png"}
        assert {images.stored_size(path, "copy") for path in copies} == {(16, 16)}
    assert len(digests) == 16 and set(stored) <= set(digests)


def test_operations_that_are_objects_are_applied(tmp_path):
    white = Operation("white", lambda key, image, strength: image * 0 + strength, 255.0)
    config = config_of(augment__operations=("own:white=255",))
    extend.extend_data(config, tmp_path / "out", copies=1, parts=Parts(operations=(white,)))
    copies = list((tmp_path / "out/train").glob("*/*_1.png"))
    assert len(copies) == 20 and all((np.asarray(Image.open(path)) == 255).all() for path in copies)


def test_arrays_and_objects_are_extended_from_python(tmp_path, capsys):
    images = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None], 8, 1).repeat(8, 2)
    labels = np.arange(20) % 2
    white = Operation("white", lambda key, image, strength: image * 0 + strength, 255.0)
    counts = tl_jax.extend_data(
        tl_jax.default_config(data__validation_fraction=0.25),
        tmp_path / "out",
        data=(images, labels),
        class_names=("even", "odd"),
        operations=[white],
        copies=2,
    )
    assert counts == {"train": 36, "validation": 4, "test": 4} and not capsys.readouterr().out
    copies = [np.asarray(Image.open(path)) for path in (tmp_path / "out").rglob("*_2.png")]
    assert len(copies) == 12 and all((copy == 255).all() for copy in copies)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, {"copies": 0}, "--copies=0: expected an integer from 1"),
        ({}, {"store_as": "jpg"}, "unknown --store_as 'jpg'; nearest: jpeg"),
        (
            {"augment__mixing": ("mixup=0.2",)},
            {},
            r"augment\.mixing=\('mixup=0\.2',\): .*two classes",
        ),
        ({"phases": (("train.steps=1",), ("train.steps=2",))}, {}, "copies are made once"),
        ({"augment__operations": (), "augment__crop_padding": 0}, {}, "nothing changes the images"),
        ({"augment__operations": ("grey=2",)}, {}, r"augment\.operations.*\[0, 1\]"),
        ({"data__name": "folder:nowhere"}, {}, "nowhere does not exist"),
    ],
)
def test_wrong_input_leaves_nothing(tmp_path, fields, options, message):
    with pytest.raises(InputError, match=message):
        extend.extend_data(config_of(**fields), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty; expected a folder that does not exist yet"):
        extend.extend_data(config_of(), tmp_path)
    with pytest.raises(InputError, match="is a file"):
        extend.extend_data(config_of(), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("below", ["new", "train/cat/new", "../photos/new"])
def test_a_place_inside_the_data_set_is_refused(tmp_path, monkeypatch, below):
    """The copies would be a class of it, or more images of one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/train/cat").mkdir(parents=True)
    for name, data_dir in (
        ("photos", ""),
        (str(tmp_path / "photos"), ""),
        ("photos", str(tmp_path)),
    ):
        config = config_of(data__name=f"folder:{name}", data__data_dir=data_dir)
        with pytest.raises(InputError, match=r"is inside .*photos, the data set that is extended"):
            extend.extend_data(config, tmp_path / "photos" / below)
    assert [path.name for path in (tmp_path / "photos").rglob("*")] == ["train", "cat"]
    with pytest.raises(InputError, match=r"no images|no class"):
        extend.extend_data(config, tmp_path / "photos_extended")


@pytest.mark.parametrize("store_as", ["png", "tfds"])
def test_a_stop_half_way_leaves_nothing(tmp_path, store_as):
    asked = iter([False, False, True])
    with pytest.raises(extend.Stopped, match="nothing was written, run the same command again"):
        extend.extend_data(
            config_of(), tmp_path / "out", store_as=store_as, stop_requested=lambda: next(asked)
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "present", "message"),
    [
        (("cat", "a/b"), (True, True), "no names of folders: 'a/b'.*--store_as=tfds"),
        ((".cat", "dog"), (True, True), "no names of folders: '.cat'"),
        (("cat", "dog"), (True, False), "no training images of: 'dog'"),
        (("cat", "@eaDir"), (True, True), "no names of folders: '@eaDir'"),
        (("2", "10"), (True, True), "'2' is class 0, and would be 1; expected --store_as=tfds"),
        (("dog", "cat", "owl"), (True, True, True), "'dog' is class 0, and would be 1"),
    ],
)
def test_classes_that_folders_cannot_name_are_refused(names, present, message):
    with pytest.raises(InputError, match=message):
        writing.check_folder_names(names, np.array(present))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b\nc"), r'the class "b\\nc" is no line of text'),
        (("a ", "b"), 'the class "a " .*; expected --store_as=png, or other names'),
        (("", "b"), 'the class ""'),
    ],
)
def test_classes_that_tfds_cannot_name_are_refused_first(tmp_path, monkeypatch, names, message):
    monkeypatch.setattr(extend, "_make_copier", None)
    with pytest.raises(InputError, match=message):
        tl_jax.extend_data(
            tl_jax.default_config(augment__flip=True), tmp_path / "out", store_as="tfds",
            data=(np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2), class_names=names,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "ending"), [("JPEG2000", ".jp2"), ("WEBP", ".webp"), ("PNG", ".png"), ("PCX", ".png")]
)
def test_images_without_an_ending_get_that_of_their_format(tmp_path, kind, ending):
    """A table may list any file; a folder of classes is read by endings."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    rows = ["path,label,split"]
    for number in range(4):
        split = "train" if number < 2 else "test"
        name = tmp_path / (f"{number}" if number else "0.v2")
        Image.fromarray(pixels).save(name, kind)
        rows.append(f"{name},{'ab'[number % 2]},{split}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    split = data.open_undecoded(f"csv:{tmp_path / 'table.csv'}")["train"]
    found = writing.stored_images(split, np.arange(2))
    assert [one for _, one in found] == [ending, ending]
    content = (tmp_path / "1").read_bytes()
    if kind != "PCX":
        assert found[1][0] == content
    np.testing.assert_array_equal(images.decode(found[1][0], "b"), images.decode(content, "b"))


def test_the_printed_command_crops_no_copy_again_and_has_no_folds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(extend.writing, "write_folder", lambda *_: {"train": 1})
    config = config_of(
        data__validation_fraction=0.0, data__folds=4, data__fold=2, preprocess__resize=40
    )
    extend.extend_data(config, tmp_path / "out", copies=1)
    said, noted = capsys.readouterr()
    assert "--config.data.folds=0 --config.preprocess.resize=32" in said
    assert "test is fold 2 of 4" in noted and "copies of what is trained on" in noted
    extend.extend_data(config_of(), tmp_path / "usual", copies=1)
    said, noted = capsys.readouterr()
    assert "folds" not in said + noted and "preprocess.resize" not in said


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    extend.extend_data(config_of(data__examples_per_class=1), tmp_path / "out", copies=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".extension.json", "test", "train", "validation",
    ]  # fmt: skip
