"""The same way back through a network that looks at spectrograms, whose sound borrows its phase.

Choi, Fazekas & Sandler ("Explaining deep convolutional neural networks on music classification",
2016) take Zeiler and Fergus's deconvolution to two dimensions: unpool by the switches, rectify,
transposed convolution, down to the magnitudes of a spectrogram. What comes back has no phase. They
take the clip's own, and invert the spectrogram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sonibook.audio import SAMPLE_RATE
from sonibook.errors import AudioError, LayerError
from sonibook.files import shipped_files
from sonibook.model.stack import check_layer
from sonibook.model.stack_file import check_tensors, read_tensors

#: Samples of a frame, 64 ms at 8 kHz, and between two frames.
FRAME, HOP = 512, 256
#: Channels of the convolutions, 3 by 3 each; a max-pool of 2 by 2 follows all but the last.
_CHANNELS = (16, 32, 64, 128, 256, 256)
_BANDS = 64
#: Four blocks of a network that was trained on what `supervised-esc40` was.
_SHIPPED = "spectrogram-esc40"
#: What magnitudes are multiplied by before the logarithm: a sine 80 dB below full scale counts 1.
_LOUDNESS = 1e4
_Picture = Float[Tensor, "batch channel band frame"]


def _mel_triangles() -> Float[Tensor, "band frequency"]:
    """Overlapping triangles of height 1 on the mel scale; those at the ends reach to the ends."""
    # In PyTorch's single precision, as when the network that comes with sonibook was trained.
    top = math.log10(1 + SAMPLE_RATE / 2 / 700)
    centres = 700 * (10 ** (torch.arange(1, _BANDS + 1) / (_BANDS + 1) * top) - 1)
    frequencies = np.linspace(0, SAMPLE_RATE / 2, FRAME // 2 + 1)
    bands = [np.interp(frequencies, centres.numpy(), band) for band in np.eye(_BANDS)]
    return torch.from_numpy(np.stack(bands)).float()


class SpectrogramCNN(nn.Module):
    """Conv-relu-pool blocks in two dimensions on a log-mel spectrogram: a peer of CNN12.

    At its full depth it has about as many weights in its convolutions as a `CNN12` of width 1/4
    has (982,400 and 795,472), and as many features: 512.

    Parameters
    ----------
    depth : int from 1 to 6
        Blocks.
    norm : bool
        With batch normalisation, to train; `fold` takes it into the convolutions.
    seed : int or None
        Of the initial weights (He, zero biases); None draws from PyTorch's generator.

    Attributes
    ----------
    triangles : Tensor, shape (band, frequency)
        What a band hears of each frequency. The columns sum to 1, so that the transpose gives each
        frequency the levels of its bands.
    """

    triangles: Tensor

    def __init__(
        self, *, depth: int = len(_CHANNELS), norm: bool = False, seed: int | None = None
    ) -> None:
        super().__init__()
        sizes = [1, *_CHANNELS[:depth]]
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        convs = [
            nn.Conv2d(taken, given, 3, padding=1)
            for taken, given in zip(sizes, sizes[1:], strict=False)
        ]
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(given) if norm else nn.Identity() for given in sizes[1:]
        )
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(cast(Tensor, conv.bias))
        self.convs = nn.ModuleList(convs)
        self.pools = [2 if layer < len(_CHANNELS) else 1 for layer in range(1, len(sizes))]
        self.register_buffer("triangles", _mel_triangles(), persistent=False)

    @property
    def least_length(self) -> int:
        """The fewest samples of which something is left after all pools."""
        return HOP * math.prod(self.pools)

    def spectrum(self, x: Float[Tensor, "batch time"]) -> Complex[Tensor, "batch frequency frame"]:
        """Short-time spectra, in which a sine of amplitude 1 has the magnitude 1."""
        if x.ndim != 2 or x.shape[1] < self.least_length:
            raise AudioError(
                f"Expected waveforms of shape (batch, time), of {self.least_length} samples or "
                f"more, got {tuple(x.shape)}."
            )
        window = torch.hann_window(FRAME)
        spectra = torch.stft(x, FRAME, HOP, window=window, pad_mode="constant", return_complex=True)
        return spectra * (4 / FRAME)

    def picture(self, spectrum: Complex[Tensor, "batch frequency frame"]) -> _Picture:
        """What the first convolution sees: log-mel magnitudes, one channel, >= 0."""
        shares = self.triangles / self.triangles.sum(dim=1, keepdim=True)
        return torch.log1p(_LOUDNESS * (shares @ spectrum.abs())).unsqueeze(1)

    def waveform(
        self, picture: _Picture, spectrum: Complex[Tensor, "batch frequency frame"], *, samples: int
    ) -> Float[Tensor, "batch time"]:
        """A picture as sound: its magnitudes, each band's at all its frequencies, and a phase."""
        magnitudes = self.triangles.T @ torch.expm1(picture[:, 0]) / _LOUDNESS
        found = torch.polar(magnitudes, spectrum.angle().expand_as(magnitudes)) * (FRAME / 4)
        return torch.istft(found, FRAME, HOP, window=torch.hann_window(FRAME), length=samples)

    def forward(self, x: Float[Tensor, "batch 1 time"]) -> Float[Tensor, "batch features"]:
        """The last maps' means over time, for each band that is left."""
        with torch.autocast(x.device.type, enabled=False):
            y = self.picture(self.spectrum(x[:, 0]))
        for conv, norm, pool in zip(self.convs, self.norms, self.pools, strict=True):
            y = F.max_pool2d(F.relu(norm(conv(y))), pool)
        return y.mean(dim=3).flatten(1)

    def fold(self, *, depth: int | None = None) -> SpectrogramCNN:
        """A copy without batch normalisation that computes the same, in `eval` mode.

        `depth` keeps the first blocks alone.
        """
        plain = SpectrogramCNN(depth=len(self.convs) if depth is None else depth)
        for own, conv, norm in zip(plain.convs, self.convs, self.norms, strict=False):
            if isinstance(norm, nn.BatchNorm2d):
                conv = fuse_conv_bn_eval(cast(nn.Conv2d, conv).eval(), norm.eval())
            own.load_state_dict(conv.state_dict())
        return plain.eval()


def load_spectrogram_cnn(file: str | Path | None = None) -> SpectrogramCNN:
    """A trained spectrogram CNN out of a ``.safetensors`` file, in `eval` mode.

    None is the one that comes with sonibook's repository: the first four blocks. CheckpointError if
    there is no such file, or it holds another network.
    """
    if file is None:
        file = shipped_files("*.safetensors").get(_SHIPPED, f"{_SHIPPED}.safetensors")
    _, tensors = read_tensors(Path(file))
    network = SpectrogramCNN(depth=max(1, min(len(_CHANNELS), len(tensors) // 2)))
    check_tensors(file, tensors, network.state_dict(), "a SpectrogramCNN")
    network.load_state_dict(tensors)
    return network.eval()


class SpectrogramPass:
    """A clip's maps and switches in a `SpectrogramCNN`, and the way back to sound.

    Parameters
    ----------
    network : SpectrogramCNN
        Without batch normalisation (`SpectrogramCNN.fold`).
    x : Tensor, shape (time,)
        A mono waveform at 8 kHz, scaled to unit peak.

    Attributes
    ----------
    maps : list of Tensor, shapes (1, filter, band, frame)
        Of each layer, after ReLU and pool; fewer bands and frames the deeper.

    Raises
    ------
    AudioError
        If `x` has another shape, or is shorter than the network's `least_length`.

    References
    ----------
    K. Choi, G. Fazekas, M. Sandler: Explaining deep convolutional neural networks on music
    classification. 2016.
    """

    @torch.no_grad()
    def __init__(self, network: SpectrogramCNN, x: Float[Tensor, " time"]) -> None:
        self.network, self.x = network, x
        self.spectrum = network.spectrum(x[None])
        y = self.picture = network.picture(self.spectrum)
        self.maps: list[Tensor] = []
        self._ways: list[tuple[nn.Conv2d, int, Tensor, torch.Size]] = []
        for conv, pool in zip(network.convs, network.pools, strict=True):
            before = F.relu(conv(y))
            y, switches = F.max_pool2d(before, pool, return_indices=True)
            self._ways.append((cast(nn.Conv2d, conv), pool, switches, before.shape[2:]))
            self.maps.append(y)

    def most_active(self, layer: int) -> int:
        """The filter of a layer, counted from 1, whose map has most energy."""
        return int(
            self.maps[check_layer(self.maps, layer) - 1].square().sum(dim=(0, 2, 3)).argmax()
        )

    @torch.no_grad()
    def backward(self, layer: int, start: Float[Tensor, "batch filter height width"]) -> _Picture:
        """From maps of a layer to a picture: unpool, rectify, transposed convolution, repeat."""
        y = start
        for conv, pool, switches, size in reversed(self._ways[:layer]):
            places = switches.expand(len(y), -1, -1, -1)
            y = F.max_unpool2d(y, places, [pool, pool], output_size=size)
            y = F.conv_transpose2d(F.relu(y), conv.weight, padding=1)
        return y

    @torch.no_grad()
    def sonify(self, layer: int, filters: Sequence[int]) -> Float[Tensor, "filters time"]:
        """What some filters respond to, as sound with the clip's own phase.

        The picture that comes back is brought to the peak of the clip's before it becomes
        magnitudes again, and the sound to the clip's peak. A silent map gives silence.

        Parameters
        ----------
        layer : int
            Counted from 1; LayerError if there is no such layer or filter.
        filters : sequence of int
            Counted from 0.
        """
        maps = self.maps[check_layer(self.maps, layer) - 1]
        if not all(0 <= one < maps.shape[1] for one in filters):
            raise LayerError(f"Layer {layer} has the filters 0 to {maps.shape[1] - 1}.")
        start = torch.zeros(len(filters), *maps.shape[1:])
        for row, one in enumerate(filters):
            start[row, one] = maps[0, one]
        found = F.relu(self.backward(layer, start))
        found *= self.picture.max() / found.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-20)
        sounds = self.network.waveform(found, self.spectrum, samples=len(self.x))
        peak = sounds.abs().amax(dim=1, keepdim=True).clamp_min(1e-20)
        return sounds * (self.x.abs().max() / peak)
