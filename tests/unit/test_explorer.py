"""The explorer without a browser: its widgets are moved from Python, and what they show is read."""

from __future__ import annotations

import base64
import io
import re
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from sonibook import CNN12, ForwardPass, open_dataset, sonify
from sonibook.errors import AudioError, LayerError, SonibookWarning, StackError
from sonibook.model.encoder import Classifier
from sonibook.show import Explorer
from sonibook.widgets.view import Exploration

RATE = 8000


def noise(seed: int, seconds: float = 1.0, peak: float = 1.0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(int(seconds * RATE)).astype("f4")
    return x * np.float32(peak) / np.abs(x).max()


@pytest.fixture(scope="module")
def encoder() -> CNN12:
    """A network that has silent filters in some layers, and not in all."""
    network = CNN12(width=0.25, seed=0).eval()
    with torch.no_grad():
        network.features.conv2.bias[3] = -1e6
        network.features.conv2.bias[5] = -1e6
    return network


@pytest.fixture
def explorer(encoder: CNN12) -> Explorer:
    return Explorer(encoder, {"first": noise(0), "second": noise(1, 0.8, peak=0.5)})


def test_a_classifier_says_what_it_hears_and_misses(encoder: CNN12) -> None:
    classes = ("dog", "church_bells", "rain")
    classifier = Classifier(encoder, classes, seed=1).eval()
    classifier.head.weight.data *= 30  # so that it is sure of something
    x = noise(3, 0.2)  # shorter than the network's receptive field
    explorer = Explorer({"a": encoder, "b": classifier}, {"x": x})
    assert "hears" not in explorer.view.info.value
    explorer.network.value = "b"
    for layer in (3, 11):
        explorer.layer.value = layer
        sounds = [x, explorer.sonification, x]

        def silence(_module: object, _given: object, maps: torch.Tensor) -> torch.Tensor:
            return maps.index_fill(1, torch.tensor([explorer.filter]), 0)

        said = []
        for number, sound in enumerate(sounds):
            block = encoder.features.get_submodule({3: "mp3", 11: "act11"}[layer])
            handle = block.register_forward_hook(silence) if number == 2 else None
            padded = np.pad(sound, (0, max(encoder.least_length - len(sound), 0)))
            shares = classifier(torch.from_numpy(padded)[None, None]).softmax(dim=1)[0].detach()
            said.append(f"{classes[shares.argmax()].replace('_', ' ')} ({float(shares.max()):.0%})")
            if handle is not None:
                handle.remove()
        first, second, third = said
        assert explorer.view.info.value.endswith(
            f"The network hears {first}, in the sonification {second}, "
            f"without the filter {third}.</p>"
        )


def players(explorer: Explorer, network: str | None = None) -> list[np.ndarray]:
    """What the three players of a network play."""
    listening = (explorer.views[network] if network else explorer.view).listening
    wavs = (listening.input, listening.sonification, listening.residual)
    return [soundfile.read(io.BytesIO(wav))[0] for wav in wavs]


def upload(explorer: Explorer, name: str, content: bytes) -> None:
    """As the browser does it."""
    explorer.upload.value = (
        {
            "name": name,
            "type": "audio/wav",
            "size": len(content),
            "content": memoryview(content),
            "last_modified": datetime.now(UTC),
        },
    )


def wav(x: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, x, rate, "FLOAT", format="WAV")
    return file.getvalue()


def state(explorer: Explorer) -> tuple[Any, ...]:
    """All that a reader sees and hears, but for the notice."""
    return (
        explorer.clip.value, explorer.layer.value, explorer.rank.value, explorer.view.info.value,
        explorer.view.listening.sonification,
    )  # fmt: skip


def check(explorer: Explorer, encoder: CNN12, x: np.ndarray) -> None:
    """What is heard is the input and `sonify`'s output, at one gain."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SonibookWarning)
        expected = sonify(encoder, x, layer=explorer.layer.value, filters=[explorer.filter])[0]
    np.testing.assert_allclose(explorer.sonification, expected, atol=1e-6)
    gain = 0.5 / np.abs(x).max()
    parts = (x, expected.numpy(), x - expected.numpy())
    for heard, part in zip(players(explorer), parts, strict=True):
        np.testing.assert_allclose(heard, gain * part, atol=1.6 / 32768)
    assert (
        f"layer {explorer.layer.value}, filter {explorer.filter}" in explorer.view.listening.about
    )
    assert f"filter {explorer.filter}" in explorer.view.info.value


def static_form(networks: dict[str, torch.nn.Module], x: np.ndarray, name: str) -> str:
    return Explorer(networks, {name: x})._repr_mimebundle_()["text/html"]


def test_it_begins_with_the_loudest_filter_of_the_first_layer(
    explorer: Explorer, encoder: CNN12
) -> None:
    assert explorer.filter == ForwardPass(encoder, noise(0)).most_active(1)[0]
    assert (explorer.layer.min, explorer.layer.max) == (1, 11)
    assert explorer.rank.max == 16
    check(explorer, encoder, noise(0))


@pytest.mark.parametrize("layer", [2, 4, 8, 11])
def test_the_layer_slider_changes_everything(
    explorer: Explorer, encoder: CNN12, layer: int
) -> None:
    before = state(explorer)
    explorer.layer.value = layer
    assert all(new != old for new, old in zip(state(explorer)[3:], before[3:], strict=True))
    assert explorer.rank.value == 1
    assert explorer.rank.max == ForwardPass(encoder, noise(0)).maps[layer - 1].shape[1]
    check(explorer, encoder, noise(0))


def test_ranks_go_down_in_energy_and_silent_filters_are_last(
    explorer: Explorer, encoder: CNN12
) -> None:
    explorer.layer.value = 2
    energy = ForwardPass(encoder, noise(0)).energy(2)[0]
    filters = []
    for rank in range(1, explorer.rank.max + 1):
        explorer.rank.value = rank
        filters.append(explorer.filter)
        share = float(energy[explorer.filter] / energy.sum())
        said = f"{share:.1%}" if share else "silent on this clip"
        assert said in explorer.view.info.value
    assert sorted(filters) == list(range(16))
    assert (energy[filters].diff() <= 0).all()
    assert filters[-2:] == [3, 5]


def test_a_silent_filter_is_silent_and_said_to_be(explorer: Explorer, encoder: CNN12) -> None:
    explorer.layer.value = 2
    explorer.rank.value = 16
    assert not explorer.sonification.any()
    assert "silent" in explorer.notice.value
    assert "as 2 of the layer" in explorer.view.info.value
    check(explorer, encoder, noise(0))
    explorer.rank.value = 1
    assert "silent" not in explorer.notice.value


def test_another_clip_keeps_the_layer(explorer: Explorer, encoder: CNN12) -> None:
    explorer.layer.value = 4
    explorer.rank.value = 7
    explorer.clip.value = "second"
    assert (explorer.layer.value, explorer.rank.value) == (4, 1)
    check(explorer, encoder, noise(1, 0.8, peak=0.5))


def test_one_forward_pass_a_clip(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = ForwardPass.__init__

    def counted(self: ForwardPass, *arguments: Any, **options: Any) -> None:
        made.append(1)
        original(self, *arguments, **options)

    monkeypatch.setattr(ForwardPass, "__init__", counted)
    for layer in (3, 8, 11):
        explorer.layer.value = layer
        explorer.rank.value = 2
    assert made == []
    explorer.clip.value = "second"
    assert made == [1]


def test_a_data_set_can_be_explored(encoder: CNN12) -> None:
    data = open_dataset("soundscapes", size=3, duration=1.0, split="test")
    explorer = Explorer(encoder, data)
    assert len(explorer.clip.options) == 3
    assert data.classes[data.labels(1)[0]] in explorer.clip.options[1][0]
    explorer.clip.value = "2"
    check(explorer, encoder, data[2].waveform)


def test_sounds_have_the_rate_of_the_network(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 9, stride=2), torch.nn.ReLU())
    network.sample_rate = 16_000
    t = np.arange(44_100) / 44_100
    soundfile.write(tmp_path / "tone.wav", np.sin(2 * np.pi * 6000 * t), 44_100)
    explorer = Explorer(network, open_dataset("folder", root=tmp_path))
    x, rate = soundfile.read(io.BytesIO(explorer.view.listening.input))
    assert (rate, len(x), explorer.view.listening.rate) == (16_000, 16_000, 16_000)
    # Above what 8 kHz can hold, the tone is there.
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))
    assert spectrum.argmax() == pytest.approx(6000, abs=2)
    upload(explorer, "again.wav", (tmp_path / "tone.wav").read_bytes())
    assert len(explorer.x) == 16_000
    assert soundfile.info(io.BytesIO(explorer.view.listening.sonification)).samplerate == 16_000
    assert 'rate="16000"' in explorer._repr_mimebundle_()["text/html"]
    with pytest.raises(ValueError, match=r"wide 16,000 Hz, narrow 8,000 Hz"):
        Explorer({"wide": network, "narrow": CNN12(width=1 / 16, seed=0)}, {"x": noise(0)})


def test_your_own_file_is_heard(explorer: Explorer, encoder: CNN12) -> None:
    explorer.layer.value = 3
    x = noise(7, 0.7, peak=0.3)
    upload(explorer, "mine.wav", wav(x))
    assert explorer.clip.value == "your file: mine.wav"
    assert explorer.layer.value == 3
    check(explorer, encoder, x / np.abs(x).max())
    explorer.clip.value = "first"
    explorer.clip.value = "your file: mine.wav"
    check(explorer, encoder, x / np.abs(x).max())


def test_your_own_file_may_come_again_and_at_another_rate(
    explorer: Explorer, encoder: CNN12
) -> None:
    upload(explorer, "mine.wav", wav(noise(8, 0.5)))
    upload(explorer, "mine.wav", wav(np.stack([noise(9, 2.0)] * 2, axis=1), rate=16_000))
    assert [name for name, _ in explorer.clip.options].count("your file: mine.wav") == 1
    assert explorer.x.shape == (RATE,)
    check(explorer, encoder, explorer.x)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"this is not a sound", "cannot be read as sound"),
        (b"", "cannot be read as sound"),
        (wav(np.zeros(100, "f4")), "silent"),
        (wav(np.array([0.0, np.nan], "f4")), "NaN"),
        (wav(np.zeros(0, "f4")), "no samples"),
    ],
    ids=["text", "no bytes", "silence", "NaN", "no samples"],
)
def test_a_bad_file_is_told_and_changes_nothing(
    explorer: Explorer, encoder: CNN12, content: bytes, said: str
) -> None:
    explorer.layer.value = 4
    explorer.rank.value = 3
    before = state(explorer)
    upload(explorer, "folder/bad.wav", content)
    assert said in explorer.notice.value
    assert "bad.wav" in explorer.notice.value
    assert "tmp" not in explorer.notice.value
    assert state(explorer) == before
    explorer.rank.value = 4
    assert explorer.notice.value == '<div role="status"></div>'
    check(explorer, encoder, noise(0))


def test_a_clip_that_cannot_be_read_leaves_the_last_one(encoder: CNN12) -> None:
    explorer = Explorer(encoder, {"good": noise(0), "bad": np.zeros(0, "f4")})
    before = state(explorer)
    explorer.clip.value = "bad"
    assert "no samples" in explorer.notice.value
    assert state(explorer) == before


def test_a_short_clip_is_padded_and_said_to_be(encoder: CNN12) -> None:
    explorer = Explorer(encoder, {"short": noise(0, 0.1)})
    assert "padded with zeros" in explorer.notice.value
    assert explorer.sonification.shape == (800,)
    explorer.layer.value = 5
    assert "padded with zeros" in explorer.notice.value


def test_a_long_clip_is_cut_and_said_to_be(encoder: CNN12) -> None:
    x = np.zeros(40 * RATE, "f4")
    x[35 * RATE :] = noise(1, 5.0)
    exploration = Exploration(encoder.truncate(3), x, sample_rate=RATE)
    assert len(exploration.x) == 30 * RATE
    assert "longer than 30 s" in exploration.notices[0]
    assert float(np.abs(exploration.x).max()) == 1.0


def test_other_warnings_are_not_swallowed(encoder: CNN12) -> None:
    exploration = Exploration(encoder, noise(0), sample_rate=RATE)

    def speak(*_: Any) -> torch.Tensor:
        warnings.warn("something else", RuntimeWarning, stacklevel=2)
        return torch.zeros(1, RATE)

    exploration._forward.sonify = speak  # type: ignore[method-assign]
    with pytest.warns(RuntimeWarning, match="something else"):
        exploration.sonify(1, 1)


def test_bad_arguments_are_told(encoder: CNN12) -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        Explorer(encoder, {})
    with pytest.raises(ValueError, match="at least one network"):
        Explorer({}, {"x": noise(0)})
    with pytest.raises(StackError):
        Explorer(torch.nn.Linear(2, 2), {"x": noise(0)})
    with pytest.raises(AudioError, match="no samples"):
        Explorer(encoder, {"x": np.zeros(0, "f4")})
    with pytest.raises(LayerError, match="choose 1 to 11"):
        Exploration(encoder, noise(0), sample_rate=RATE).ranking(12)


def test_it_has_a_live_and_a_static_form(explorer: Explorer) -> None:
    bundle = explorer._repr_mimebundle_()
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.model_id
    page = bundle["text/html"]
    assert page.startswith("<section")
    assert page.count("<sonibook-player") == page.count("<script>") == 1


def test_the_static_form_plays_what_sonify_gives(encoder: CNN12) -> None:
    x = noise(0, 5.0, peak=0.5)
    page = static_form({"own": encoder}, x, "a <clip>")
    assert len(page) < 800_000  # also for noise
    assert "a &lt;clip&gt;" in page
    assert "only the loudest second is taken" in page
    assert page.count("<details") == 4
    assert re.findall(r'data-slider="([^"]+)"', page) == ["Layer", *["Filter rank"] * 4]
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]+)"', page)
    heard = [soundfile.read(io.BytesIO(base64.b64decode(each)))[0] for each in sounds]
    assert len(heard[0]) == RATE
    passed, titles = ForwardPass(encoder, heard[0]), re.findall(r"<p>(Layer [^<]+)</p>", page)
    filters = [(n, f) for n in (1, 4, 8, 11) for f in passed.most_active(n, 3)]
    pairs = zip(heard[1::2], heard[2::2], strict=True)
    for (layer, index), (sound, rest), title in zip(filters, pairs, titles, strict=True):
        expected = sonify(encoder, heard[0], layer=layer, filters=[index])[0].numpy()
        cosine = sound @ expected / (np.linalg.norm(sound) * np.linalg.norm(expected))
        assert cosine > 0.99
        np.testing.assert_allclose(sound + rest, heard[0], atol=2 / 32768)
        assert title.startswith(f"Layer {layer}, rank ")
        assert f": filter {index}," in title


def test_the_static_form_of_silence_can_be_made(encoder: CNN12) -> None:
    page = static_form({"own": encoder}, np.zeros(RATE, "f4"), "nothing")
    assert "silence" in page
    assert "only the loudest" not in page


def test_networks_are_shown_one_below_the_other(encoder: CNN12) -> None:
    other = CNN12(width=0.25, seed=1).eval().truncate(6)
    x = noise(0)
    explorer = Explorer({"first": encoder, "other": other}, {"noise": x})
    explorer.layer.value, explorer.rank.value = 8, 3
    assert list(explorer._below.children) == [explorer.views["first"]]
    explorer.beside.value = True
    assert list(explorer._below.children) == list(explorer.views.values())
    for name, network, layer in (("first", encoder, 8), ("other", other, 6)):
        row = explorer.views[name]
        index = ForwardPass(network, x).most_active(layer, 3)[2]
        assert (row.sonification.layer, row.sonification.filter) == (layer, index)
        assert f"<strong>{name}</strong>" in row.info.value
        expected = sonify(network, x, layer=layer, filters=[index])[0].numpy()
        np.testing.assert_allclose(players(explorer, name)[1], 0.5 * expected, atol=1.6 / 32768)
    # The other network has fewer layers: the slider ends there.
    explorer.network.value = "other"
    assert (explorer.layer.value, explorer.layer.max) == (6, 6)
    assert explorer.view is explorer.views["other"]
    check(explorer, other, x)


def test_how_alike_the_sonification_is_to_the_clip_is_shown(
    explorer: Explorer, encoder: CNN12
) -> None:
    explorer.layer.value = 3
    x, s = noise(0).astype(float), explorer.sonification.astype(float)
    _, values = scipy.signal.coherence(x, s, fs=RATE)
    coherence = np.sort(values)[-5:].mean()
    part = (x @ s) / (x @ x) * x
    ratio = 10 * np.log10((part @ part) / ((s - part) @ (s - part)))
    said = f"Coherence with the input {coherence:.2f}, SI-SDR {ratio:.1f} dB."
    assert said in explorer.view.info.value
    explorer.layer.value, explorer.rank.value = 2, 16
    assert "Coherence" not in explorer.view.info.value


def test_the_clips_that_excite_a_filter_most_are_a_step_away(encoder: CNN12) -> None:
    clips = {f"clip {seed}": noise(seed, 0.5) for seed in range(5)}
    explorer = Explorer(encoder, clips)
    explorer.layer.value, explorer.rank.value = 4, 2
    assert [button.layout.display for button in explorer.top] == ["none"] * 3
    explorer.find.click()
    index = explorer.filter

    def energy(name: str) -> float:
        return float(ForwardPass(encoder, clips[name]).energy(4)[0, index])

    best = sorted(clips, key=energy, reverse=True)[:3]
    shown = [button.description for button in explorer.top if button.layout.display != "none"]
    assert shown == [f"top clip {place}: {name}" for place, name in enumerate(best, start=1)]
    explorer.top[1].click()
    assert (explorer.clip.value, explorer.layer.value, explorer.filter) == (best[1], 4, index)
    check(explorer, encoder, clips[best[1]])
    # A sound of one's own takes part, once one asks again.
    upload(explorer, "mine.wav", wav(noise(9, 0.5)))
    assert explorer.find.layout.display is None
    assert not any(button.layout.display is None for button in explorer.top)


def test_a_recording_is_heard_at_its_own_rate_and_trouble_is_told(
    explorer: Explorer, encoder: CNN12
) -> None:
    x = noise(3, 0.6)
    sent = memoryview(x.astype("<f4").tobytes())
    explorer.microphone.set_state({"samples": sent, "rate": RATE, "take": 1})  # as a browser does
    assert explorer.clip.value == "recording 1"
    check(explorer, encoder, x)
    explorer.microphone.trouble = "The microphone was refused."
    assert "refused" in explorer.notice.value
    explorer.microphone.samples = np.zeros(RATE, "<f4").tobytes()
    explorer.microphone.take += 1
    assert "silent" in explorer.notice.value
    assert explorer.clip.value == "recording 1"


def test_only_what_changed_is_sent_to_the_browser(explorer: Explorer) -> None:
    before = explorer.view.listening.input
    sent: list[set[str]] = []
    explorer.view.listening.send_state = lambda key=None: sent.append(set(key))
    explorer.layer.value = 5
    assert set().union(*sent) == {"sonification", "residual", "about"}
    assert explorer.view.listening.input == before


def test_the_static_form_of_several_networks_has_a_slider_for_them(encoder: CNN12) -> None:
    networks = {"<one>": encoder, "supervised": CNN12(width=0.25, seed=1).eval()}
    page = static_form(networks, noise(0, 5.0), "noise")
    assert page.count('data-slider="Network"') == 1
    assert page.count('data-slider="Layer"') == 2
    assert 'data-stop="&lt;one&gt;"' in page
    # Only what the book ships is in the lab.
    assert re.findall(r'data-lab="([^"]+)"', page) == ["supervised"]
    assert len(page) < 800_000


def test_real_recordings_can_be_explored(encoder: CNN12, data_root: Path) -> None:
    formats = data_root / "formats"
    if not formats.is_dir():
        pytest.skip(f"{data_root} has no folder formats/: such recordings are not here.")
    explorer = Explorer(encoder, {"noise": noise(0)})
    files = [path for path in sorted(formats.iterdir()) if path.suffix in (".ogg", ".mp3", ".flac")]
    assert files
    for path in files:
        upload(explorer, path.name, path.read_bytes())
        assert explorer.clip.value == f"your file: {path.name}"
        check(explorer, encoder, np.asarray(explorer.x))
