"""What moves on a page: the network drawn as layers above each other, with a sound on its way up
and back; the temperature of NT-Xent on a slider; coherence as walks, step by step.

The browser draws numbers of the library (`sonibook.widgets.stages`). Without a script, and on
paper, a picture and players stand in its place.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from sonibook.audio import SAMPLE_RATE
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import StackError
from sonibook.model.stack import check_filters, check_layer
from sonibook.plots.sound import Sound, coherence_walk, coherence_walks, describe
from sonibook.plots.style import Picture, drawing
from sonibook.plots.training import Similarity, temperature_picture, temperature_words
from sonibook.widgets.players import Player, joined, player, script, text_of
from sonibook.widgets.stages import Drawn, WayBack

_UP = LinearSegmentedColormap.from_list("up", ["#0b1016", "#0a4a78", "#56B4E9", "#f4fbff"])
_BACK = LinearSegmentedColormap.from_list("back", ["#0b1016", "#8a3d00", "#F08A24", "#fff4e0"])


class Animation:
    """What moves on a page, such as a drawing of a network; make it with `backward_animation`.

    `data` is what the script of its kind draws, ready for JSON, `still` HTML that says the same
    without a script, and `player` has the sounds of its stages, if any.
    """

    def __init__(
        self, kind: str, data: dict[str, Any], still: str, player: Player | None = None
    ) -> None:
        self.kind, self.data, self.still, self.player = kind, data, still, player

    def __repr__(self) -> str:
        return type(self).__name__

    def _repr_html_(self) -> str:
        heard = plays = ""
        if self.player is not None:
            heard = self.player.element.replace("<sonibook-player", "<sonibook-player compact", 1)
            plays = f"<script>{script()}</script>"
        data = json.dumps(self.data, separators=(",", ":")).replace("</", r"<\/")
        modules = ["layers.js", "closeup.js"] if self.kind == "animation" else ["layers.js"]
        return (
            f"{plays}<style>{text_of('animation.css')}</style>"
            f'<sonibook-{self.kind} class="layered"><div class="still">{self.still}</div>{heard}'
            f'<script type="application/json">{data}</script></sonibook-{self.kind}>'
            f"<script>{joined([*modules, f'{self.kind}.js'])}</script>"
        )


def backward_animation(
    passed: ForwardPass,
    *,
    layer: int,
    filter: int | None = None,
    other: ForwardPass | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> Animation:
    """Sonification as an animation: up the network, one filter kept, and back down by the switches.

    It plays, pauses and steps, by hand or keyboard. Each stage of the backward pass that can be
    heard has a loudspeaker, and the switches can be exchanged.

    Parameters
    ----------
    passed : ForwardPass
        Of one mono clip, through a stack of plain conv-relu-[pool] blocks.
    layer : int
        Layer to sonify, counted from 1.
    filter : int or None
        Which of its filters, counted from 0; None for the one with the most energy.
    other : ForwardPass or None
        Of another clip of the same length, whose switches can be tried; None for none.
    sample_rate : int > 0, in Hz

    Raises
    ------
    LayerError
        If there is no such layer or filter.
    StackError
        If a block up to `layer` is not a plain convolution, ReLU and at most a max-pool.
    ValueError
        If `passed` holds several clips, or `other` a clip of another length.
    """
    check_layer(passed.blocks, layer)
    chosen = passed.most_active(layer)[0] if filter is None else filter
    check_filters(passed.blocks, layer, [chosen])
    _check(passed, layer, other)
    switches: dict[str, list[Tensor | None]] = {
        "its own": passed.switches,
        "the first of each pool": [
            None if kept is None else torch.zeros_like(kept) for kept in passed.switches
        ],
    }
    if other is not None:
        switches["another clip's"] = other.switches
    ways = {name: WayBack(passed, layer, chosen, kept) for name, kept in switches.items()}
    drawn = Drawn(passed, ways["its own"], sample_rate)
    tracks = {"Input": passed.x[0, 0, : passed.samples]}
    tracks |= {f"Switches: {name}": way.sound for name, way in ways.items()}
    what = f"filter {chosen} of layer {layer}"
    data = drawn.data | {
        "label": f"The sonification of {what}, step by step",
        "intro": f"A sound goes up through {len(passed.blocks)} layers. {what.capitalize()} is "
        "kept, and goes back down until it is sound again. Watch it.",
        "layer": layer,
        "row": drawn.layers[layer - 1]["shown"].index(chosen),
        "ways": [drawn.way(name, way) for name, way in ways.items()],
        "acts": [
            dict(zip(("act", "layer", "text"), act, strict=True))
            for act in _acts(passed, layer, chosen, sample_rate)
        ],
        "near": [drawn.near_up(number) for number in range(1, len(passed.blocks) + 1)],
    }
    x, s = (describe(one, sample_rate=sample_rate) for one in list(tracks.values())[:2])
    alt = (
        f"Left, from the bottom up: the clip's spectrogram and the feature maps of layers 1 to "
        f"{len(passed.blocks)}. Right, from the top down: {what} alone, what it becomes in each "
        f"layer below, and the spectrogram of the sonification. Input: {x}. Sonification: {s}."
    )
    heard = player(tracks, label="Listen", sample_rate=sample_rate, columns=2)
    return Animation("animation", data, _still(data, alt), heard)


def encoder_diagram(
    passed: ForwardPass, *, layer: int = 1, sample_rate: int = SAMPLE_RATE
) -> Animation:
    """A network as a diagram whose blocks can be chosen, above a clip's spectrogram.

    A block tells its kernel, channels and pool, the stride of its steps, what one of them hears
    (its receptive field) and how fast a map can change. Pointing at a map, or the arrow keys, mark
    what a step hears in all layers below. The block of `layer`, counted from 1, is chosen at first;
    all else is as for `backward_animation`.
    """
    check_layer(passed.blocks, layer)
    _check(passed, 0, None)
    label = "The encoder, block by block"
    data = Drawn(passed, None, sample_rate).data | {"label": label, "layer": layer}
    fields = ", ".join(f"{1000 * one['field'] / sample_rate:.3g}" for one in data["layers"])
    alt = (
        f"The clip's spectrogram, and above it the feature maps of layers 1 to {len(passed.blocks)}"
        f". A step of them hears, in ms: {fields}."
    )
    return Animation("encoder", data, _still(data, alt))


def _check(passed: ForwardPass, layer: int, other: ForwardPass | None) -> None:
    """Refuse what cannot be drawn."""
    for number, block in enumerate(passed.blocks[:layer], start=1):
        if not block.is_simple:
            raise StackError(
                f"Block {number} is not a plain convolution, ReLU and max-pool, and the animation "
                "draws no other: use sonify, which takes it."
            )
    if len(passed.x) != 1 or passed.x.shape[1] != 1:
        raise ValueError("The animation draws one mono clip: make a ForwardPass of one waveform.")
    if other is not None and other.x.shape != passed.x.shape:
        raise ValueError(
            f"The other clip has {other.x.shape[2]} samples and this one {passed.x.shape[2]}: "
            "cut both to one length."
        )


def _acts(
    passed: ForwardPass, layer: int, chosen: int, sample_rate: int
) -> Iterator[tuple[str, int, str]]:
    """The steps of the animation: what happens, in which layer, and a sentence about it."""
    seconds = passed.samples / sample_rate
    text = f"A sound of {seconds:.2g} s. You see its spectrogram; the network gets its samples."
    yield "input", 0, text
    for number, block in enumerate(passed.blocks, start=1):
        text = "convolve and rectify."
        if block.pool > 1:
            most = "larger" if block.pool == 2 else "largest"
            text = f"convolve, rectify, pool. Of {block.pool} neighbours the {most} goes up; a "
            text += "switch keeps which one it was."
        yield "up", number, f"Up, layer {number}: {text}"
    others = passed.blocks[layer - 1].conv.out_channels - 1
    text = f"filter {chosen} of layer {layer} stays. Its {others} neighbours are set to zero."
    yield "choose", layer, f"Choose: {text}"
    for number in range(layer, 0, -1):
        block, back = passed.blocks[number - 1], f"Back, layer {number}:"
        if block.pool > 1:
            text = "Each value goes where its switch points; all other places get zero."
            yield "unpool", number, f"{back} unpool. {text}"
        yield "rectify", number, f"{back} rectify. What is negative is cut off. Here {{cut}}."
        where = f"to layer {number - 1}" if number > 1 else "to the sound"
        text = f"The filter's own weights spread each value over {block.conv.kernel_size[0]} places"
        yield "paint", number, f"{back} transposed convolution. {text}, down {where}."
    yield "end", 0, "The sonification, scaled to the peak of the input. Listen to both."


def _still(data: dict[str, Any], alt: str) -> str:
    """All stages in one picture: the way up on the left, the way back on the right."""
    layers, way = data["layers"], data["ways"][0] if "ways" in data else None
    seconds, ratios = data["samples"] / data["rate"], [1] * len(layers) + [2.4]
    size = (8.0 if way else 6.0, 1.3 + 0.42 * len(layers), len(ratios), 2 if way else 1)
    shared: Any = {"sharex": True, "squeeze": False, "height_ratios": ratios}
    with drawing(*size, **shared) as (figure, grid):
        for axes in grid.flat:
            axes.set(xlim=(0, seconds), yticks=[], facecolor="#0b1016")
        for number, one in enumerate(layers, start=1):
            row = grid[len(layers) - number]
            start = (one["field"] - one["stride"]) / 2 / data["rate"]
            end = start + one["steps"] * one["stride"] / data["rate"]
            box: Any = {"extent": (start, end, 0, 1), "vmin": 0, "vmax": 1}
            values = _decoded(one["map"], len(one["shown"]))
            row[0].imshow(np.sqrt(values / 255), cmap=_UP, **box)
            row[0].set_ylabel(number, rotation=0, va="center", labelpad=8)
            if way and number <= data["layer"]:
                back = _decoded(way["layers"][number - 1]["map"], len(one["shown"]))
                row[1].imshow(np.sqrt(back / 255), cmap=_BACK, **box)
        box = {"extent": (0, seconds, 0, data["rate"] / 2000), "vmin": 0, "vmax": 255}
        grid[-1, 0].imshow(_decoded(data["input"], data["bins"])[::-1], cmap=_UP, **box)
        grid[-1, 0].set_xlabel("time / s: the sound")
        grid[0, 0].set_title("The way up: feature maps by layer")
        if way:
            grid[-1, 1].imshow(_decoded(way["sound"], data["bins"])[::-1], cmap=_BACK, **box)
            grid[-1, 1].set_xlabel("time / s: the sonification")
            grid[0, 1].set_title("The way back: one filter")
    return _small(figure, alt)


def _decoded(text: str, rows: int) -> ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(rows, -1)


def _small(figure: Figure, alt: str) -> str:
    return Picture(figure, alt=alt, dpi=85, kind="webp")._repr_html_()


class TemperatureSlider(Animation):
    """A slider for the temperature of NT-Xent, and what it makes of one batch.

    The page keeps the similarities and computes all else as the slider moves, from 0.01 to 10.

    Parameters
    ----------
    similarity : Tensor, shape (rows, rows), in [-1, 1]
        Cosine similarities; row i and row i + rows / 2 are two views of one clip.
    temperature : float > 0
        To begin with.

    Attributes
    ----------
    words : str
        What is to be seen at first.

    Raises
    ------
    ValueError
        If the rows are not pairs, or the temperature is not above 0.

    Examples
    --------
    >>> import torch
    >>> TemperatureSlider(torch.eye(4), temperature=0.5).words[:22]
    'At temperature 0.5 the'
    """

    def __init__(self, similarity: Similarity, *, temperature: float = 0.1) -> None:
        self.words = temperature_words(similarity, temperature)
        alt = (
            "Left, the probabilities of all pairs as a heat map; right, each negative's share of "
            "the push as bars. The text has the numbers."
        )
        drawn = _small(temperature_picture(similarity, temperature), alt)
        rows = [[round(one, 5) for one in row] for row in similarity.tolist()]
        data = {"similarity": rows, "temperature": temperature}
        super().__init__("temperature", data, f"{drawn}<p>{html.escape(self.words)}</p>")


class Walks(Animation):
    """The walks of several pairs of sounds beside each other, a step for each piece.

    Parameters
    ----------
    pairs : mapping from str to (x, y), ndarray or Tensor, shapes (time,)
        By title.
    frequency : float, in Hz
    nperseg : int > 0, in samples
        Of a piece; pieces overlap by half.
    """

    def __init__(
        self, pairs: Mapping[str, tuple[Sound, Sound]], *, frequency: float, nperseg: int = 256
    ) -> None:
        walks = {
            name: coherence_walk(x, y, frequency=frequency, nperseg=nperseg)
            for name, (x, y) in pairs.items()
        }
        data = [
            {"name": name, "x": walk.real.round(4).tolist(), "y": walk.imag.round(4).tolist()}
            for name, walk in walks.items()
        ]
        super().__init__("walks", {"walks": data}, coherence_walks(walks)._repr_html_())
