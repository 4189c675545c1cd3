"""What is heard in the lab, as its page tells scripts, and how it is held against Python."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy import ndarray
from torch import nn

from sonibook.audio import pad
from sonibook.deconvnet.backward import ForwardPass
from sonibook.metrics.similarity import mean_top_coherence
from sonibook.model.checkpoint import load_classifier, load_encoder
from sonibook.model.encoder import CNN12

#: What is heard, and what the page says; sounds as base64 of float32.
HEARD = """() => {
    const { state, ranking, filters, notices, coherence } = sonibookLab.heard;
    const { input, sound, residual } = sonibookLab.heard;
    const packed = (x) => {
        const bytes = new Uint8Array(x.buffer);
        let text = "";
        for (let n = 0; n < bytes.length; n += 32768) {
            text += String.fromCharCode(...bytes.subarray(n, n + 32768));
        }
        return btoa(text);
    };
    return {
        ...state, chosen: [...state.chosen], ranking, filters, notices, coherence,
        input: packed(input), sound: packed(sound), residual: packed(residual),
    };
}"""
#: True once all that was asked for is heard.
READY = "window.sonibookLab?.heard"
#: True once the network has said what all of it is.
SAID = "window.sonibookLab?.said"


def received(folder: Path, name: str) -> Any:
    """What a script of a page hands over under its name."""
    text = (folder / f"{name}.js").read_text(encoding="utf-8")
    start = f'sonibookLab.receive("{name}",'
    assert text.startswith(start)
    assert text.endswith(");\n")
    return json.loads(text[len(start) : -3])


def decoded(flac: str) -> tuple[np.ndarray, int]:
    """A sound of a page, and its rate."""
    return soundfile.read(io.BytesIO(base64.b64decode(flac)))


def unpacked(found: dict[str, Any]) -> dict[str, Any]:
    """What `HEARD` gives, with its sounds as arrays."""
    sounds = {
        name: np.frombuffer(base64.b64decode(found[name]), "f4").copy()
        for name in ("input", "sound", "residual")
    }
    return {**found, **sounds}


@contextlib.contextmanager
def without(encoder: CNN12, layer: int, filters: list[int]) -> Iterator[None]:
    """The maps of these filters are zero on the way up."""

    def silence(_module: nn.Module, _given: object, maps: torch.Tensor) -> torch.Tensor:
        return maps.index_fill(1, torch.tensor(filters, dtype=torch.long), 0)

    names = [name for name in (f"mp{layer}", f"act{layer}") if hasattr(encoder.features, name)]
    handle = encoder.features.get_submodule(names[0]).register_forward_hook(silence)
    yield
    handle.remove()


def assert_names(heard: dict[str, Any], shares: dict[str, list[float]]) -> None:
    """What the network says of all that is heard, and without the filters, is what Python says."""
    classifier = load_classifier(heard["network"]).double()

    def says(x: ndarray) -> ndarray:
        long_enough = pad(x, classifier.encoder.least_length).astype("f8")
        with torch.no_grad():
            logits = classifier(torch.from_numpy(long_enough)[None, None])
        return logits.softmax(dim=1)[0].numpy()

    for name in ("input", "sound", "residual"):
        np.testing.assert_allclose(shares[name], says(heard[name]), atol=1e-5, err_msg=name)
    removed = heard["chosen"] if heard["way"] in ("only", "without") else [heard["filter"]]
    if heard["way"] != "layer":
        with without(classifier.encoder, heard["layer"], removed):
            np.testing.assert_allclose(shares["without"], says(heard["input"]), atol=1e-5)


def assert_sonifies(heard: dict[str, Any]) -> None:
    """What is heard equals what Python computes, but where rounding turned a switch."""
    encoder, x = load_encoder(heard["network"]), heard["input"]
    passed = ForwardPass(encoder, x)
    maps = passed.maps[heard["layer"] - 1].clone()
    if heard["filters"] is not None:
        maps[:, np.setdiff1d(np.arange(maps.shape[1]), heard["filters"])] = 0
    expected = passed.backward(heard["layer"], maps)[0, 0].numpy()
    expected *= np.abs(x).max() / np.abs(expected).max()
    sound = heard["sound"]
    difference = np.abs(sound - expected)
    cosine = sound @ expected / np.linalg.norm(sound) / np.linalg.norm(expected)
    assert cosine > 0.999
    # One turned switch at the loudest sample changes the scale of all the others.
    assert np.quantile(difference, 0.9) < 1e-5 or cosine > 0.99999
    np.testing.assert_allclose(heard["residual"], x - sound, atol=1e-6)
    both = (torch.from_numpy(signal.astype("f8")) for signal in (x, sound))
    assert heard["coherence"] == pytest.approx(float(mean_top_coherence(*both)), abs=1e-6)
