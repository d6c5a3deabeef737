"""The page that shows what augmentation makes of images, and its sheets as pictures."""

import dataclasses
import pathlib
from typing import Any

import matplotlib
import matplotlib.figure
import numpy as np

from tl_jax import files
from tl_jax.reporting import pages, plots

PAGE = "augmentation.html"
# Of a cell of a sheet, in pixels of the picture: about so many, a whole number for each pixel of a small image.
_CELL, _GAP = 96, 6
_PIXELS_PER_INCH = 160  # of `plots.to_png`
_LABEL_INCHES = 1.7
_HEADING_INCHES = 0.45
_LINE_INCHES = 0.1
_LONGEST_LINE = 16


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture with what stands below it: uint8 [S, S, 3]."""

    image: np.ndarray
    caption: str


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table of pictures.

    Attributes:
        title: of the table.
        file: the name of its picture.
        note: below the title.
        columns: one title for each.
        rows: of pictures, as many as there are columns.
        names: of the rows; "" for none.
    """

    title: str
    file: str
    note: str
    columns: list[str]
    rows: list[list[Picture]]
    names: list[str]


def write_preview(folder: pathlib.Path, title: str, sheets: list[Sheet]) -> pathlib.Path:
    """Writes the page, which holds all that it shows, and a PNG of every sheet with rows; returns the page."""
    for sheet in sheets:
        if sheet.rows:
            files.write(folder / sheet.file, plots.to_png(sheet_figure(sheet)))
    tables = [
        {
            "sheet": sheet,
            "rows": [
                {
                    "name": name,
                    "pictures": [
                        {"src": pages.png_uri(pages.image_png(one.image)), "caption": one.caption}
                        for one in row
                    ],
                }
                for name, row in zip(sheet.names, sheet.rows, strict=True)
            ],
        }
        for sheet in sheets
    ]
    files.write(folder / PAGE, pages.render("preview.html", title=title, tables=tables))
    return folder / PAGE


def sheet_figure(sheet: Sheet) -> matplotlib.figure.Figure:
    """Draws a sheet with one row at least: its pictures side by side, titles above, names to the left."""
    cells = [[_enlarged(one.image) for one in row] for row in sheet.rows]
    side = cells[0][0].shape[0]
    lines = max(len(one.caption.splitlines()) for row in sheet.rows for one in row)
    below = round(lines * _LINE_INCHES * _PIXELS_PER_INCH)
    step_x, step_y = side + _GAP, side + _GAP + below
    width, height = step_x * len(sheet.columns), step_y * len(cells)
    canvas = np.full((height, width, 3), 255, np.uint8)
    for row, pictures in enumerate(cells):
        for column, picture in enumerate(pictures):
            top, left = row * step_y, column * step_x
            canvas[top : top + side, left : left + side] = picture
    label = _LABEL_INCHES if any(sheet.names) else 0.1
    inches = (
        label + width / _PIXELS_PER_INCH,
        _HEADING_INCHES + height / _PIXELS_PER_INCH,
    )
    figure = matplotlib.figure.Figure(figsize=inches)
    figure.figimage(canvas, round(label * _PIXELS_PER_INCH), 0, origin="upper")

    def place(x: float, y: float) -> tuple[float, float]:
        """Returns where a pixel of the canvas is in the figure."""
        return (
            (label + x / _PIXELS_PER_INCH) / inches[0],
            (height - y) / _PIXELS_PER_INCH / inches[1],
        )

    def write(x: float, y: float, text: str, size: float, **more: Any) -> None:
        figure.text(*place(x, y), text, size=size, color=plots.INK, parse_math=False, **more)

    write(0, -42, sheet.title, 8, weight="bold", va="bottom")
    for column, name in enumerate(sheet.columns):
        write(column * step_x + side / 2, -8, name, 6.5, ha="center", va="bottom")
    for row, name in enumerate(sheet.names):
        write(-8, row * step_y + side / 2, name, 6.5, ha="right", va="center")
        for column, one in enumerate(sheet.rows[row]):
            middle, bottom = column * step_x + side / 2, row * step_y + side + 3
            write(middle, bottom, _shortened(one.caption), 5, ha="center", va="top")
    return figure


def _shortened(caption: str) -> str:
    """Returns a caption whose lines fit below a picture."""
    lines = caption.splitlines()
    return "\n".join(
        line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…" for line in lines
    )


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Returns a picture of about `_CELL` pixels: every pixel repeated, or a large image as it is."""
    times = max(1, round(_CELL / image.shape[0]))
    return np.repeat(np.repeat(image, times, axis=0), times, axis=1)
