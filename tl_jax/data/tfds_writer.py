"""Writes a standard TFDS directory of array_record files, without TensorFlow.

The builders of tfds encode images, and open some files, through TensorFlow; one that yields encoded bytes and
numbers does not. The rule of what needs TensorFlow: tfds 4.9.10, `core/features`.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_jax.errors import InputError


def check_class_names(class_names: Sequence[str], what: str, instead: str) -> None:
    """Checks that a TFDS directory can hold the names: a line of text for each, without spaces around it.

    Args:
        class_names: one per class.
        what: asks for a TFDS directory, such as "--store_as=tfds".
        instead: what a user can choose.

    Raises:
        InputError: naming the first that would be read back as another.
    """
    for place, name in enumerate(class_names):
        if name != name.strip() or len(name.splitlines()) != 1:
            raise InputError(
                f"{what}: the class {json.dumps(name)} is no line of text without spaces around it; "
                f"expected {instead}"
            )
        if name in class_names[:place]:
            raise InputError(f"{what}: two classes are called {name!r}; expected {instead}")


def write(
    folder: Path,
    name: str,
    version: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Iterator[tuple[int, dict[str, Any]]]],
    **info: Any,
) -> Path:
    """Writes `FOLDER/NAME/VERSION` and returns it; the folder appears when it is whole.

    Args:
        folder: of prepared data sets.
        name: of the data set, letters, digits and underscores.
        version: such as "1.0.0".
        features: of an example, connectors of `tfds.features` by their names.
        splits: {split: pairs of a key and an example}, read one after the other. The key decides the order of the
            records: that of the keys with `disable_shuffling=True`, else that of tfds's hash of them.
        **info: more arguments of `tfds.core.DatasetInfo`, such as `description`.
    """
    import tensorflow_datasets as tfds

    def make_info(builder: Any) -> Any:
        connectors = tfds.features.FeaturesDict(dict(features))
        return tfds.core.DatasetInfo(builder=builder, features=connectors, **info)

    body = {
        "VERSION": tfds.core.Version(version),
        "_info": make_info,
        "_split_generators": lambda *_: dict(splits),
        "_generate_examples": lambda *_: iter(()),  # abstract; the splits are generators already
        "__module__": __name__,
        "__doc__": info.get("description", name),
    }
    # Registered, it would clash with a stock builder of the same name.
    with tfds.core.registered.skip_registration():
        builder_class = type(_class_name(name), (tfds.core.GeneratorBasedBuilder,), body)
    builder = builder_class(data_dir=folder, file_format="array_record")
    tfds.disable_progress_bar()
    try:
        # It prints that it downloads, and the name of a scratch folder.
        with (
            tempfile.TemporaryDirectory() as nothing,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            builder.download_and_prepare(
                download_dir=nothing,
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    finally:
        tfds.enable_progress_bar()
    return folder / name / version


def _class_name(name: str) -> str:
    """Returns the class whose data set tfds calls `name`: "Cifar10" for "cifar10"."""
    return "".join(part.capitalize() for part in name.split("_"))
