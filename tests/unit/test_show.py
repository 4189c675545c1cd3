"""Figures show what they are handed, players play it unchanged, and bad input is told apart."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from matplotlib.text import Text
from PIL import Image

from sonibook import CNN12, ForwardPass, show
from sonibook.errors import AudioError
from sonibook.model.stack import receptive_field
from sonibook.plots.sound import decibels, power_spectrogram, shortened

HOP = 64  # samples from one frame of a spectrogram to the next
RATE = 8000


def tone(hertz: float, seconds: float = 1.0, peak: float = 1.0) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype("f4")


def noise(seed: int, samples: int = RATE, peak: float = 1.0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(samples).astype("f4")
    return x * np.float32(peak) / np.abs(x).max()


class Tags(HTMLParser):
    """The tags of a piece of HTML with their attributes, and whether it is well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def heard(tag: dict[str, str | None]) -> tuple[np.ndarray, int]:
    """What an <audio> plays, as soundfile reads it."""
    source = tag["src"]
    assert source is not None
    assert source.startswith("data:audio/flac;base64,")
    return soundfile.read(io.BytesIO(base64.b64decode(source.split(",")[1])), dtype="float64")


# Players


@pytest.mark.parametrize("options", [{}, {"gain": 1.5}, {"sample_rate": 16_000}])
def test_a_player_plays_the_samples_and_nothing_louder(options: dict[str, Any]) -> None:
    x = tone(440, peak=0.25)
    for sound in (x, torch.from_numpy(x)):
        made = show.player(sound, label="A <quiet> tone", **options)
        (audio,) = Tags(made._repr_html_()).all("audio")
        y, rate = heard(audio)
        assert rate == options.get("sample_rate", RATE)
        np.testing.assert_allclose(y, options.get("gain", 1.0) * x, atol=1.6 / 32768)
        assert audio["aria-label"] == "A <quiet> tone"
        assert "controls" in audio


def test_two_seconds_are_small() -> None:
    assert len(show.player(noise(0, 2 * RATE), label="x").element) < 44_000
    assert len(show.player(tone(440, 2.0), label="x").element) < 22_000


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        (tone(500, peak=0.5), {"gain": 3.0}, r"peaks at 1\.5 after a gain of 3 and would clip"),
        (np.zeros(0, "f4"), {}, "no samples"),
        (np.array([0.0, np.nan], "f4"), {}, "sample 1 is NaN"),
        (np.array([np.inf], "f4"), {}, "sample 0 is NaN or infinite"),
        (tone(100), {"label": " "}, "needs a label"),
        ({}, {}, "at least one sound"),
    ],
)
def test_a_player_refuses_what_it_cannot_play(x: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises((AudioError, ValueError), match=said):
        show.player(x, **{"label": "x", **options})


def test_a_pair_is_named() -> None:
    tags = Tags(show.pair(tone(300), noise(2), caption="Two")._repr_html_())
    assert [audio["aria-label"] for audio in tags.all("audio")] == ["Input", "Sonification"]
    assert tags.all("sonibook-player")[0]["label"] == "Two"


def test_a_table_names_rows_and_columns() -> None:
    made = show.table(
        {"a": [tone(100), tone(200)], "b": [tone(300), tone(400)]}, columns=["l", "r"]
    )
    tags = Tags(made._repr_html_())
    assert [audio["aria-label"] for audio in tags.all("audio")] == ["a: l", "a: r", "b: l", "b: r"]
    assert tags.all("sonibook-player")[0]["columns"] == "2"
    assert re.findall(r"<figcaption>(.*?)</figcaption>", made.element) == list(made.tracks)
    assert list(show.table({"a": [tone(100)], "b": [tone(200)]}, columns=["Sound"]).tracks) == [
        "a", "b"
    ]  # fmt: skip


def test_a_player_has_tracks_at_one_gain_and_brings_its_script() -> None:
    x, s = tone(300, peak=0.1), noise(2, peak=0.4)
    made = show.player({"x": x, "<s>": s}, label="", sample_rate=16_000)
    page = made._repr_html_()
    first, second = map(heard, Tags(page).all("audio"))
    assert first[1] == second[1] == 16_000
    assert made.gain == pytest.approx(2.5, rel=1e-6)
    np.testing.assert_allclose(first[0], 2.5 * x, atol=1.6 / 32768)
    np.testing.assert_allclose(second[0], 2.5 * s, atol=1.6 / 32768)
    assert page.count("<script>") == page.count("customElements.define(") == 1
    assert "<script" not in made.element
    assert "<s>" not in made.element


def test_a_table_of_silence_is_silent() -> None:
    made = show.pair(np.zeros(100, "f4"), np.zeros(100, "f4"))
    assert made.gain == 1.0
    y, _ = heard(Tags(made._repr_html_()).all("audio")[0])
    assert not y.any()


def test_a_table_refuses_rows_of_another_length() -> None:
    with pytest.raises(ValueError, match="Row 'a' has 1 sounds for 2 columns"):
        show.table({"a": [tone(100)]}, columns=["l", "r"])
    with pytest.raises(ValueError, match="at least one sound"):
        show.table({}, columns=[])


# Excerpts


def test_an_excerpt_is_the_loudest_stretch() -> None:
    x = noise(3, 5 * RATE, peak=0.01)
    x[17_000:21_000] += tone(500, 0.5)
    part = show.excerpt(x, seconds=0.5)
    assert len(part) == 4000
    energy = [float((x[i : i + 4000].astype("f8") ** 2).sum()) for i in range(len(x) - 3999)]
    best = int(np.argmax(energy))
    np.testing.assert_array_equal(part, x[best : best + 4000])


def test_a_short_clip_is_its_own_excerpt() -> None:
    x = tone(100, 0.2)
    np.testing.assert_array_equal(show.excerpt(x, seconds=2.0), x)


# Spectrograms


def test_power_is_that_of_scipy() -> None:
    x = noise(4, 3000)
    window = scipy.signal.windows.hann(256, sym=False)
    oracle = scipy.signal.ShortTimeFFT(window, HOP, fs=1.0)
    frames = np.abs(oracle.stft(x.astype("f8"), p0=0, p1=len(x) // HOP + 1)) ** 2
    np.testing.assert_allclose(power_spectrogram(x), frames, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 2, 63, 64, 100, 255, 256, 257])
def test_a_very_short_sound_has_a_spectrogram(samples: int) -> None:
    assert power_spectrogram(noise(5, samples)).shape == (129, samples // HOP + 1)


def test_levels_are_relative_and_have_a_floor() -> None:
    power = np.array([[1.0, 0.1], [1e-20, 0.0]])
    np.testing.assert_allclose(decibels(power, reference=1.0), [[0, -10], [-80, -80]])
    np.testing.assert_allclose(decibels(power), [[0, -10], [-80, -80]])
    np.testing.assert_allclose(decibels(power, reference=0.0), -80)


def test_a_tone_is_where_it_belongs_in_the_figure() -> None:
    figure = show.log_spectrogram(tone(1000))
    axes = figure.axes[0]
    levels = axes.images[0].get_array()
    left, right, bottom, top = axes.images[0].get_extent()
    row = int(np.asarray(levels)[:, levels.shape[1] // 2].argmax())
    assert bottom + (top - bottom) * row / (levels.shape[0] - 1) == pytest.approx(1.0, abs=0.04)
    assert (left, right) == (0.0, pytest.approx(1.0, abs=0.01))
    assert axes.get_ylabel() == "frequency / kHz"
    assert axes.get_xlabel() == "time / s"


def test_a_pair_shares_its_scales() -> None:
    x, s = tone(1000), tone(1000, peak=0.1)
    figure = show.side_by_side([x, s])
    above = [
        axes for axes in figure.axes if axes.get_title(loc="left") in ("Input", "Sonification")
    ]
    assert above[0].get_ylim() == above[1].get_ylim()
    images = [axes.images[0] for axes in figure.axes[:4] if axes.images]
    assert images[0].get_clim() == images[1].get_clim() == (-80.0, 0.0)
    loud, soft = (float(np.max(image.get_array())) for image in images)
    assert loud == pytest.approx(0.0, abs=1e-4)
    assert soft == pytest.approx(-20.0, abs=0.01)


def test_a_given_reference_makes_figures_comparable() -> None:
    reference = float(power_spectrogram(tone(1000)).max())
    figure = show.log_spectrogram(tone(1000, peak=0.5), reference=reference)
    assert float(figure.axes[0].images[0].get_array().max()) == pytest.approx(-6.02, abs=0.01)


def test_long_titles_side_by_side_do_not_run_into_each_other() -> None:
    titles = ("sonification", "guided backpropagation", "gradient x input", "layers 4 to 8 random")
    figure = show.side_by_side([tone(100)] * 4, titles=titles)
    figure.canvas.draw()
    texts = {one.get_text().replace("\n", " "): one for one in figure.findobj(Text)}
    shown = [texts[title] for title in titles]
    ends = [one.get_window_extent() for one in shown]
    assert all(one.x1 < after.x0 for one, after in pairwise(ends))


def test_side_by_side_wants_a_title_each() -> None:
    with pytest.raises(ValueError, match="2 for 1"):
        show.side_by_side([tone(100)], titles=["a", "b"])


@pytest.mark.parametrize("count", [1, 6, 7, 13])
def test_any_number_of_curves_can_be_told_apart(count: int) -> None:
    curves = {f"curve {n}": [0.0, float(n)] for n in range(count)}
    axes = show.lines(curves, [1, 2], xlabel="x", ylabel="y", log_y=count == 6).axes[0]
    assert axes.get_yscale() == ("log" if count == 6 else "linear")
    drawn = axes.lines
    assert [line.get_ydata()[1] for line in drawn] == list(range(count))
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in drawn}
    assert len(looks) == count


def test_a_waveform_keeps_its_shortest_click() -> None:
    x = np.zeros(5 * RATE, "f4")
    x[12_345] = 1.0
    figure = show.waveform(x)
    top = max(path.vertices[:, 1].max() for path in figure.axes[0].collections[0].get_paths())
    assert top == pytest.approx(1.0)


def test_words_are_measured() -> None:
    x = np.zeros(2 * RATE, "f4")
    x[8000:9600] = tone(1500, 0.2)
    said = show.describe(x)
    when, low, high = (float(number) for number in re.findall(r"\d+\.\d+", said))
    assert 1.0 <= when <= 1.2
    assert low == pytest.approx(1.5, abs=0.07)
    assert high == pytest.approx(1.5, abs=0.07)
    assert show.describe(np.zeros(100, "f4")) == "silence"


# Pictures


def test_a_picture_carries_its_words() -> None:
    made = show.Picture(show.waveform(tone(100)), alt='A "tone" & more', caption="<Tone>")
    bundle = made._repr_mimebundle_()
    tags = Tags(bundle["text/html"])
    (image,) = tags.all("img")
    assert image["alt"] == 'A "tone" & more'
    assert "&lt;Tone&gt;" in bundle["text/html"]
    png = base64.b64decode(bundle["image/png"])
    assert base64.b64decode(str(image["src"]).split(",")[1]) == png
    assert Image.open(io.BytesIO(png)).size == (880, 198)


def test_a_picture_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="needs alt text"):
        show.Picture(show.waveform(tone(100)), alt=" ")


def test_figures_are_opaque_and_unknown_to_pyplot() -> None:
    figure = show.side_by_side([np.zeros(2000, "f4")] * 2)  # silence, too
    picture = Image.open(io.BytesIO(show.Picture(figure, alt="x").image)).convert("RGBA")
    assert picture.getpixel((0, 0)) == (255, 255, 255, 255)
    if "matplotlib.pyplot" in sys.modules:
        known = sys.modules["matplotlib.pyplot"].get_fignums()
        assert getattr(figure, "number", None) not in known


# Filters


def test_a_centre_frequency_is_the_middle_of_a_symmetric_band() -> None:
    taps = np.stack([np.cos(2 * np.pi * f / RATE * np.arange(401)) for f in (700, 2000, 3100)])
    taps *= scipy.signal.windows.hann(401)
    centres = show.centre_frequencies(taps[:, None].astype("f4"))
    np.testing.assert_allclose(centres, [700, 2000, 3100], rtol=0.01)


def test_responses_are_those_of_scipy_and_sorted() -> None:
    weights = CNN12(width=0.25, seed=0).features.conv1.weight.detach()
    figure = show.frequency_responses({"one": weights})
    shown = np.asarray(figure.axes[0].images[0].get_array())
    order = np.argsort(show.centre_frequencies(weights), kind="stable")
    frequencies = np.linspace(0, np.pi, shown.shape[1])
    for row, number in enumerate(order):
        _, response = scipy.signal.freqz(weights[number, 0].numpy(), worN=frequencies)
        level = 20 * np.log10(np.abs(response) / np.abs(response).max() + 1e-30)
        np.testing.assert_allclose(shown[row], np.maximum(level, -40), atol=0.01)


def test_a_filter_of_zeros_can_be_drawn() -> None:
    weights = np.zeros((2, 1, 7), "f4")
    np.testing.assert_allclose(show.centre_frequencies(weights), 2000)
    assert float(show.frequency_responses(weights).axes[0].images[0].get_array().max()) == -40


def test_deeper_filters_have_no_frequency_response() -> None:
    weights = CNN12(width=0.25, seed=0).features.conv2.weight
    with pytest.raises(Exception, match=r"filters 1 kernel|only the first layer"):
        show.frequency_responses(weights)


# Networks


def test_receptive_fields_are_drawn_to_length() -> None:
    network = CNN12(width=0.25, seed=0)
    axes = show.receptive_fields(network).axes[0]
    blocks = ForwardPass(network, noise(6)).blocks
    drawn = sorted(bar.get_width() for bar in axes.patches)
    expected = [receptive_field(blocks, layer) for layer in range(1, 12)]
    assert set(expected) <= set(drawn)
    assert len(drawn) == 22


def test_maps_are_drawn_with_the_most_active_on_top() -> None:
    maps = np.zeros((3, 10), "f4")
    maps[1, 4], maps[2, 5] = 4.0, 1.0
    axes = show.feature_maps([maps], titles=["L"], seconds=1.0).axes[0]
    image = axes.images[0]
    drawn = np.asarray(image.get_array())
    assert drawn[-1, 4] == 1.0
    assert drawn[-2, 5] == 0.5
    assert image.origin == "lower"


def test_shortening_loses_no_peak() -> None:
    values = np.zeros((2, 12_345), "f4")
    values[0, 777] = 3.0
    short = shortened(values, 1000)
    assert short.shape == (2, 1000)
    assert short.max() == 3.0


def test_steps_are_drawn_where_they_lie() -> None:
    values = np.zeros(100, "f4")
    values[10] = 2.0
    axes = show.steps([show.Stage("s", values, 8)], start=64, length=64).axes[0]
    stems = axes.collections[0].get_segments()
    assert len(stems) == 1
    np.testing.assert_allclose(stems[0], [[10.0, 0.0], [10.0, 2.0]])
    assert axes.get_xlim() == (8.0, 16.0)


def test_a_held_map_is_centred_and_at_the_inputs_rate() -> None:
    sound = show.held(np.array([0.0, 1.0, 3.0, 0.0], "f4"), stride=4)
    np.testing.assert_allclose(sound, np.repeat([-0.5, 0.0, 1.0, -0.5], 4), atol=1e-7)
    assert not show.held(np.full(5, 2.0, "f4"), stride=2).any()


# Tables of results


def test_a_grid_is_a_table_with_heads() -> None:
    made = show.grid([{"a": 1234, "b": "<x>"}, {"a": 5, "b": "y"}], caption="C & D")
    page = made._repr_html_()
    assert len(Tags(page).all("th")) == 2
    assert "1,234" in page
    assert "&lt;x&gt;" in page
    assert "C &amp; D" in page


def test_a_grid_shows_numbers_as_one_reads_them() -> None:
    values = (0.0012345, 0.5, 999.4, 999.6, -1234.5, 2.5e7, -7.48e-6, float("nan"), 10**17 + 1)
    lines = str(show.grid([{"value": value} for value in (*values, float("inf"))])).splitlines()
    shown = ["0.00123", "0.5", "999", "1,000", "-1,234", "2.5 × 10⁷", "-7.48 × 10⁻⁶", "nan"]
    assert [line.strip() for line in lines[1:]] == [*shown, "100,000,000,000,000,001", "∞"]


def test_a_grid_keeps_a_number_and_its_interval_on_one_line() -> None:
    page = show.grid([{"a": "0.59 [0.58, 0.61]", "b": "-9% [-15%, -4%]", "c": "see [3]"}])
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page._repr_html_())
    line = '<span style="white-space: nowrap">{} <small>{}</small></span>'
    assert cells[:2] == [line.format("0.59", "[0.58, 0.61]"), line.format("-9%", "[-15%, -4%]")]
    assert cells[2] == "see [3]"


def test_a_grid_aligns_a_column_as_one_and_its_head_with_it() -> None:
    rows = [
        {"number": 3, "or": 7, "unit": "12 ms", "text": "4 in a row", "name": "x"},
        {"number": 0.5, "or": "none", "unit": "-8.5%", "text": "5", "name": "y"},
    ]
    page = show.grid(rows)._repr_html_()
    sides = re.findall(r"<t[hd][^>]*text-align: (\w+);", page)
    assert sides == 3 * ["right", "right", "right", "left", "left"]


def test_a_grid_refuses_ragged_rows() -> None:
    with pytest.raises(ValueError, match="Row 2"):
        show.grid([{"a": 1}, {"b": 2}])
    with pytest.raises(ValueError, match="at least one row"):
        show.grid([])


# Imports


def test_the_library_imports_no_drawing_and_drawing_no_widgets() -> None:
    code = (
        "import sys, sonibook\n"
        "assert 'matplotlib' not in sys.modules, 'matplotlib'\n"
        "import sonibook.show\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
        "assert 'ipywidgets' not in sys.modules, 'ipywidgets'\n"
        "sonibook.show.Explorer\n"
        "assert 'ipywidgets' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_name_that_show_lacks_is_told() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        show.nothing  # noqa: B018
