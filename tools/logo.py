"""Draw the logo, the favicon and the cover: the response of a filter, a Gabor burst, as bars of
sound; on the cover, the mixture it was heard in, and the network between the two.
"""

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
    """An SVG drawing, `size` px wide, of a Gabor burst as `count` rounded bars.

    `thickness` is the share of its slot that a bar fills.
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


def burst(place: float, centre: float, width: float, cycles: float) -> float:
    """The height of a Gabor burst, from 0 to 1, at a place along the sound."""
    z = (place - centre) / width
    return math.exp(-(z**2)) * (0.55 + 0.45 * math.cos(2 * math.pi * cycles * z))


def sound_bars(heights: list[float], colours: list[str], left: float, width: float) -> str:
    """Heights from 0 to 1 as bars about the cover's middle line."""
    slot = width / len(heights)
    parts = []
    for index, (height, colour) in enumerate(zip(heights, colours, strict=True)):
        tall = max(150 * height, slot * 0.55)
        parts.append(
            f'<rect x="{left + index * slot:.1f}" y="{100 - tall / 2:.1f}" '
            f'width="{slot * 0.6:.1f}" height="{tall:.1f}" rx="{slot * 0.3:.1f}" fill="{colour}"/>'
        )
    return "\n".join(parts)


def cover() -> str:
    """An SVG drawing, 900 by 200: a mixture, the layers of a network, and what one filter kept."""
    places = [(index + 0.5) / 34 for index in range(34)]
    kept = [burst(place, 0.62, 0.17, 1.1) for place in places]
    rain = [0.28 + 0.2 * abs(math.sin(51 * place) * math.cos(23 * place)) for place in places]
    mixture = [min(max(a, b), 1.0) for a, b in zip(kept, rain, strict=True)]
    low, high = mix(BLUE, SKY, 0.0), mix(BLUE, SKY, 0.75)
    blues = [high if a < b else low for a, b in zip(kept, rain, strict=True)]
    oranges = [mix(SKY, ORANGE, min(1.6 * height + 0.25, 1.0)) for height in kept]
    dots = []
    for layer, (count, radius) in enumerate([(9, 4.0), (7, 5.0), (5, 6.0), (3, 7.5)]):
        x = 362 + layer * 58
        for row in range(count):
            y = 100 + (row - (count - 1) / 2) * 140 / max(count, 4)
            chosen = row == (count - 1) // 2
            colour = mix(ORANGE, ORANGE, 0) if chosen else mix(BLUE, SKY, 0.35 + 0.15 * layer)
            opacity = "" if chosen else ' fill-opacity="0.45"'
            dots.append(f'<circle cx="{x}" cy="{y:.1f}" r="{radius}" fill="{colour}"{opacity}/>')
    parts = [sound_bars(mixture, blues, 8, 306), *dots, sound_bars(kept, oranges, 588, 306)]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 200" role="img" '
        'aria-label="A sound goes through the layers of a network; one filter keeps one burst of '
        'it.">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def drawings() -> dict[str, str]:
    """The files of this folder that are drawn here, by name."""
    return {"logo.svg": bars(11), "favicon.svg": bars(7, thickness=0.7), "cover.svg": cover()}


def main() -> int:
    """Write the drawings."""
    for name, drawing in drawings().items():
        (STATIC / name).write_text(drawing, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
