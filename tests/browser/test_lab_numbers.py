"""The lab's JavaScript and WebAssembly compute what Python computes."""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
import torch
import torch.nn.functional as F
from firefox import Firefox
from heard import without
from numpy import ndarray

from sonibook.audio import read_audio
from sonibook.cli.networks import main_networks
from sonibook.datasets.soundscapes import Soundscapes
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.metrics.similarity import mean_top_coherence
from sonibook.model.checkpoint import load_encoder, shipped
from sonibook.model.encoder import CNN12
from sonibook.plots.sound import describe, power_spectrogram

TOOL = Path(__file__).parents[2] / "tools" / "lab.py"
RATE = 8000
LAYERS = range(1, 12)
NETWORKS = (*main_networks(shipped()), "random")
Run = Callable[..., Any]


@pytest.fixture(scope="session")
def tool() -> Any:
    """``tools/lab.py``, which is not part of the library."""
    spec = importlib.util.spec_from_file_location("lab_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def in_chromium(browser: Any, tool: Any) -> Iterator[Run]:
    """Runs a function on an empty page on which everything of the lab but the page itself is."""
    yield from on_a_page(browser.new_page(), tool)


@pytest.fixture(scope="module")
def in_firefox(firefox: Firefox, tool: Any) -> Iterator[Run]:
    """The same in Firefox."""
    firefox.goto("about:blank")
    yield from on_a_page(firefox, tool)


@pytest.fixture(params=["in_chromium", "in_firefox"])
def run(request: pytest.FixtureRequest) -> Run:
    """Each of them."""
    return request.getfixturevalue(request.param)


def on_a_page(page: Any, tool: Any) -> Iterator[Run]:
    page_only = ("model.js", "view.js", "classes.js", "page.js")
    modules = (name for name in (*tool.WORKER[:-1], *tool.PAGE) if name not in page_only)
    modules = tuple(dict.fromkeys(modules))
    names = (
        "Engine, resample, fourier, powerSpectrogram, meanTopCoherence, fromBase64, wavOf, toLink, "
        "fromLink, decode, prepared, described"
    )
    script = tool.bundle(modules, {}, f"Object.assign(window, {{ {names} }});")
    page.add_script_tag(content=script)
    page.evaluate(
        """() => {
            const bytes = (text) => fromBase64(text).buffer;
            window.floats = (text) => new Float32Array(bytes(text));
            window.packed = (view) => {
                const all = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
                let text = "";
                for (let n = 0; n < all.length; n += 32768) {
                    text += String.fromCharCode(...all.subarray(n, n + 32768));
                }
                return btoa(text);
            };
        }"""
    )
    yield page.evaluate
    page.goto("about:blank")


def packed(x: ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()


def unpacked(text: str, kind: str = "f4") -> ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def network(name: str) -> CNN12:
    """As it is published: float32 with float16 values."""
    if name != "random":
        return load_encoder(name)
    encoder = CNN12(width=0.25, seed=0).eval()
    encoder.load_state_dict({key: t.half().float() for key, t in encoder.state_dict().items()})
    return encoder


def scene(index: int = 3) -> ndarray:
    return Soundscapes(seed=0, size=30, split="test")[index].waveform


def sounds(name: str, run: Run, request: pytest.FixtureRequest) -> ndarray:
    """Clips of all kinds; a recording goes through the page's own decoder and resampler."""
    if name == "soundscape":
        return scene()
    if name == "half silent":
        return np.concatenate([scene(27)[:12000], np.zeros(12001, np.float32)])
    if name == "short":
        return scene()[8000:9000]
    folder = request.getfixturevalue("data_root") / "formats"
    path = min(folder.glob("*.ogg"), key=lambda path: path.name)
    return in_page(run, path.name, path.read_bytes())["samples"][:24000]


def in_page(run: Run, name: str, data: bytes) -> dict[str, Any]:
    """A file as the lab takes it: its samples and its notices, or its one sentence of refusal."""
    found = run(
        """async ([name, data]) => {
            try {
                const recording = await decode(new File([fromBase64(data)], name));
                const resampled = (x, from) => resample(x, from, 8000);
                const { samples, notices } = await prepared(name, recording, resampled);
                return { samples: packed(samples), notices, rate: recording.rate };
            } catch (error) { return { refused: error.message }; }
        }""",
        [name, base64.b64encode(data).decode()],
    )
    return {**found, "samples": unpacked(found["samples"])} if "samples" in found else found


def start(run: Run, tool: Any, encoder: CNN12, x: ndarray) -> None:
    """An engine on the page, with an encoder's weights and a clip."""
    layers, halves = [], []
    for number, module in enumerate(encoder.features, start=1):
        if isinstance(module, torch.nn.Conv1d):
            half = torch.cat([module.bias.flatten(), module.weight.flatten()]).half()
            halves.append(packed(half.detach().numpy()))
            pools = isinstance(encoder.features[min(number + 1, 29)], torch.nn.MaxPool1d)
            taps = module.kernel_size[0]
            layers.append({"channels": module.out_channels, "taps": taps, "pool": 1 + pools})
    run(
        """([wasm, layers, least, halves, x]) => {
            const module = new WebAssembly.Module(fromBase64(wasm));
            window.engine = new Engine(module, layers, least);
            halves.forEach((half, n) => (
                engine.setWeights(n + 1, new Uint16Array(fromBase64(half).buffer))
            ));
            engine.setClip(floats(x));
        }""",
        [
            base64.b64encode(tool.WASM.read_bytes()).decode(),
            layers,
            encoder.least_length,
            halves,
            packed(x),
        ],
    )


def in_engine(run: Run, layer: int) -> dict[str, Any]:
    """A layer's map, (channel, time), its switches and its energies, as the engine holds them."""
    found = run(
        """(layer) => {
            const energies = [...engine.energies(layer)];
            const { map, switches, steps, wide, channels } = engine.layers[layer - 1];
            const bytes = new Uint8Array(engine.wasm.memory.buffer);
            return {
                energies, steps, wide, channels,
                map: packed(engine.floats(map, steps * wide)),
                switches: switches ? packed(bytes.subarray(switches, switches + steps * wide)) : "",
            };
        }""",
        layer,
    )
    shape, count = (found["steps"], found["wide"]), found["channels"]
    found["map"] = unpacked(found["map"]).reshape(shape)[:, :count].T
    if found["switches"]:
        found["switches"] = unpacked(found["switches"], "u1").reshape(shape)[:, :count].T > 0
    return found


def error(a: ndarray, b: ndarray) -> float:
    """The largest difference, relative to the peak of `b`."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def ways(kept: dict[str, Any], clip: str) -> list[list[int] | None]:
    """Which filters of a layer are sonified: the loudest, all; of one clip some more."""
    order = np.argsort(kept["energies"])[::-1].tolist()
    more = [[order[len(order) // 3]], order[:3]] if clip == "soundscape" else []
    return [[order[0]], *more, None]


def pooled(run: Run, layer: int = 0, filters: Sequence[int] = ()) -> ndarray:
    """The last block's mean maps, without filters of a layer."""
    removed = {"layer": layer, "filters": list(filters)} if layer else None
    return np.array(run("(removed) => [...engine.pooled(removed)]", removed))


SONIFY = "([layer, filters]) => packed(engine.sonify(layer, filters))"
CLIPS = ("soundscape", "recording", "half silent", "short")
#: Every clip through one network, and every network on one clip: both go through the same code.
PAIRS = [*((NETWORKS[0], clip) for clip in CLIPS), *((name, CLIPS[0]) for name in NETWORKS[1:])]


@pytest.mark.parametrize(("name", "clip"), PAIRS)
def test_engine_equals_python_at_every_layer(
    in_chromium: Run, tool: Any, name: str, clip: str, request: pytest.FixtureRequest
) -> None:
    run = in_chromium
    encoder, x = network(name), sounds(clip, run, request)
    start(run, tool, encoder, x)
    # Beyond the network's least length no zeros are added, and no warning is given.
    longer = np.pad(x, (0, max(encoder.least_length - len(x), 0)))
    oracle = ForwardPass(encoder.double(), longer.astype(np.float64))
    expected = [oracle.x, *FeatureMaps(encoder, longer.astype(np.float64)).maps]
    kept = [in_engine(run, layer) for layer in LAYERS]
    for layer, found in zip(LAYERS, kept, strict=True):
        reference = expected[layer][0].numpy()
        assert error(found["map"], reference) < 1e-5, layer
        energies = np.square(found["map"].astype(np.float64)).mean(axis=1)
        np.testing.assert_allclose(found["energies"], energies, rtol=1e-9)
        if oracle.switches[layer - 1] is not None:
            # Rounding turns a few, where the two steps are as good as equal. Both sonifications
            # are right then, but not the same.
            steps = F.relu(oracle.blocks[layer - 1].conv(expected[layer - 1]))[0].detach().numpy()
            chosen = 2 * np.arange(reference.shape[1]) + found["switches"]
            assert error(np.take_along_axis(steps, chosen, axis=1), reference) < 1e-5
            oracle.switches[layer - 1] = torch.from_numpy(found["switches"].copy())[None]
        oracle.maps[layer - 1] = torch.from_numpy(found["map"].astype(np.float64))[None]
    for layer, found in zip(LAYERS, kept, strict=True):
        maps = oracle.maps[layer - 1]
        for filters in ways(found, clip):
            sound = unpacked(run(SONIFY, [layer, filters]))
            begun = maps.clone()
            if filters is not None:
                begun[:, np.setdiff1d(np.arange(maps.shape[1]), filters)] = 0
            reference = oracle.backward(layer, begun)[0, 0, : len(x)].numpy()
            if np.abs(reference).max() == 0:
                assert not sound.any()
            else:
                assert error(sound, reference) < 1e-5, (layer, filters)
    # What a classifier goes on from, of the clip and without filters of one layer after another.
    given = torch.from_numpy(longer.astype(np.float64))[None, None]
    whole = encoder.pooled(given)[0].detach().numpy()
    near = {"rtol": 0, "atol": 1e-5 * whole.max()}
    np.testing.assert_allclose(pooled(run), whole, **near)
    for layer, found in zip(LAYERS, kept, strict=True):
        order = np.argsort(found["energies"])[::-1].tolist()
        removed = order[: 1 if layer % 2 else len(order) // 3]
        with without(encoder, layer, removed):
            reference = encoder.pooled(given)[0].detach().numpy()
        np.testing.assert_allclose(pooled(run, layer, removed), reference, **near)
    assert error(in_engine(run, 11)["map"], expected[11][0].numpy()) < 1e-5, "the clip's own maps"


@pytest.mark.parametrize(("name", "clip"), PAIRS)
def test_firefox_computes_the_very_numbers_of_chromium(
    in_chromium: Run,
    in_firefox: Run,
    tool: Any,
    name: str,
    clip: str,
    request: pytest.FixtureRequest,
) -> None:
    encoder, x = network(name), sounds(clip, in_firefox, request)
    for run in (in_chromium, in_firefox):
        start(run, tool, encoder, x)
    for layer in LAYERS:
        one, other = (in_engine(run, layer) for run in (in_chromium, in_firefox))
        assert one["energies"] == other["energies"]
        np.testing.assert_array_equal(one["map"], other["map"])
        np.testing.assert_array_equal(one["switches"], other["switches"])
        for filters in ways(one, clip):
            sounds_of = [run(SONIFY, [layer, filters]) for run in (in_chromium, in_firefox)]
            assert sounds_of[0] == sounds_of[1], (layer, filters)


# Signals


@pytest.mark.parametrize("rate", [44100, 48000, 96000, 22050, 11025, 4000, 44056])
def test_resampling_keeps_what_fits_and_drops_what_does_not(run: Run, rate: int) -> None:
    rng = np.random.default_rng(rate)
    seconds, nyquist = 1.0, min(rate, RATE) / 2
    hertz, phase = rng.uniform(20, 0.9 * nyquist, 40), rng.uniform(0, 6.28, 40)

    def tones(at: int) -> ndarray:
        t = np.arange(round(seconds * at)) / at
        return np.sin(2 * np.pi * hertz[:, None] * t + phase[:, None]).mean(axis=0)

    def resampled(x: ndarray) -> ndarray:
        text = run(
            "([x, rate]) => packed(resample(floats(x), rate, 8000))", [packed(x.astype("f4")), rate]
        )
        return unpacked(text)

    y, exact = resampled(tones(rate)), tones(RATE)
    assert len(y) == RATE
    inside = slice(200, -200)  # the sound begins and ends abruptly
    assert error(y[inside], exact[inside]) < 1e-4
    theirs = soxr.resample(tones(rate).astype("f4"), rate, RATE, quality="VHQ")
    assert error(y[inside], theirs[inside]) < 1e-3
    for factor in (1.02, 1.3, 1.8):
        if factor * RATE / 2 < rate / 2:
            high = np.sin(2 * np.pi * factor * RATE / 2 * np.arange(rate) / rate)
            assert np.abs(resampled(high)[inside]).max() < 2e-5, factor


def test_spectra_equal_numpy_and_python(run: Run) -> None:
    rng = np.random.default_rng(1)
    z = rng.standard_normal(256) + 1j * rng.standard_normal(256)
    re, im = run(
        """([re, im]) => {
            const parts = [Float64Array.from(re), Float64Array.from(im)];
            fourier(...parts);
            return parts.map((part) => [...part]);
        }""",
        [z.real.tolist(), z.imag.tolist()],
    )
    np.testing.assert_allclose(np.array(re) + 1j * np.array(im), np.fft.fft(z), atol=1e-11)
    x = scene()[:9001]
    power = unpacked(run("(x) => packed(powerSpectrogram(floats(x)))", packed(x)))
    reference = power_spectrogram(x)
    assert error(power.reshape(-1, 129).T, reference) < 1e-5
    assert run("(x) => described(powerSpectrogram(floats(x)), 8000)", packed(x)) == describe(x)
    assert run("() => described(powerSpectrogram(new Float32Array(900)), 8000)") == "silence"


@pytest.mark.parametrize("samples", [384, 1000, 40000])
def test_coherence_equals_scipy_and_python(run: Run, samples: int) -> None:
    rng = np.random.default_rng(samples)
    x = rng.standard_normal(samples).astype("f4")
    y = (scipy.signal.lfilter([1, -0.5], [1, 0.3], x) + rng.standard_normal(samples)).astype("f4")
    script = "([x, y]) => meanTopCoherence(floats(x), floats(y)) || 'none'"
    found = run(script, [packed(x), packed(y)])
    _, values = scipy.signal.coherence(x.astype("f8"), y.astype("f8"), fs=RATE)
    assert found == pytest.approx(np.sort(values)[-5:].mean(), abs=1e-9)
    double = (torch.from_numpy(signal.astype("f8")) for signal in (x, y))
    assert found == pytest.approx(float(mean_top_coherence(*double)), abs=1e-9)
    assert run(script, [packed(x), packed(0 * x)]) == "none"
    assert run(script, [packed(x[:383]), packed(y[:383])]) == "none"


def test_wav_files_are_read_by_others(run: Run) -> None:
    x = np.random.default_rng(2).uniform(-1.2, 1.2, 1001).astype("f4")
    text = run(
        """async (x) => packed(new Uint8Array(
            await wavOf(floats(x), { rate: 8000, gain: 0.5 }).arrayBuffer()))""",
        packed(x),
    )
    y, rate = soundfile.read(io.BytesIO(base64.b64decode(text)))
    assert rate == RATE
    np.testing.assert_allclose(y, 0.5 * x, atol=0.51 / 32768)


def test_links_bring_back_what_they_were_made_of(run: Run) -> None:
    state = {"network": "a-b.c", "clip": "scene-3", "layer": 8, "filter": 17, "way": "only"}
    script = "(s) => fromLink(toLink({ ...s, chosen: new Set(s.chosen) }))"
    back = run(f"(s) => {{ const b = ({script})(s); return {{ ...b, chosen: [...b.chosen] }}; }}",
               {**state, "chosen": [3, 17]})  # fmt: skip
    assert back == {**state, "chosen": [3, 17]}
    broken = "#layer=eight&filter=-1&hear=loud&chosen=1.x&network=&clip=%3Cb%3E"
    assert run("(link) => fromLink(link)", broken) == {"clip": "<b>"}


# Files


@pytest.mark.parametrize(
    ("kind", "rate"),
    [("WAV", 8000), ("WAV", 44100), ("FLAC", 96000), ("OGG", 22050), ("MP3", 32000)],
)
def test_a_file_is_decoded_at_its_own_rate(run: Run, kind: str, rate: int) -> None:
    t = np.arange(rate) / rate
    x = 0.3 * np.sin(2 * np.pi * 500 * t)[:, None] * np.array([1.0, 0.5])
    file = io.BytesIO()
    soundfile.write(file, x, rate, format=kind)
    found = in_page(run, "tone", file.getvalue())
    assert found["rate"] == rate
    assert len(found["samples"]) == pytest.approx(RATE, abs=600)  # an MP3 is padded
    assert np.abs(found["samples"]).max() == pytest.approx(1.0)


def test_a_recording_comes_out_as_in_python(run: Run, data_root: Path) -> None:
    for path in sorted((data_root / "formats").glob("*.ogg"))[:3]:
        found, reference = in_page(run, path.name, path.read_bytes()), read_audio(path)
        assert found["rate"] == soundfile.info(path).samplerate == 44100
        assert len(found["samples"]) == len(reference)
        # The two low-passes differ above 3.6 kHz; both scale by a peak that may lie there.
        low = scipy.signal.firwin(401, 3500, fs=RATE)
        a, b = (scipy.signal.lfilter(low, 1, x) for x in (found["samples"], reference))
        gain = (a @ b) / (a @ a)
        assert gain == pytest.approx(1.0, abs=0.05)
        assert np.linalg.norm(gain * a - b) < 1e-3 * np.linalg.norm(b)
