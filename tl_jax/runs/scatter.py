"""Where images lie by their features, in the plane: PCA and LDA, for the pages of a run."""

import io
from typing import Any

import numpy as np

from tl_jax import files
from tl_jax.data.selection import at_most
from tl_jax.features.saving import Features
from tl_jax.reporting import SCATTER_FILE
from tl_jax.runs.image_features import of_split
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup
from tl_jax.training.projection import project

# Which examples are drawn, of more than were asked for.
_SEED = 0
# Training examples on which axes are found, at least, however few are drawn.
_FIT_PER_CLASS = 20


def save(folder: RunFolder, train: Features, test: Features, most: int) -> None:
    """Finds the axes on training examples and writes where test examples lie to `scatter.npz`.

    Args:
        folder: of the run.
        train: of which `most`, or 20 of each class, are taken at most.
        test: of which `most` are drawn at most.
        most: from 1.
    """
    # matplotlib takes half a second to import.
    from tl_jax.reporting.scatter import arrays_of

    content = io.BytesIO()
    fitted = train.at(
        at_most(train.labels, max(most, _FIT_PER_CLASS * len(train.class_names)), _SEED)
    )
    drawn = test.at(at_most(test.labels, most, _SEED))
    projections = project(fitted.features, fitted.labels, drawn.features)
    arrays = arrays_of(projections, drawn.labels, drawn.class_names, len(fitted))
    np.savez(content, **arrays)  # type: ignore[arg-type]
    if folder.is_primary:
        files.write(folder.path / SCATTER_FILE, content.getvalue())


def save_of_state(folder: RunFolder, setup: Setup, params: Any, batch_stats: Any) -> None:
    """Writes `scatter.npz` of a trained network: features after its last boundary before the head.

    Args:
        folder: of the run.
        setup: whose splits are looked at, `report.scatter` images of train and of test at most.
        params: of the network.
        batch_stats: of the network.
    """
    most, names = setup.config.report.scatter, setup.splits["test"].class_names
    parts = []
    for name, least in (("train", _FIT_PER_CLASS * len(names)), ("test", 1)):
        split = setup.inputs[name]
        places = at_most(split.labels, max(most, least), _SEED)
        chosen = split.subset(places)
        found = of_split(setup, params, batch_stats, chosen)
        parts.append(Features(found, chosen.labels, places, names))
    train, test = parts
    save(folder, train, test, most)
