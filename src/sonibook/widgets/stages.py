"""A clip's layers as bytes: thumbnails of the maps, and the numbers of a close-up, for the browser.

Of a map are kept `ROWS` of its filters and `COLUMNS` stretches of time, the largest value in each
as a byte's share of the peak. The close-up has `NEAR` steps of one channel of each layer.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from sonibook.deconvnet.backward import ForwardPass
from sonibook.model.operations import max_unpool, transposed_convolution
from sonibook.model.stack import receptive_field, stride
from sonibook.plots.sound import decibels, power_spectrogram, shortened

ROWS, COLUMNS, NEAR = 16, 96, 12
#: Frequencies and frames of a spectrogram.
BINS, _FRAMES = 48, 128


class WayBack:
    """The stages of one backward pass: what arrives at each layer, unpooled, and painted below."""

    def __init__(
        self, passed: ForwardPass, layer: int, chosen: int, switches: list[Tensor | None]
    ) -> None:
        maps = passed.maps[layer - 1]
        y = torch.zeros_like(maps)
        y[:, chosen] = maps[:, chosen]
        self.arrived: dict[int, Tensor] = {}
        self.unpooled: dict[int, Tensor] = {}
        with torch.no_grad():
            for number in range(layer, 0, -1):
                block, kept = passed.blocks[number - 1], switches[number - 1]
                self.arrived[number] = unpooled = y
                if kept is not None:
                    length = passed.lengths[number - 1]
                    unpooled = max_unpool(y, kept, pool=block.pool, length=length)
                self.unpooled[number] = unpooled
                y = transposed_convolution(F.relu(unpooled), block.conv)
        self.arrived[0] = y
        self.switches = switches
        raw = y[0, 0, : passed.samples]
        peak, loudest = float(raw.abs().max()), float(passed.x.abs().max())
        self.sound = raw / (peak or 1.0) * loudest

    def cut(self, number: int) -> str:
        """The share of what was unpooled in a block that is negative, in words."""
        values = self.unpooled[number]
        share = float((values < 0).sum()) / max(int((values != 0).sum()), 1)
        return f"that is {share:.0%} of the values" if share else "nothing is negative"


class Drawn:
    """A clip's layers as bytes: which filters are rows, and which stretch is near."""

    def __init__(self, passed: ForwardPass, way: WayBack | None, sample_rate: int) -> None:
        self.passed, self.rate = passed, sample_rate
        self.rows: list[list[int]] = []
        #: Per layer, the channel of the close-up.
        self.told: list[int] = []
        blocks = passed.blocks
        numbers = range(1, len(blocks) + 1)
        self.fields = [receptive_field(blocks, number) for number in numbers]
        self.strides = [stride(blocks, number) for number in numbers]
        for number in numbers:
            energy = passed.energy(number)[0]
            share, told = energy / energy.sum().clamp(min=1e-30), int(energy.argmax())
            if way is not None and number in way.arrived:
                back = way.arrived[number][0].square().sum(dim=1)
                share = share + back / back.sum().clamp(min=1e-30)
                told = _telling(way.arrived[number][0])
            first = share.argsort(descending=True, stable=True)
            self.rows.append(sorted([*dict.fromkeys([told, *first.tolist()])][:ROWS]))
            self.told.append(told)
        deepest = max(way.arrived) if way is not None else 1
        loudest = int(passed.maps[deepest - 1][0, self.told[deepest - 1]].argmax())
        self.focus = loudest * self.strides[deepest - 1] + self.fields[deepest - 1] // 2
        layers = []
        for number, block in enumerate(blocks, start=1):
            maps = passed.maps[number - 1][0]
            layers.append(
                {
                    "filters": len(maps),
                    "shown": self.rows[number - 1],
                    "steps": maps.shape[1],
                    "kernel": block.conv.kernel_size[0],
                    "pool": block.pool,
                    "stride": self.strides[number - 1],
                    "field": self.fields[number - 1],
                    "start": self._near(number).start,
                    **_thumbnail(maps[self.rows[number - 1]]),
                }
            )
        x = passed.x[0, 0, : passed.samples]
        self.reference = float(power_spectrogram(x).max())
        self.data: dict[str, Any] = {
            "rate": sample_rate,
            "samples": passed.samples,
            "layers": layers,
            "input": _spectrogram(x),
            "wave": _envelope(x),
            "bins": BINS,
            "span": NEAR,
        }

    def _near(self, number: int) -> slice:
        """The steps of the close-up in a layer."""
        steps = self.passed.maps[number - 1].shape[2]
        middle = (self.focus - self.fields[number - 1] // 2) // self.strides[number - 1]
        start = int(np.clip(middle - NEAR // 2, 0, max(steps - NEAR, 0)))
        return slice(start, start + min(NEAR, steps))

    def near_up(self, number: int) -> dict[str, Any]:
        """The close-up of a block on the way up: its rectified convolution, pool and switches."""
        block, channel = self.passed.blocks[number - 1], self.told[number - 1]
        below = self.passed.x if number == 1 else self.passed.maps[number - 2]
        here, pool = self._near(number), block.pool
        seen = below[:, :, here.start * pool : here.stop * pool + block.extent - 1]
        kept = self.passed.maps[number - 1][0, channel, here]
        with torch.no_grad():
            before = F.relu(block.convolution.forward(seen)[0])[0, channel, : len(kept) * pool]
        near = {"channel": channel, "before": _short(before), "kept": _short(kept)}
        return near | {"switches": self._places(self.passed.switches, number, channel)}

    def _places(self, switches: list[Tensor | None], number: int, channel: int) -> list[int]:
        """The switches of the close-up; zeros where a block has no pool."""
        here, kept = self._near(number), switches[number - 1]
        if kept is None:
            return [0] * (here.stop - here.start)
        return [int(place) for place in kept[0, channel, here]]

    def way(self, name: str, way: WayBack) -> dict[str, Any]:
        """One backward pass as bytes and the numbers of its close-ups, layer 1 first."""
        layers = []
        for number in sorted(set(way.arrived) - {0}):
            y, block = way.arrived[number][0], self.passed.blocks[number - 1]
            channel, here, pool = self.told[number - 1], self._near(number), block.pool
            there = slice(here.start * pool, here.stop * pool)
            under = self.told[number - 2] if number > 1 else 0
            painted = slice(there.start, there.stop + block.extent - 1)
            rows = y[self.rows[number - 1]]
            peak = float(rows.abs().max())
            layers.append(
                {
                    "map": _thumbnail(rows.clamp(min=0), peak=peak)["map"],
                    "negative": _thumbnail((-rows).clamp(min=0), peak=peak)["map"],
                    "peak": peak,
                    "cut": way.cut(number),
                    "held": _signed(y[int(y.square().sum(dim=1).argmax())]),
                    "switches": self._places(way.switches, number, channel),
                    "arrived": _short(y[channel, here]),
                    "unpooled": _short(way.unpooled[number][0, channel, there]),
                    "below": _short(way.arrived[number - 1][0, under, painted]),
                }
            )
        power = _spectrogram(way.sound, reference=self.reference)
        return {"name": name, "layers": layers, "sound": power, "wave": _envelope(way.sound)}


def _telling(y: Float[Tensor, "channel steps"]) -> int:
    """The channel in which positive and negative meet most; the strongest where none does."""
    above, under = (values.clamp(min=0).square().sum(dim=1) for values in (y, -y))
    both = torch.minimum(above, under)
    return int((both if both.max() > 0 else above + under).argmax())


def _text(values: ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _short(values: Tensor) -> list[float]:
    """Numbers with four digits."""
    return [float(f"{float(value):.4g}") for value in values]


def _thumbnail(values: Float[Tensor, "filters steps"], *, peak: float = 0.0) -> dict[str, Any]:
    """The largest value in each stretch of time, as a byte's share of the peak."""
    columns = min(COLUMNS, values.shape[1])
    largest = shortened(values.cpu().numpy(), columns)
    peak = peak or float(largest.max())
    grid = np.round(255 * largest / (peak or 1.0)).astype(np.uint8)
    return {"map": _text(grid), "columns": columns, "peak": peak}


def _signed(values: Float[Tensor, " steps"]) -> str:
    """A map as signed bytes, re its peak."""
    peak = float(values.abs().max()) or 1.0
    return _text(np.round(127 * values.cpu().numpy() / peak).astype(np.int8))


def _envelope(x: Float[Tensor, " time"]) -> str:
    """The largest magnitude in each of 240 stretches of a sound, as bytes."""
    loudest = shortened(np.abs(x.cpu().numpy()), 240)
    return _text(np.round(255 * np.clip(loudest, 0, 1)).astype(np.uint8))


def _spectrogram(x: Float[Tensor, " time"], *, reference: float | None = None) -> str:
    """A log spectrogram of `BINS` frequencies, the highest first, and `_FRAMES` frames."""
    power = shortened(shortened(power_spectrogram(x), BINS, axis=0), _FRAMES)
    levels = 1 + decibels(power, reference=reference, floor_db=-70.0)[::-1] / 70
    return _text(np.round(255 * np.clip(levels, 0, 1)).astype(np.uint8))


def decoded(text: str, rows: int) -> ndarray:
    """Bytes as a grid again."""
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(rows, -1)
