"""HTML pages that open from disk: templates, style and pictures in one file."""

import base64
import functools
import io
import json
import math
import os
import pathlib
from typing import Any

import jinja2
import numpy as np
import PIL.Image

from tl_jax.reporting.tables import columns, format_value, label

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


def to_json(value: Any) -> str:
    """Returns a value as indented JSON; not finite numbers become strings, as in metrics.jsonl."""
    return json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a whole file or, when interrupted, none of it."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a whole file or, when interrupted, none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_bytes(data)
    partial.replace(path)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=format_value, columns=columns, label=label, png_uri=png_uri)
    environment.tests["finite"] = lambda value: value is not None and math.isfinite(value)
    return environment
