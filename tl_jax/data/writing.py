"""Data sets that `folder:PATH` and `tfds:NAME` read, written from labelled images.

A folder is `PATH/SPLIT/CLASS/NAME.ENDING`, a TFDS directory `PATH/NAME/VERSION`.
"""

import dataclasses
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_jax.data import images, listing, tfds_writer
from tl_jax.data.records import LazySplit
from tl_jax.data.split import Split
from tl_jax.errors import InputError

VERSION = "1.0.0"  # of TFDS directories
# What tfds reads without more packages.
_TFDS_FORMATS = ("JPEG", "PNG")
# Of formats whose files do not end as Pillow calls them.
_ENDINGS = {"JPEG2000": ".jp2"}
_MOST_NAMED = 10


@dataclasses.dataclass(frozen=True)
class Example:
    """A labelled image to be written.

    Attributes:
        name: of its file, without an ending; no two of a split have one.
        image: encoded.
        ending: of its file, such as ".png".
        label: the number of its class.
    """

    name: str
    image: bytes
    ending: str
    label: int


Splits = Mapping[str, Iterable[Example]]


def stored_images(split: Split, indices: np.ndarray) -> list[tuple[bytes, str]]:
    """Returns the images of a split as they are stored, each with an ending that is read; pixels as PNG.

    A file keeps its own ending where images have such; one without, as tables may list, gets that of its
    format. An image of a format that has none becomes PNG.
    """
    if not isinstance(split, LazySplit):
        return [(images.to_png(pixels), ".png") for pixels in split.gather(indices)]
    found: list[tuple[bytes, str]] = []
    known = listing.image_endings()
    for index, encoded in zip(indices, split.encoded(indices), strict=True):
        own = Path(split.file(int(index))).suffix
        name = f"image {index} of {split.name}"
        ending = own if own.lower() in known else _ending(images.format_of(encoded, name))
        if ending.lower() in known:
            found.append((encoded, ending))
        else:
            found.append((images.to_png(images.decode(encoded, name)), ".png"))
    return found


def _ending(kind: str) -> str:
    return _ENDINGS.get(kind, f".{kind.lower()}")


def check_folder_names(class_names: Sequence[str], present: np.ndarray) -> None:
    """Checks that a folder of class folders can say what the classes are.

    Args:
        class_names: one name per class.
        present: whether each has training images: bool [K].

    Raises:
        InputError: naming classes whose names cannot be those of folders, or that have no training images, or
            classes that are not in the order of their names.
    """
    bad = [name for name in class_names if not _is_folder_name(name)]
    empty = [name for name, has in zip(class_names, present, strict=True) if not has]
    problems = [
        f"{what}: {', '.join(map(repr, names[:_MOST_NAMED]))}"
        + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")
        for what, names in (("no names of folders", bad), ("no training images of", empty))
        if names
    ]
    # `folder:PATH` numbers classes by the order of their names, in Unicode's composed form.
    composed = [unicodedata.normalize("NFC", name) for name in class_names]
    for place, name in enumerate(composed):
        number = sorted(composed).index(name)
        if number != place:
            problems.append(f"{name!r} is class {place}, and would be {number}")
            break
    if problems:
        raise InputError(
            f"a folder of class folders cannot hold these classes; {'; '.join(problems)}; expected "
            "--store_as=tfds, which keeps names and numbers as they are"
        )


def _is_folder_name(name: str) -> bool:
    return bool(name) and not listing.is_system_folder(name) and not set(name) & set('/\\\0:*?"<>|')


def write_folder(folder: Path, class_names: Sequence[str], splits: Splits) -> dict[str, int]:
    """Writes `FOLDER/SPLIT/CLASS/NAME.ENDING`; returns how many images each split has.

    Args:
        folder: made where it does not exist.
        class_names: one name per class; see `check_folder_names`.
        splits: read once, in order.
    """
    counts = {}
    for split, examples in splits.items():
        counts[split] = 0
        for example in examples:
            place = folder / split / class_names[example.label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{example.name}{example.ending}").write_bytes(example.image)
            counts[split] += 1
    return counts


def write_tfds(
    data_dir: Path, dataset: str, class_names: Sequence[str], splits: Splits, description: str
) -> dict[str, int]:
    """Writes `DATA_DIR/DATASET/1.0.0`; returns how many images each split has.

    Images of other formats than JPEG and PNG become PNG.

    Args:
        data_dir: made where it does not exist.
        dataset: the name that `tfds:NAME` finds it by.
        class_names: one name per class; see `tfds_writer.check_class_names`.
        splits: read once.
        description: of the data set.
    """
    import tensorflow_datasets as tfds

    counts = dict.fromkeys(splits, 0)

    def rows(split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for example in splits[split]:
            yield (
                counts[split],
                {"id": example.name, "image": _for_tfds(example), "label": example.label},
            )
            counts[split] += 1

    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=list(class_names)),
    }
    tfds_writer.write(
        data_dir,
        dataset,
        VERSION,
        features,
        {split: rows(split) for split in splits},
        description=description,
        supervised_keys=("image", "label"),
    )
    return counts


def _for_tfds(example: Example) -> bytes:
    if images.format_of(example.image, example.name) in _TFDS_FORMATS:
        return example.image
    return images.to_png(images.decode(example.image, example.name))
