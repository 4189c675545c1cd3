"""A figure in a notebook, with words for those who cannot see it."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

from matplotlib.figure import Figure


class Picture:
    """A figure as a notebook or page shows it: an ``<img>`` with alternative text.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    alt : str
        What is to be seen in it, for those who cannot see it.
    caption : str
        Shown below; empty for none.
    dpi : int > 0
        Dots per inch.

    Raises
    ------
    ValueError
        If `alt` is empty.
    """

    def __init__(self, figure: Figure, alt: str, *, caption: str = "", dpi: int = 110) -> None:
        if not alt.strip():
            raise ValueError("A figure needs alt text: say in a sentence what it shows.")
        self.figure, self.alt, self.caption, self.dpi = figure, alt, caption, dpi
        self._png: bytes | None = None

    @property
    def png(self) -> bytes:
        """The figure as a PNG file with a palette, a third of the size of one in full colour."""
        if self._png is None:
            from PIL import Image

            file = io.BytesIO()
            self.figure.savefig(file, format="png", dpi=self.dpi)
            file.seek(0)
            self._png = small_png(Image.open(file).convert("RGB"))
        return self._png

    def _repr_html_(self) -> str:
        image = image_tag(self.png, self.alt)
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return f"<figure>{image}{caption}</figure>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {
            "text/plain": self.alt,
            "text/html": self._repr_html_(),
            "image/png": base64.b64encode(self.png).decode(),
        }


def picture(figure: Figure, *, alt: str, caption: str = "", dpi: int = 110) -> Picture:
    """Show a figure in a notebook with alternative text; see `Picture`."""
    return Picture(figure, alt, caption=caption, dpi=dpi)


def small_png(image: Any, *, colours: int = 192) -> bytes:
    """A `PIL.Image` in RGB as a PNG file with a palette of its own."""
    file = io.BytesIO()
    image.quantize(colours, method=0, dither=0).save(file, format="png", optimize=True)
    return file.getvalue()


def image_tag(image: bytes, alt: str, *, width: str = "auto", kind: str = "png") -> str:
    """An ``<img>`` that holds its picture and its alternative text; `width` is CSS."""
    data = base64.b64encode(image).decode()
    return (
        f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(alt, quote=True)}" '
        f'style="width: {width}; max-width: 100%; height: auto;">'
    )
