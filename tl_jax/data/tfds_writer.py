"""Writes a TFDS directory without TensorFlow: a builder whose examples hold encoded images.

The stock encoder of images needs TensorFlow; bytes of a PNG or JPEG are stored as they are.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Examples = Iterable[tuple[int, dict[str, Any]]]


def write(
    dataset: str,
    version: str,
    data_dir: Path,
    features: Mapping[str, Any],
    splits: Mapping[str, Examples],
    *,
    description: str,
    homepage: str = "",
) -> None:
    """Writes `DATA_DIR/DATASET/VERSION`, as array_record.

    Args:
        dataset: the name that `tfds:NAME` finds it by.
        version: three numbers, such as "1.0.0".
        data_dir: made where it does not exist.
        features: {key: feature of tfds}, an `image` and a `label` among them.
        splits: {name: (number, example) of each}, read once; the number decides the place of the record.
        description: of the data set.
        homepage: of its publisher.
    """
    import tensorflow_datasets as tfds

    def info(builder: Any) -> Any:
        return tfds.core.DatasetInfo(
            builder=builder,
            description=description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=homepage or None,
        )

    body = {
        "VERSION": tfds.core.Version(version),
        "_info": info,
        "_split_generators": lambda _, __: {name: iter(rows) for name, rows in splits.items()},
        "_generate_examples": None,
        "__module__": __name__,
        "__doc__": description,
    }
    # Registered, it would clash with a stock builder of the same name.
    with tfds.core.registered.skip_registration():
        builder_class = type(dataset.capitalize(), (tfds.core.GeneratorBasedBuilder,), body)
    builder = builder_class(data_dir=data_dir, file_format="array_record")
    tfds.disable_progress_bar()
    try:
        # It prints that it downloads, and the name of the scratch folder; and makes folders for downloads.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            tempfile.TemporaryDirectory() as downloads,
        ):
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    finally:
        tfds.enable_progress_bar()
