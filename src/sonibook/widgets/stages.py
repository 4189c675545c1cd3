"""A clip's layers as bytes: thumbnails of the maps, and the numbers of a close-up, for the browser.

Of a map are kept `_ROWS` of its filters and `_COLUMNS` stretches of time, the largest value in each
as a byte's share of the peak. The close-up has `_NEAR` steps of one channel of each layer.
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
from sonibook.plots.sound import power_spectrogram, shortened, small_levels

_ROWS, _COLUMNS, _NEAR = 16, 96, 12
#: Frequencies and frames of a spectrogram, and stretches of a waveform.
_BINS, _FRAMES, _STRETCHES = 48, 128, 240


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


class Drawn:
    """A clip's layers as bytes: which filters are rows, and which stretch is near."""

    def __init__(self, passed: ForwardPass, way: WayBack | None, sample_rate: int) -> None:
        self.passed, arrived = passed, {} if way is None else way.arrived
        numbers = range(1, len(passed.blocks) + 1)
        energies = [passed.energy(number)[0] for number in numbers]
        #: Per layer, the channel of the close-up.
        self.told = [
            _telling(arrived[number][0]) if number in arrived else int(energy.argmax())
            for number, energy in zip(numbers, energies, strict=True)
        ]
        deepest = max(arrived, default=1)
        loudest = int(passed.maps[deepest - 1][0, self.told[deepest - 1]].argmax())
        focus = loudest * stride(passed.blocks, deepest)
        focus += receptive_field(passed.blocks, deepest) // 2
        #: What the browser is told of each layer, and the steps of its close-up.
        self.layers: list[dict[str, Any]] = []
        self.near: list[slice] = []
        for number, energy in zip(numbers, energies, strict=True):
            block, maps = passed.blocks[number - 1], passed.maps[number - 1][0]
            share = _shares(energy)
            if number in arrived:
                share = share + _shares(arrived[number][0].square().sum(dim=1))
            first = share.argsort(descending=True, stable=True).tolist()
            rows = sorted([*dict.fromkeys([self.told[number - 1], *first])][:_ROWS])
            field, steps = receptive_field(passed.blocks, number), maps.shape[1]
            peak = float(maps[rows].max())
            middle = (focus - field // 2) // stride(passed.blocks, number)
            start = int(np.clip(middle - _NEAR // 2, 0, max(steps - _NEAR, 0)))
            self.near.append(slice(start, min(start + _NEAR, steps)))
            self.layers.append(
                {
                    "filters": len(maps),
                    "shown": rows,
                    "steps": steps,
                    "kernel": block.conv.kernel_size[0],
                    "pool": block.pool,
                    "stride": stride(passed.blocks, number),
                    "field": field,
                    "start": start,
                    "map": _levels(maps[rows], _COLUMNS, peak),
                    "columns": min(_COLUMNS, steps),
                    "peak": peak,
                }
            )
        x = passed.x[0, 0, : passed.samples]
        self.reference = float(power_spectrogram(x).max())
        self.data: dict[str, Any] = {
            "rate": sample_rate,
            "samples": passed.samples,
            "layers": self.layers,
            "input": _spectrogram(x),
            "wave": _levels(x.abs(), _STRETCHES, 1.0),
            "bins": _BINS,
            "span": _NEAR,
        }

    def near_up(self, number: int) -> dict[str, Any]:
        """The close-up of a block on the way up: its rectified convolution, pool and switches."""
        block, channel = self.passed.blocks[number - 1], self.told[number - 1]
        below = self.passed.x if number == 1 else self.passed.maps[number - 2]
        here, pool = self.near[number - 1], block.pool
        seen = below[:, :, here.start * pool : here.stop * pool + block.extent - 1]
        kept = self.passed.maps[number - 1][0, channel, here]
        with torch.no_grad():
            before = F.relu(block.convolution.forward(seen)[0])[0, channel, : len(kept) * pool]
        near = {"channel": channel, "before": _short(before), "kept": _short(kept)}
        return near | {"switches": self._places(self.passed.switches, number)}

    def _places(self, switches: list[Tensor | None], number: int) -> list[int]:
        """The switches of the close-up; zeros where a block has no pool."""
        here, kept = self.near[number - 1], switches[number - 1]
        if kept is None:
            return [0] * (here.stop - here.start)
        return [int(place) for place in kept[0, self.told[number - 1], here]]

    def way(self, name: str, way: WayBack) -> dict[str, Any]:
        """One backward pass as bytes and the numbers of its close-ups, layer 1 first."""
        layers = []
        for number in sorted(way.unpooled):
            y, block = way.arrived[number][0], self.passed.blocks[number - 1]
            channel, here, pool = self.told[number - 1], self.near[number - 1], block.pool
            there = slice(here.start * pool, here.stop * pool)
            under = self.told[number - 2] if number > 1 else 0
            painted = slice(there.start, there.stop + block.extent - 1)
            unpooled, rows = way.unpooled[number], y[self.layers[number - 1]["shown"]]
            cut = float((unpooled < 0).sum()) / max(int((unpooled != 0).sum()), 1)
            peak = float(rows.abs().max())
            layers.append(
                {
                    "map": _levels(rows.clamp(min=0), _COLUMNS, peak),
                    "negative": _levels((-rows).clamp(min=0), _COLUMNS, peak),
                    "peak": peak,
                    "cut": f"that is {cut:.0%} of the values" if cut else "nothing is negative",
                    "held": _signed(y[int(y.square().sum(dim=1).argmax())]),
                    "switches": self._places(way.switches, number),
                    "arrived": _short(y[channel, here]),
                    "unpooled": _short(unpooled[0, channel, there]),
                    "below": _short(way.arrived[number - 1][0, under, painted]),
                }
            )
        power = _spectrogram(way.sound, reference=self.reference)
        wave = _levels(way.sound.abs(), _STRETCHES, 1.0)
        return {"name": name, "layers": layers, "sound": power, "wave": wave}


def _shares(energy: Float[Tensor, " channel"]) -> Float[Tensor, " channel"]:
    """Each channel's share of the energy of all."""
    return energy / energy.sum().clamp(min=1e-30)


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


def _levels(values: Float[Tensor, "*rows steps"], columns: int, peak: float) -> str:
    """The largest value in each of some stretches of time, as a byte's share of the peak."""
    largest = shortened(values.cpu().numpy(), min(columns, values.shape[-1]))
    return _text(np.round(np.clip(255 * largest / (peak or 1.0), 0, 255)).astype(np.uint8))


def _signed(values: Float[Tensor, " steps"]) -> str:
    """A map as signed bytes, re its peak."""
    peak = float(values.abs().max()) or 1.0
    return _text(np.round(127 * values.cpu().numpy() / peak).astype(np.int8))


def _spectrogram(x: Float[Tensor, " time"], *, reference: float | None = None) -> str:
    """A log spectrogram of `_BINS` frequencies, the highest first, and `_FRAMES` frames."""
    return _text(small_levels(power_spectrogram(x), _BINS, _FRAMES, -70.0, reference=reference))
