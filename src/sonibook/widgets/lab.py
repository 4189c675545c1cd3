"""Networks and clips as the lab in the page takes them: small scripts, loaded when wanted.

A page that was opened from disk may load scripts and nothing else. So each piece (the weights of
one layer, one clip) is a script that hands its bytes over as base64, and is named by their digest.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.audio import SAMPLE_RATE, as_waveform
from sonibook.errors import CheckpointError
from sonibook.files import write_text
from sonibook.model.encoder import CNN12, Classifier
from sonibook.model.stack import blocks_of, receptive_field, stride
from sonibook.widgets.players import script, text_of

#: What the name of a network may be: it stands in file names and in links.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

#: What networks were trained to do, by the objective that their cards name.
_TRAINED = {
    "cross_entropy": "Trained with labels: to name the class of a recording",
    "binary_cross_entropy": "Trained with labels: to name all that is heard in a recording",
    "nt_xent": "Trained without labels: to tell which two excerpts are of the same recording",
}


class LabNetwork(NamedTuple):
    """A network to listen to, with its card; a classifier can be asked for classes, too."""

    name: str
    network: CNN12 | Classifier
    card: Mapping[str, Any]

    @property
    def encoder(self) -> CNN12:
        """The network without its classes."""
        return self.network.encoder if isinstance(self.network, Classifier) else self.network


class LabClip(NamedTuple):
    """A clip to listen to, at 8 kHz and in [-1, 1]; its credit has its source and licence."""

    name: str
    title: str
    waveform: Float[ndarray, " time"]
    credit: str = ""


def export_lab(
    networks: Sequence[LabNetwork], clips: Sequence[LabClip], out: str | Path
) -> dict[str, Any]:
    """Write the pieces, and a manifest that lists them, into a folder; give back the manifest."""
    if not networks or not clips:
        raise ValueError("The lab needs a network and a clip at least.")
    names = [network.name for network in networks] + [clip.name for clip in clips]
    for name in names:
        if not _NAME.fullmatch(name) or names.count(name) > 1:
            raise CheckpointError(
                f"{name!r} cannot be a name in the lab: names differ, and are of letters, digits, "
                "'.', '_' and '-'."
            )
    out = Path(out)
    # It is written last: a page never sees a list of pieces that are not there.
    manifest = {
        "sampleRate": SAMPLE_RATE,
        "networks": [_write_network(network, out) for network in networks],
        "clips": [_write_clip(clip, out) for clip in clips],
    }
    write_script(out, "manifest", manifest)
    return manifest


def facts(network: LabNetwork) -> list[str]:
    """How a network was trained, as far as its card tells, how well it does, and its size."""
    card, encoder = network.card, network.encoder
    task = str(card.get("task") or "")
    settings = card.get("config") or {}
    trained = _TRAINED.get(str(settings.get("objective") or task.replace(" ", "_")))
    if trained and card.get("classes"):
        trained += f" ({len(card['classes'])} classes)"
    told = task[:1].upper() + task[1:].rstrip(".") or "Its card does not tell how it was trained"
    data, licence = card.get("data"), card.get("licence_of_data")
    sentences = [trained or told, data and f"Its data: {data}"]
    accuracy = card.get("test", {}).get("accuracy", card.get("test_accuracy"))
    if accuracy is not None:
        chance = f" (chance: {100 * card['chance']:.3g} %)" if card.get("chance") else ""
        sentences.append(f"It names {100 * accuracy:.1f} % of unseen clips right{chance}")
    weights = sum(p.numel() for p in encoder.parameters())
    sentences.append(f"CNN12 at width {encoder.width:g}, {weights:,} weights")
    sentences.append(licence and f"Licence of the data: {licence}")
    return [f"{sentence}." for sentence in sentences if sentence]


def _write_network(network: LabNetwork, out: Path) -> dict[str, Any]:
    """Write a piece for each layer: the biases, then the weights (filter, channel, tap)."""
    plain = network.encoder.fold()
    blocks, weights = blocks_of(plain), plain.state_dict()
    layers = []
    for layer, block in enumerate(blocks, start=1):
        parts = (weights[f"features.conv{layer}.{part}"] for part in ("bias", "weight"))
        half = torch.cat([part.cpu().half().flatten() for part in parts])
        if not torch.isfinite(half).all():
            raise CheckpointError(
                f"{network.name}: layer {layer} has weights that float16 cannot hold."
            )
        content = half.numpy().astype("<f2").tobytes()
        layers.append(
            {
                "channels": block.conv.out_channels,
                "taps": int(block.conv.kernel_size[0]),
                "pool": block.pool,
                "stride": stride(blocks, layer),
                "receptiveField": receptive_field(blocks, layer),
                **_write_piece(out, f"{network.name}-{layer:02d}", content),
            }
        )
    return {
        "name": network.name,
        "title": network.name.replace("_", " ").replace("-", " ").capitalize(),
        "trained": bool(network.card.get("trained", True)),
        "facts": facts(network),
        "leastLength": network.encoder.least_length,
        "layers": layers,
        "head": _write_head(network, out),
    }


def _write_head(network: LabNetwork, out: Path) -> dict[str, Any] | None:
    """Write what makes logits of the last block's mean maps: biases, then (class, channel)."""
    classifier = network.network
    if not isinstance(classifier, Classifier):
        return None
    # The two linear layers behind the mean are one, for dropout is off.
    affine = nn.Sequential(classifier.encoder.fc1, classifier.head)
    affine = copy.deepcopy(affine).cpu().double().eval()
    with torch.no_grad():
        eye = torch.eye(classifier.encoder.channels, dtype=torch.float64)
        bias = affine(0 * eye[:1])
        values = torch.cat([bias.flatten(), (affine(eye) - bias).T.flatten()])
    settings = network.card.get("config") or {}
    return {
        "classes": [name.replace("_", " ") for name in classifier.classes],
        "several": settings.get("objective") == "binary_cross_entropy",
        **_write_piece(out, f"{network.name}-head", values.numpy().astype("<f4").tobytes()),
    }


def _write_clip(clip: LabClip, out: Path) -> dict[str, Any]:
    x = as_waveform(clip.waveform)
    samples = np.clip(np.rint(x * 32768), -32768, 32767).astype("<i2")
    return {
        "name": clip.name,
        "title": clip.title,
        "credit": clip.credit,
        **_write_piece(out, clip.name, samples.tobytes()),
    }


def _write_piece(out: Path, stem: str, content: bytes) -> dict[str, Any]:
    """Write bytes as a script; what the manifest says of them."""
    digest = hashlib.sha256(content).hexdigest()
    piece = f"{stem}-{digest[:8]}"
    write_script(out, piece, base64.b64encode(content).decode())
    return {"piece": piece, "bytes": len(content), "sha256": digest}


def write_script(folder: Path, name: str, content: object) -> None:
    """Write a script, ``NAME.js``, that hands `content` over under its name; atomically."""
    arguments = ", ".join(
        json.dumps(value, allow_nan=False, separators=(",", ":")) for value in (name, content)
    )
    write_text(folder / f"{name}.js", f"sonibookLab.receive({arguments});\n")


def write_page(folder: Path, name: str, **fields: str) -> None:
    """Write a page that lies beside this file, with its script and style; its braces are filled."""
    for kind, target in (("html", "index.html"), ("js", f"{name}.js"), ("css", f"{name}.css")):
        text = text_of(f"{name}.{kind}")
        text = text.format(**fields) if kind == "html" else script() * (kind == "js") + text
        write_text(folder / target, text)
