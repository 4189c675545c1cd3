"""Signals in the place of a sonification, and what a filter itself makes of them.

Subtracting any loud signal hurts a network. That removing a sonification s from its clip x hurts
(paper, section 4.1) says something of s only beside what else of the same power would have done:
the controls of an ablation, each the shape of s.

===================== ============================================================
control               what is taken away from x
===================== ============================================================
``sonification``      s itself
``random weights``    the sonification of x by a network with random weights
``another clip``      the sonification of another clip by the network under test
``random phase``      s with its magnitude spectrum and random phases
``white noise``       Gaussian noise
``addition``          -s: the sonification is added, x + s
``least squares``     (<x, s> / <s, s>) s, so that what is left is orthogonal to s
===================== ============================================================

All have the RMS of s, to rounding, but for ``least squares``, whose level its definition says.

That sonifications are what activates their filters (sections 3.2 and 4.1) the paper infers from
the loss. `stimulation` asks the filter: how much energy has its map when it hears the sonification
instead of the clip, and what is left of the clip; beside signals of the same RMS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeVar, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.analysis.networks import Networks, with_random_weights
from sonibook.analysis.result import ResultTable
from sonibook.analysis.stream import Measured, Streaming, measure_networks, seeded
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError

CONTROLS = (
    "sonification",
    "random weights",
    "another clip",
    "random phase",
    "white noise",
    "addition",
    "least squares",
)
#: What is taken away bit by bit, or from every clip before a probe is fitted anew.
REMOVED = ("sonification", "random weights", "random phase", "white noise")
#: What a filter hears instead of the clip.
STIMULI = ("sonification", "random phase", "another clip", "white noise")
#: What is subtracted from the clip. The last is the clip itself, so much of it that what is left is
#: as loud as what the sonification leaves: whatever resembles the clip makes it quieter.
TAKEN = (*STIMULI, "the clip itself")
#: A map of less energy than this below its energy on the clip counts as this low.
_FLOOR_DB = -60.0

_Name = TypeVar("_Name", bound=str)
_Sounds = Float[Tensor, "*batch time"]
_Clips = Float[Tensor, "*clips time"]


def chosen_of(what: str, known: tuple[_Name, ...], given: Sequence[str]) -> tuple[_Name, ...]:
    """The first that is known and those given, in the order of the known; else `AnalysisError`."""
    for value in given:
        if value not in known:
            raise AnalysisError(f"There is no {what} {value!r}: choose one of {', '.join(known)}.")
    return tuple(one for one in known if one == known[0] or one in given)


def partners(clips: Sequence[Clip]) -> list[int | None]:
    """For each clip the place of the next that shares no label with it, else of the next."""
    found: list[int | None] = []
    for place, clip in enumerate(clips):
        following = [(place + step) % len(clips) for step in range(1, len(clips))]
        strangers = [other for other in following if not {*clips[other].labels} & {*clip.labels}]
        found.append(next(iter(strangers + following), None))
    return found


def with_partners(
    clips: Sequence[Clip], sounds: Sequence[_Sounds]
) -> Iterator[tuple[Clip, _Sounds, _Sounds]]:
    """Each clip, its sounds and those of another, of `partners`; silence for one that is alone."""
    for clip, own, other in zip(clips, sounds, partners(clips), strict=True):
        yield clip, own, torch.zeros_like(own) if other is None else sounds[other]


def matched(x: _Sounds, to: _Sounds) -> _Sounds:
    """`x` with the RMS of `to`; silence stays silent."""
    own, wanted = (one.double().square().mean(dim=-1, keepdim=True).sqrt() for one in (x, to))
    return (x * (wanted / own.where(own > 0, 1.0))).to(x.dtype)


def projection(x: _Clips, on: _Sounds) -> _Sounds:
    """The part of `x` that a gain on `on` can explain, (<x, on> / <on, on>) on, shape (..., time).

    What is left, ``x - projection(x, on)``, is orthogonal to `on`. Of silence nothing can be
    explained: it gives silence.
    """
    wide = on.double()
    power = wide.square().sum(dim=-1, keepdim=True)
    gain = (x.double() * wide).sum(dim=-1, keepdim=True) / power.where(power > 0, 1.0)
    return (gain * wide).to(on.dtype)


def random_phase(s: _Sounds, *, generator: np.random.Generator) -> _Sounds:
    """A real signal with the magnitude spectrum of `s` and random phases.

    Every event in time is spread over the whole clip (surrogate data: Theiler et al., "Testing for
    nonlinearity in time series: the method of surrogate data", Physica D 58, 1992). The phases of
    the mean, and for an even `time` of half the sampling rate, cannot turn in a real signal.
    """
    spectrum = torch.fft.rfft(s.double())
    angle = torch.from_numpy(generator.uniform(0, 2 * torch.pi, tuple(spectrum.shape)))
    angle[..., 0] = 0.0
    if s.shape[-1] % 2 == 0:
        angle[..., -1] = 0.0
    turned = spectrum * torch.polar(torch.ones_like(angle), angle).to(s.device)
    return torch.fft.irfft(turned, n=s.shape[-1]).to(s.dtype)


def white_noise(s: _Sounds, *, generator: np.random.Generator) -> _Sounds:
    """Gaussian noise of the shape of `s`, with its RMS."""
    noise = torch.from_numpy(generator.standard_normal(tuple(s.shape)))
    return matched(noise.to(s.device), s).to(s.dtype)


def as_long_as(x: _Sounds, time: int) -> Float[Tensor, "*batch samples"]:
    """`x` cut to `time` samples or, where it is shorter, repeated to them."""
    return x.repeat(*[1] * (x.ndim - 1), -(-time // x.shape[-1]))[..., :time]


def scale(s: _Sounds, x: _Clips, level: str) -> _Sounds:
    """A sonification s, which has the peak of its clip x, at the level that is to be subtracted.

    The method leaves the level of s open, and every result depends on it. ``"peak"`` is the paper's
    rule: the peak of s is that of x, whatever share of x it holds; it may take away more than there
    was. ``"least squares"`` takes the gain, of either sign, that leaves the least power: then
    "sonification" and "least squares" are the same control.
    """
    return projection(x, s) if level == "least squares" else s


def normalise(r: _Sounds, residual: str) -> _Sounds:
    """A residual as the network is to hear it."""
    if residual == "as is":
        return r
    peak = r.abs().amax(dim=-1, keepdim=True)
    return r / peak.where(peak > 0, 1.0)


def perturbations(
    x: Float[Tensor, " time"],
    s: Float[Tensor, "layers time"],
    controls: Sequence[str] = CONTROLS,
    *,
    by_random: Float[Tensor, "layers time"] | None = None,
    of_another: Float[Tensor, "layers samples"] | None = None,
    clip_id: str,
    seed: int,
) -> Float[Tensor, "controls layers time"]:
    """What each control takes away from a clip x, shape (controls, layers, time).

    `s`, shape (layers, time), are its sonifications by the network under test, `by_random` those by
    random weights, and `of_another` another clip's by the network under test, which are cut or
    repeated to the clip's length; a `ValueError` tells if a control needs what is not given. What
    is random is drawn for the clip's id and the seed, whatever is computed before, beside or after
    it. Zero is what there is nothing to make from: a silent s, or a silent other.
    """

    def perturbation(control: str) -> Float[Tensor, "layers time"]:
        if control == "sonification":
            return s
        if control == "addition":
            return -s
        if control == "least squares":
            return projection(x, s)
        if control in ("random phase", "white noise"):
            generator = seeded(seed, control, clip_id)
            make = random_phase if control == "random phase" else white_noise
            return matched(make(s, generator=generator), s)
        other = by_random if control == "random weights" else of_another
        if other is None:
            raise ValueError(f"The control {control!r} needs sonifications that are not given.")
        return matched(as_long_as(other, s.shape[-1]), s)

    return torch.stack([perturbation(control) for control in controls])


def _energies(seed: int, network: nn.Module, clips: Sequence[Clip]) -> Measured:
    """Levels of maps on stimuli and on residuals, re the clip."""
    passes = [ForwardPass(network, clip.waveform) for clip in clips]
    sounds = with_partners(clips, [one.sonify_most_active()[0].cpu() for one in passes])
    shape = (len(STIMULI) + len(TAKEN), len(clips), len(passes[0].blocks))
    levels = np.full(shape, np.nan)
    for row, (passed, (clip, of_clip, of_another)) in enumerate(zip(passes, sounds, strict=True)):
        x = torch.from_numpy(clip.waveform)
        for place, s in enumerate(of_clip[:, : len(x)]):
            layer = place + 1
            index = passed.most_active(layer)[0]
            own = float(passed.energy(layer)[0, index])
            if own <= 0 or not s.any():
                continue
            generator = seeded(seed, "stimulation", clip.clip_id, str(layer))
            turned = random_phase(s, generator=generator)
            other, noise = (
                as_long_as(of_another[place], len(x)),
                white_noise(s, generator=generator),
            )
            stimuli = torch.stack([s, turned, other, noise])
            there, alike = stimuli.any(dim=1), matched(stimuli, s.expand_as(stimuli))
            those = alike[there]
            quieter = matched(x.expand(1, -1), x - those[:1])
            asked = torch.cat([matched(those, x.expand_as(those)), x - those, quieter]).unsqueeze(1)
            energy = FeatureMaps(network, asked, depth=layer).energy(layer)[:, index].cpu().double()
            in_db = 10 * (energy / own).clamp_min(10 ** (_FLOOR_DB / 10)).log10()
            levels[torch.cat([there, there, there[:1]]).numpy(), row, place] = in_db.numpy()
    heard = dict(zip(STIMULI, levels, strict=False))
    left = dict(zip(TAKEN, levels[len(STIMULI) :], strict=True))
    return {
        **{("heard", name): values for name, values in heard.items()},
        **{("left", name): values for name, values in left.items()},
        **{("above", name): heard["sonification"] - heard[name] for name in STIMULI[1:]},
        **{("below", name): left[name] - left["sonification"] for name in TAKEN[1:]},
    }


def stimulation(
    networks: Networks, data: Dataset, *, seed: int = 0, **streaming: Unpack[Streaming]
) -> ResultTable:
    """How active the most active filter of each layer is on its sonification, and without it.

    The same network with random weights stands beside each. Parameters are those of every analysis:
    see `sonibook.analysis`.

    Returns
    -------
    ResultTable
        All quantities are in dB re the map's energy on the clip: ``heard``, by `STIMULI` as
        condition, on each, at the clip's RMS; ``left``, by `TAKEN`, on what is left of the clip
        when each is subtracted, at the sonification's RMS, but for the clip itself; ``above`` and
        ``below``, how far, clip by clip, ``heard`` of the sonification is above that of each other,
        and ``left`` by it below that by each other.
    """
    return measure_networks(
        "stimulation",
        partial(_energies, seed),
        with_random_weights(networks, data, seed=seed),
        data,
        settings={"seed": seed, "floor_db": _FLOOR_DB},
        **streaming,
    )
