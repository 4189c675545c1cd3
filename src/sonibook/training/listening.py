"""What a network sounds like while it trains: as on the paper's dashboards (section 3.3)."""

from __future__ import annotations

import warnings

import numpy as np

from sonibook.audio import pad
from sonibook.datasets.base import Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import SonibookWarning
from sonibook.model.encoder import CNN12, Classifier
from sonibook.training.loggers import Sounds

#: Layers to listen to: shallow, where the last pool is, the last.
LAYERS = (3, 8, 11)


def sounds_of(
    network: CNN12 | Classifier, data: Dataset, *, clips: int = 3, layers: tuple[int, ...] = LAYERS
) -> list[Sounds]:
    """Each layer's most active filter on some clips, sonified, after the clips themselves.

    Parameters
    ----------
    network : CNN12 or Classifier
        On the CPU, in `eval` mode.
    data : Dataset
    clips : int >= 1
        Spread evenly over the data set.
    layers : tuple of int
        Those that the network does not have are left out.

    Returns
    -------
    list of Sounds
        ``input``, ``layer-3`` and so on; one sound a clip, named by the clip's id.
    """
    encoder = network.encoder if isinstance(network, Classifier) else network
    chosen = np.unique(np.linspace(0, len(data) - 1, clips).round().astype(int))
    heard = [data[int(index)] for index in chosen]
    longest = max(len(clip.waveform) for clip in heard)
    x = np.stack([pad(clip.waveform, longest) for clip in heard])
    present = [layer for layer in layers if layer <= encoder.depth]
    captions = [clip.clip_id for clip in heard]
    with warnings.catch_warnings():
        # Early in a run maps are often dead: their silence can be heard.
        warnings.simplefilter("ignore", SonibookWarning)
        passed = ForwardPass(encoder.fold(), x[:, None], depth=max(present, default=1))
        sounds, _ = passed.sonify_most_active(present)
    return [
        Sounds("input", x, captions),
        *(
            Sounds(f"layer-{layer}", sounds[:, row].numpy(), captions)
            for row, layer in enumerate(present)
        ),
    ]
