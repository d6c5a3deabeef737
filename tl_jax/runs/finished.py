"""A finished run, as notebooks and scripts see it: its result, its network, predictions on new images."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from tl_jax import console, data
from tl_jax.augment.preprocessing import Preprocessing, make_eval_transform
from tl_jax.config import completed
from tl_jax.data import Split, archive, file_records, listing, skipping
from tl_jax.data.broken import BrokenImages
from tl_jax.data.records import LazySplit
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.runs import results, run_folder, weights
from tl_jax.runs.network import make_eval_forward
from tl_jax.runs.numerics import make_compilation
from tl_jax.runs.parts import NOTHING_GIVEN, Parts
from tl_jax.runs.setup import make_model
from tl_jax.training.evaluator import Evaluator


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        workdir: its folder.
        config: what it was asked for.
        result: `result.json`: `splits`, `selection`, `wall_seconds` and more.
        class_names: K of them, in the order of the network's outputs.
        preprocessing: of the pixels, as the network was trained with.
        parts: objects that the run was given instead of by name.
    """

    workdir: pathlib.Path
    config: ml_collections.ConfigDict
    result: dict[str, Any]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    parts: Parts = NOTHING_GIVEN

    @functools.cached_property
    def model(self) -> Any:
        """The Linen module."""
        return make_model(self.config, len(self.class_names), self.parts)

    @functools.cached_property
    def variables(self) -> dict[str, Any]:
        """{"params", "batch_stats"} that the result is about, nested dicts of float32 arrays."""
        config = self.config.copy_and_resolve_references()
        weights.start_from(config, self.workdir)
        size = self.preprocessing.image_size
        return weights.make_initial(config, self.model, self.class_names, size).variables

    def predict(self, images: np.ndarray | Sequence[str | os.PathLike[str]]) -> np.ndarray:
        """Returns the probabilities of the classes, float32 [N, K], in batches that fit the device.

        Args:
            images: uint8 [N, H, W, 3] (grey ones [N, H, W] or [N, H, W, 1]), or paths of image files of
                any size, in any format that Pillow reads.

        Raises:
            InputError: if there are none, or listing the files that cannot be read.
        """
        try:
            return self._predict(self._split(images))
        except BrokenImages as error:
            raise BrokenImages(error.problems, leave_out="") from error

    def _predict(self, split: Split) -> np.ndarray:
        if isinstance(split, LazySplit):
            split = split.resized()  # each by itself: a prediction depends on no other image
        variables = self._replicated
        _, logits = self._evaluator(variables["params"], variables["batch_stats"], split)
        return np.asarray(jax.nn.softmax(logits, axis=-1), np.float32)

    def _split(self, images: np.ndarray | Sequence[str | os.PathLike[str]]) -> Split:
        if images is None or isinstance(images, str | os.PathLike):
            raise InputError(f"predict: {images!r} is given; expected an array, or a list of paths")
        if not len(images):
            raise InputError("predict: no images; expected one at least")
        if isinstance(images, np.ndarray):
            if images.ndim == 3 and images.shape[-1] in (3, 4):
                raise InputError(
                    f"predict: an array of shape {images.shape} is one image; expected [N, H, W, 3]: images[None]"
                )
            labels = np.zeros(len(images), np.int32)
            return data.InMemorySplit(images, labels, self.class_names, "images")
        paths = [str(pathlib.Path(path).expanduser()) for path in images]
        missing = [path for path in paths if not os.path.isfile(path)]
        if missing:
            more = f" and {len(missing) - 5} more" if missing[5:] else ""
            raise InputError(f"no such file: {', '.join(missing[:5])}{more}")
        return self._files(paths)

    def _files(self, paths: Sequence[str]) -> LazySplit:
        side = self.preprocessing.resize or self.preprocessing.image_size
        return file_records.unlabelled(
            paths, side, self.preprocessing.interpolation, self.class_names
        )

    @functools.cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        return sharding.make_mesh(self.config.parallel.devices)

    @functools.cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(
            make_eval_forward(self.config, self.model),
            make_eval_transform(self.preprocessing),
            self._mesh,
            self.config.data.eval_batch_size,
            compilation=make_compilation(self.config, self._mesh),
        )

    @functools.cached_property
    def _replicated(self) -> dict[str, Any]:
        return sharding.replicate(self._mesh, self.variables)


def load_run(workdir: str | os.PathLike[str], *, model: Any | None = None) -> Run:
    """Returns a finished run from its folder; weights are read when first used.

    Args:
        workdir: the folder.
        model: the network, where the run was given one; see `tl_jax.finetune`. Its result can be read without.

    Raises:
        InputError: if there is no such folder, or it holds no finished run, or a network is given that the
            run was not made with.
    """
    path = pathlib.Path(workdir).expanduser()
    names = ("config.json", "preprocessing.json", "result.json", weights.EXPORTED)
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise InputError(
            f"{path}: no {' and no '.join(missing)} there; expected the folder of a finished run (an "
            "evaluation has no weights: give the run that was evaluated)"
        )
    config, preprocessing, result = (run_folder.read_json(path / name) for name in names[:3])
    parts, config = Parts(model=model), completed(config)
    if model is not None and parts.model_name != config.model.name:
        raise InputError(
            f"model={parts.model_name}: {path} was made with model.name={config.model.name}"
        )
    return Run(
        path,
        config,
        result,
        tuple(results.class_names_of(path)),
        weights.read_preprocessing(preprocessing),
        parts,
    )


def predict_files(
    run: Run, paths: Sequence[str | os.PathLike[str]], top: int = 5, unreadable: str = "stop"
) -> list[dict[str, Any]]:
    """Returns a row for each image: its file, and `class1`, `probability1`, ... of the most probable classes.

    Args:
        run: whose network looks at them.
        paths: image files, and folders, whose images are taken with those of folders inside.
        top: classes named for each image, at most; from 1.
        unreadable: "stop" at images that cannot be read, or "skip" them: they have no row, and are listed on
            standard error. All images are decoded once more to find them.

    Raises:
        InputError: if a path does not exist or is an archive, a folder has no images, or listing the files that
            cannot be read.
    """
    if top < 1:
        raise InputError(f"top={top}: expected an integer from 1")
    skipping.check(unreadable)
    _refuse_archives(run, paths)
    files = listing.files_of(paths)
    if unreadable == "skip":
        files = _readable(run, files)
    try:
        probabilities = run._predict(run._files(files))
    except BrokenImages as error:
        raise BrokenImages(error.problems, leave_out="--unreadable=skip") from error
    rows = []
    for file, row in zip(files, probabilities, strict=True):
        order = np.argsort(-row, kind="stable")[:top]
        found: dict[str, Any] = {"file": file}
        for place, index in enumerate(order, 1):
            found[f"class{place}"] = run.class_names[index]
            found[f"probability{place}"] = round(float(row[index]), 6)
        rows.append(found)
    return rows


def _refuse_archives(run: Run, paths: Sequence[str | os.PathLike[str]]) -> None:
    for path in paths:
        packed = archive.find(pathlib.Path(path).expanduser())
        if packed:
            raise InputError(
                f"{path}: images in an archive are not predicted; unpack {packed[0]} and give the folder, or, "
                f"where its images are in folders of classes, evaluate: python -m experiments.evaluate "
                f"--checkpoint={run.workdir} --config.data.name=folder:{path} --workdir=DIR"
            )


def _readable(run: Run, files: list[str]) -> list[str]:
    """Returns the files that can be read, and lists the others on standard error."""
    problems = run._files(files).undecodable()
    if len(problems) == len(files):
        raise BrokenImages(problems.values(), leave_out="")
    if problems:
        console.note(
            "\n  ".join([f"{console.count(len(problems), 'image')} left out:", *problems.values()])
        )
    return [file for place, file in enumerate(files) if place not in problems]
