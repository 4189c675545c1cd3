"""Draw the logo and the favicon: the response of a filter, a Gabor burst, as bars of sound."""

from __future__ import annotations

import math
import sys
from pathlib import Path

STATIC = Path(__file__).parents[1] / "book" / "_static"

#: From the colour-blind-safe palette of Okabe and Ito: blue through sky blue to orange.
BLUE, SKY, ORANGE = (0, 114, 178), (86, 180, 233), (230, 159, 0)


def mix(a: tuple[int, ...], b: tuple[int, ...], share: float) -> str:
    """The colour between `a` (share 0) and `b` (share 1), as hexadecimal."""
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in zip(a, b, strict=True))


def bars(count: int, *, size: float = 64.0, thickness: float = 0.62) -> str:
    """An SVG drawing of a Gabor burst as rounded bars.

    Parameters
    ----------
    count : int > 1
        Number of bars.
    size : float > 0, in px
        Side of the square.
    thickness : float in (0, 1)
        Share of its slot that a bar fills.

    Returns
    -------
    str
    """
    slot = size / count
    width = slot * thickness
    shapes = []
    for index in range(count):
        place = (index + 0.5) / count * 2 - 1
        burst = math.exp(-3.2 * place**2) * (0.55 + 0.45 * math.cos(2.2 * math.pi * place))
        height = max(size * 0.96 * burst, width)
        share = (place + 1) / 2
        colour = mix(BLUE, SKY, share * 2) if share < 0.5 else mix(SKY, ORANGE, share * 2 - 1)
        shapes.append(
            f'<rect x="{index * slot + (slot - width) / 2:.2f}" y="{(size - height) / 2:.2f}" '
            f'width="{width:.2f}" height="{height:.2f}" rx="{width / 2:.2f}" fill="{colour}"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size:g} {size:g}" role="img" '
        'aria-label="sonibook">\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def drawings() -> dict[str, str]:
    """The files of this folder that are drawn here, by name."""
    return {"logo.svg": bars(11), "favicon.svg": bars(7, thickness=0.7)}


def main() -> int:
    """Write the drawings."""
    for name, drawing in drawings().items():
        (STATIC / name).write_text(drawing, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
