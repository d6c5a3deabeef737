"""HTML pages that open from disk: templates, style and pictures in one file."""

import base64
import functools
import io
import math
import os
import pathlib
import urllib.parse
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import PIL.Image

from tl_jax.reporting.run_files import REPORT_FILE
from tl_jax.reporting.tables import columns, format_value, is_numeric, label

_TEMPLATES = pathlib.Path(__file__).parent / "templates"
# Pictures of examples are not embedded larger than this, in pixels.
_LARGEST_SIDE = 160


def render(template: str, **context: Any) -> str:
    """Returns the page made from `templates/<template>`; every value is escaped."""
    return _environment().get_template(template).render(**context)


def png_uri(png: bytes) -> str:
    """Returns a PNG as a `data:` URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def image_png(image: np.ndarray) -> bytes:
    """Returns a picture, uint8 [H, W, C] with C of 1 or 3, as a PNG; large ones are shrunk."""
    pixels = np.asarray(image, np.uint8)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    picture = PIL.Image.fromarray(pixels)
    if max(picture.size) > _LARGEST_SIDE:
        picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def strip_uri(images: Sequence[np.ndarray]) -> str:
    """Returns pictures of one height, uint8 [H, W, 3] each, side by side as a JPEG in a `data:` URI."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.concatenate(images, axis=1)).save(file, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def report_link(folder: pathlib.Path, run: str | os.PathLike[str]) -> str | None:
    """Returns the URL of a run's report, relative to the folder of a page; None if there is no such file.

    Args:
        folder: of the page.
        run: the folder of the run, relative to that of the page or to the working directory.
    """
    for path in (folder / run, pathlib.Path(run)):
        if (path / REPORT_FILE).is_file():
            relative = os.path.relpath((path / REPORT_FILE).resolve(), folder.resolve())
            return urllib.parse.quote(pathlib.Path(relative).as_posix())
    return None


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        cell=format_value, columns=columns, label=label, numeric=is_numeric, png_uri=png_uri
    )
    environment.tests["finite"] = lambda value: value is not None and math.isfinite(value)
    return environment
