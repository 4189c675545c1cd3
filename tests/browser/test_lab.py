"""The lab as a reader uses it: over http and from disk, with mouse, keyboard, file and voice."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import soundfile
from built import PAGES, axe_script
from heard import HEARD, READY, SAID, assert_names, assert_sonifies, unpacked
from numpy import ndarray

RATE = 8000
#: What is heard of the network beside.
OTHER = """() => {
    const { filter, sound } = sonibookLab.heard.other;
    return { filter, sound: [...sound], said: sonibookLab.said[1] };
}"""


@dataclass
class Reader:
    """A reader with the lab open, and what the browser complains of."""

    page: Any
    address: str
    complaints: list[str] = field(default_factory=list)

    def open(self, link: str = "") -> Reader:
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/lab.html{link}")
        self.page.wait_for_function(READY)
        return self

    def heard(self) -> dict[str, Any]:
        """What is heard once all is computed."""
        self.page.wait_for_function(READY)
        return unpacked(self.page.evaluate(HEARD))

    def said(self) -> dict[str, list[float]]:
        """What the network says of it all, and without the filters; the same as Python's."""
        self.page.wait_for_function(SAID)
        shares = self.page.evaluate(f"{SAID}[0]")
        assert_names(self.heard(), shares)
        return shares

    def move(self, slider: str, value: int) -> dict[str, Any]:
        """Move a slider as a mouse does."""
        self.page.locator(f"#lab-{slider}").evaluate(
            """(slider, value) => {
                slider.value = value;
                slider.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            value,
        )
        return self.heard()

    def bring(self, file: Path) -> None:
        """Open a file, and wait until it is heard or refused."""
        self.page.set_input_files("#lab-file", file)
        self.answered()

    def answered(self) -> None:
        self.page.wait_for_function(
            f"""() => document.getElementById("lab-alert").textContent
                || ({READY})?.state.clip === "own" """,
            timeout=15_000,
        )

    def text(self, name: str) -> str:
        return self.page.locator(f"#lab-{name}").text_content().strip()


@pytest.fixture(scope="module", params=["http", "file"])
def tab(request: pytest.FixtureRequest, browser: Any, site: str) -> Iterator[Reader]:
    """A reader over http, and one from disk without any network."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    context.set_offline(request.param == "file")
    seen = Reader(context.new_page(), site if request.param == "http" else PAGES.as_uri())
    context.on("weberror", lambda error: seen.complaints.append(str(error.error)))
    context.on(
        "console",
        lambda message: (
            seen.complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    yield seen
    context.close()


@pytest.fixture
def reader(tab: Reader) -> Iterator[Reader]:
    """The same reader, who may do anything on the page, and leaves it."""
    yield tab
    complaints = tab.complaints.copy()
    tab.page.unroute_all()
    tab.page.context.clear_permissions()
    tab.page.goto("about:blank")
    tab.complaints.clear()
    assert complaints == []


def barriers(page: Any) -> list[str]:
    """What axe finds in the lab as it is now that keeps people out."""
    page.evaluate(axe_script())
    return page.evaluate(
        """async () => {
            const { violations } = await axe.run("#lab", { preload: false });
            return violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`);
        }"""
    )


#: For what a page opened from disk does no differently.
over_http = pytest.mark.parametrize("tab", ["http"], indirect=True)
#: For what a page opened from disk finds harder.
from_disk = pytest.mark.parametrize("tab", ["file"], indirect=True)


def wav(x: ndarray, *, rate: int = RATE, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, x, rate, subtype, format="WAV")
    return file.getvalue()


def noise(seconds: float = 1.0, rate: int = RATE) -> ndarray:
    return np.random.default_rng(5).uniform(-0.4, 0.4, round(seconds * rate)).astype("f4")


@from_disk
def test_every_layer_is_heard(reader: Reader) -> None:
    reader.open()
    for layer in range(1, 12):
        heard = reader.move("layer", layer)
        assert heard["layer"] == layer
        shares = [entry["share"] for entry in heard["ranking"]]
        assert shares == sorted(shares, reverse=True)
        assert heard["filters"] == [heard["ranking"][0]["filter"]]
        heard = reader.move("filter", len(shares) // 2)
        assert heard["filter"] == heard["ranking"][len(shares) // 2 - 1]["filter"]
        assert_sonifies(heard)
        assert f"{heard['coherence']:.2f}" == reader.text("coherence")
        assert f"Layer {layer}" in reader.text("status")
        if layer in (2, 8, 11):
            reader.said()


@over_http
def test_the_network_says_what_it_hears(reader: Reader) -> None:
    page = reader.open("#layer=11").page
    classes = page.evaluate("sonibookLab.heard.network.head.classes")
    shares = reader.said()

    def column(key: str) -> list[tuple[str, str]]:
        rows = page.locator(f"#lab-classes [data-of={key}] li")
        texts = rows.evaluate_all(
            "(all) => all.map((row) => [...row.children].map((c) => c.innerText))"
        )
        return [(name, share) for name, share, _ in texts]

    for key, mine in shares.items():
        order = np.argsort(mine)[::-1][:5]
        assert [name for name, _ in column(key)] == [classes[n] for n in order]
        assert all(share.endswith("%") for _, share in column(key))
    assert f"Without filter {reader.heard()['filter']}, " in reader.text("verdict")
    page.locator("#lab-top button").nth(1).click()
    assert reader.said()["without"] != shares["without"]
    page.get_by_label("all but the chosen").check()
    page.locator("#lab-five").click()
    reader.said()
    assert "Without filters " in reader.text("verdict")
    page.get_by_label("the whole layer").check()
    assert "without" not in reader.said()
    assert page.locator("#lab-classes [data-of=without]").is_hidden()
    page.locator("#lab-network").select_option("random")
    reader.heard()
    assert page.locator("#lab-classes").is_hidden()
    assert "has learned no classes" in reader.text("verdict")


def test_players_and_pictures_follow(reader: Reader) -> None:
    reader.open()
    pictures = []
    for rank in (1, 2):
        heard = reader.move("filter", rank)
        names, files = reader.page.evaluate(
            """async () => {
                const { tracks } = document.querySelector("#lab-player sonibook-player");
                const bytes = async (track) => [...new Uint8Array(await track.file())];
                return [tracks.map(({ name }) => name), await Promise.all(tracks.map(bytes))];
            }"""
        )
        assert names == ["Input", "Sonification", "Input − sonification"]
        for data, name in zip(files, ("input", "sound", "residual"), strict=True):
            played, rate = soundfile.read(io.BytesIO(bytes(data)))
            assert rate == RATE
            # One gain for all three.
            np.testing.assert_allclose(played, 0.5 * heard[name], atol=0.51 / 32768)
        reader.page.wait_for_timeout(300)  # what is heard is drawn after it
        pictures.append(
            reader.page.locator("#lab-player canvas").evaluate_all(
                "canvases => canvases.map((canvas) => canvas.toDataURL())"
            )
        )
    # A spectrogram and a waveform each of input, sonification and residual.
    first, second = pictures
    assert first[0] == second[0], "the input's spectrogram keeps its scale"
    assert all(first[n] != second[n] for n in (2, 3, 4, 5))
    said = reader.page.locator("#lab-player canvas[role=img]").nth(1).get_attribute("aria-label")
    assert said.startswith("Log spectrogram of Sonification, 0 to 4 kHz: loudest at")


@over_http
def test_several_filters_are_chosen_and_left_out(reader: Reader) -> None:
    page = reader.open("#layer=5").page
    ranking = [entry["filter"] for entry in reader.heard()["ranking"]]
    page.get_by_label("only the chosen").check()
    page.locator("#lab-top button").nth(2).click()
    assert sorted(reader.heard()["filters"]) == sorted([ranking[0], ranking[2]])
    assert_sonifies(reader.heard())
    page.locator("#lab-toggle").click()  # takes the third out again
    assert reader.heard()["filters"] == [ranking[0]]
    page.locator("#lab-five").click()
    assert sorted(reader.heard()["filters"]) == sorted(ranking[:5])
    page.get_by_label("all but the chosen").check()
    heard = reader.heard()
    assert sorted([*heard["filters"], *ranking[:5]]) == list(range(64))
    assert_sonifies(heard)
    page.get_by_label("the whole layer").check()
    assert reader.heard()["filters"] is None
    assert_sonifies(reader.heard())
    bars = page.locator("#lab-bars").bounding_box()
    page.locator("#lab-bars").click(position={"x": bars["width"] * 3.5 / len(ranking), "y": 60})
    heard = reader.heard()
    assert (heard["way"], heard["filter"]) == ("one", ranking[3])


def test_a_link_restores_what_is_heard(reader: Reader) -> None:
    page = reader.open().page
    page.locator("#lab-network").select_option("random")
    page.locator("#lab-clip").select_option(index=2)
    reader.heard()
    reader.move("layer", 10)
    reader.move("filter", 7)
    page.get_by_label("only the chosen").check()
    page.locator("#lab-top button").nth(1).click()
    before = reader.heard()
    chosen = f"&hear=only&chosen={'.'.join(map(str, before['chosen']))}"
    page.wait_for_function("(end) => location.hash.endsWith(end)", arg=chosen)
    after = reader.open(page.evaluate("location.hash")).heard()
    assert {k: v for k, v in after.items() if k != "sound"}.keys() == before.keys() - {"sound"}
    for name in ("network", "clip", "layer", "filter", "way"):
        assert after[name] == before[name]
    assert sorted(after["chosen"]) == sorted(before["chosen"])
    np.testing.assert_array_equal(after["sound"], before["sound"])
    for link, sentence in (
        ("#network=gone", "no network gone"),
        ("#clip=gone&layer=99&filter=9999", "no clip gone"),
        ("#clip=own", "a recording that stayed with its maker"),
    ):
        assert sentence in reader.open(link).text("alert")


@over_http
def test_keys_move_and_compare(reader: Reader) -> None:
    page = reader.open("#layer=8").page
    ranking = [entry["filter"] for entry in reader.heard()["ranking"]]
    for key, expected in (("n", 1), ("n", 2), ("p", 1)):
        page.keyboard.press(key)
        assert reader.heard()["filter"] == ranking[expected]
    page.keyboard.press("d")
    assert reader.heard()["layer"] == 9
    page.keyboard.press("u")
    assert reader.heard()["layer"] == 8
    page.locator("#lab-filter").focus()
    page.keyboard.press("ArrowRight")
    assert reader.heard()["filter"] == ranking[1]

    def heard_now() -> tuple[bool, str, float]:
        playing, name, place = page.locator("sonibook-player").evaluate(
            "(p) => [!p.paused, p.tracks[p.track].name, p.currentTime]"
        )
        return playing, name, place

    page.keyboard.press("3")
    assert heard_now()[:2] == (False, "Input − sonification")
    page.keyboard.press("1")
    page.keyboard.press("b")
    page.wait_for_function("document.querySelector('sonibook-player').currentTime > 0.3")
    assert heard_now()[:2] == (True, "Input")
    assert reader.text("swap") == "A/B: Input"
    page.keyboard.press("b")
    assert heard_now()[:2] == (True, "Sonification")
    assert heard_now()[2] > 0.3
    assert "Sonification" in reader.text("status")
    # What is played goes on where it was when another filter is chosen.
    page.keyboard.press("n")
    reader.heard()
    assert heard_now()[:2] == (True, "Sonification")
    assert heard_now()[2] > 0.3
    # Beside another network, A/B goes from one to the other.
    page.locator("#lab-beside").select_option("random")
    reader.heard()
    page.locator("#lab-swap").click()
    assert heard_now()[:2] == (True, "Random")
    assert reader.text("swap") == "A/B: Random"
    page.keyboard.press("b")
    assert heard_now()[:2] == (True, "Supervised")


@over_http
def test_two_networks_are_heard_side_by_side(reader: Reader) -> None:
    page = reader.open("#network=random&beside=supervised&layer=6").page
    page.locator("#lab-top button").nth(2).click()
    reader.heard()
    page.wait_for_function(SAID)
    heard, other = reader.heard(), page.evaluate(OTHER)
    alone = reader.open(f"#network=supervised&layer=6&clip={heard['clip']}").heard()
    # The filter of the same rank, and all that the network says, too.
    assert other["filter"] == alone["ranking"][2]["filter"]
    page.locator("#lab-top button").nth(2).click()
    for key, shares in reader.said().items():
        np.testing.assert_allclose(shares, other["said"][key], err_msg=key)
    np.testing.assert_array_equal(reader.heard()["sound"], np.float32(other["sound"]))


@over_http
def test_a_blind_round_is_scored(reader: Reader) -> None:
    page = reader.open("#layer=9").page
    page.wait_for_function("location.hash.includes('filter=')")  # it comes a moment after the sound
    page.locator("#lab-blind").click()
    before = page.evaluate("location.hash")
    wrong = {2, 5}
    for trial in range(10):
        page.wait_for_function(
            "(n) => document.getElementById('lab-round-text').textContent.startsWith(n)",
            arg=f"Trial {trial + 1} of 10: what a filter of layer 9 keeps",
        )
        heard = reader.heard()
        for name in ("network", "facts", "filter", "top", "verdict", "classes", "link"):
            assert page.locator(f"#lab-{name}").is_hidden(), name
        assert page.evaluate("location.hash") == before, "the address would tell"
        if trial == 0:
            assert barriers(page) == []
        page.keyboard.press("tr"[(heard["network"] == "random") != (trial in wrong)])
    heard = reader.heard()
    assert (heard["network"], heard["layer"]) == ("supervised", 9), "what was heard before"
    p = scipy.stats.binomtest(8, 10, alternative="greater").pvalue
    assert f"8 of 10 right. Guessing gets 8 or more right with probability {p:.3f}" in (
        reader.text("round-text")
    )
    trials = page.locator("#lab-trials li")
    assert trials.count() == 10
    assert ["you said" in text for text in trials.all_text_contents()] == [
        trial in wrong for trial in range(10)
    ]
    page.wait_for_function(SAID)
    assert barriers(page) == []
    link = trials.nth(9).locator("a")
    name, asked = link.text_content().lower(), link.get_attribute("href")
    link.click()
    page.wait_for_function(f"({READY})?.state.network === '{name}'")
    assert f"filter={reader.heard()['filter']}" in asked


@over_http
def test_a_filter_brings_its_top_clips(reader: Reader) -> None:
    page = reader.open("#layer=7").page
    filter_, clip = reader.heard()["filter"], page.locator("#lab-clips button").first
    name, title = clip.get_attribute("value"), clip.text_content()
    table = (PAGES / "atlas" / "supervised" / "07.js").read_text(encoding="utf-8")
    rows = json.loads(table[table.index(", ") + 2 : table.rindex(")")])
    assert name == f"atlas/{rows[filter_][4][0][0]}"
    clip.click()
    page.wait_for_function(f"({READY})?.state.clip === '{name}'")
    heard = reader.heard()
    assert (heard["layer"], heard["filter"]) == (7, filter_)
    assert page.locator("#lab-clip option:checked").text_content().startswith(title)
    assert_sonifies(heard)


@over_http
def test_the_sonification_is_saved(reader: Reader, tmp_path: Path) -> None:
    page = reader.open("#layer=3").page
    heard = reader.heard()
    with page.expect_download() as started:
        page.locator("#lab-save").click()
    name = started.value.suggested_filename
    assert name == f"supervised-layer-3-filter-{heard['filter']}.wav"
    started.value.save_as(tmp_path / name)
    saved, rate = soundfile.read(tmp_path / name)
    assert rate == RATE
    np.testing.assert_allclose(saved, heard["sound"], atol=1.01 / 32768)


def test_a_file_is_opened_and_dropped(reader: Reader, tmp_path: Path) -> None:
    page = reader.open().page
    reader.move("filter", 30)
    x, mine = noise(2.0, 44100), tmp_path / "mine.wav"
    mine.write_bytes(wav(np.stack([x, 0.5 * x], axis=1), rate=44100))
    reader.bring(mine)
    heard = reader.heard()
    assert len(heard["input"]) == 2 * RATE
    assert np.abs(heard["input"]).max() == pytest.approx(1.0)
    assert heard["notices"] == []
    assert heard["filter"] == heard["ranking"][0]["filter"], "a sound of one's own begins at rank 1"
    assert page.locator("#lab-clip option:checked").text_content() == "Your file: mine.wav"
    assert_sonifies(heard)
    page.evaluate(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], "dropped.wav"));
            const at = { bubbles: true, cancelable: true, dataTransfer };
            document.getElementById("lab-player").dispatchEvent(new DragEvent("drop", at));
        }""",
        base64.b64encode(wav(noise(0.1))).decode(),
    )
    page.wait_for_function(f"({READY})?.input.length === 800")
    assert "zeros were added" in reader.text("notice")
    assert len(reader.heard()["sound"]) == 800


@over_http
def test_of_an_hour_the_beginning_is_taken(reader: Reader, tmp_path: Path) -> None:
    second = np.random.default_rng(0).integers(0, 256, RATE, dtype=np.uint8).tobytes()
    path = tmp_path / "hour.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(RATE)
        file.writeframes(second * 3600)
    reader.open().bring(path)
    assert reader.text("notice") == "hour.wav is longer: its first 10.0 s are taken."
    assert len(reader.heard()["input"]) == 10 * RATE


BAD = {
    "text.wav": (b"Dear reader, this is not a sound.", "cannot be read as sound: give a WAV"),
    "empty.wav": (b"", "is empty: give a file that holds sound."),
    "cut.wav": (wav(noise())[:30], "cannot be read as sound: give a WAV"),
    "silent.wav": (wav(np.zeros(RATE)), "is silent: every sample is zero"),
    "one.wav": (wav(np.ones(1)), "holds 1 sample: the lab needs 0.05 s"),
    "nan.wav": (wav(noise() * np.nan, subtype="FLOAT"), "holds samples that are NaN or infinite"),
}


def test_bad_files_are_refused_and_nothing_is_lost(reader: Reader, tmp_path: Path) -> None:
    reader.open("#layer=9")
    before = reader.heard()
    for name, (data, sentence) in BAD.items():
        reader.page.evaluate("document.getElementById('lab-alert').textContent = ''")
        (tmp_path / name).write_bytes(data)
        reader.bring(tmp_path / name)
        assert reader.text("alert").startswith(f"{name} "), name
        assert sentence in reader.text("alert")
        after = reader.heard()
        assert after["clip"] == before["clip"]
        np.testing.assert_array_equal(after["sound"], before["sound"])
    reader.move("filter", 2)
    assert reader.text("alert") == ""


def test_the_microphone_is_heard(reader: Reader) -> None:
    reader.page.context.grant_permissions(["microphone"])
    page = reader.open().page
    asked = "navigator.mediaDevices.getUserMedia"
    page.evaluate(
        f"() => {{ const ask = {asked}.bind(navigator.mediaDevices);"
        f"{asked} = (wish) => {{ window.wish = wish; return ask(wish); }}; }}"
    )
    page.locator("#lab-record").click()
    page.wait_for_function("document.getElementById('lab-record').textContent.includes(': 4 s')")
    reader.answered()
    assert reader.text("alert") == ""
    heard = reader.heard()
    assert len(heard["input"]) == 5 * RATE
    assert_sonifies(heard)
    wish = page.evaluate("window.wish.audio")
    off = ("echoCancellation", "noiseSuppression", "autoGainControl")
    assert [wish[name] for name in off] == [False, False, False]
    assert reader.text("record") == "Record 5 s"


@over_http
def test_a_microphone_that_gives_nothing_is_given_up(reader: Reader) -> None:
    page = reader.open().page
    page.evaluate(
        """() => {
            const silent = new AudioContext().createMediaStreamDestination().stream;
            navigator.mediaDevices.getUserMedia = async () => silent;
            AudioContext.prototype.createMediaStreamSource = () => ({ connect() {} });
        }"""
    )
    page.locator("#lab-record").click()
    reader.answered()
    assert "Nothing comes from the microphone" in reader.text("alert")
    assert reader.text("record") == "Record 5 s"


@over_http
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("NotAllowedError", "The microphone was refused: allow it"),
        ("NotFoundError", "There is no microphone: plug one in"),
        ("NotReadableError", "is another program using it?"),
        (None, "The microphone is unavailable here"),
    ],
)
def test_without_a_microphone_the_page_says_so(
    reader: Reader, error: str | None, sentence: str
) -> None:
    page = reader.open().page
    page.evaluate(
        """(error) => {
            const devices = error && {
                getUserMedia: () => Promise.reject(new DOMException("", error)),
            };
            Object.defineProperty(navigator, "mediaDevices", { value: devices });
        }""",
        error,
    )
    before = reader.heard()
    page.locator("#lab-record").click()
    reader.answered()
    assert sentence in reader.text("alert")
    assert reader.heard()["clip"] == before["clip"]
    assert reader.text("record") == "Record 5 s"


def test_a_browser_without_simd_is_told(reader: Reader) -> None:
    page = reader.page.context.new_page()  # every page that it opens lacks it
    page.add_init_script("WebAssembly.validate = () => false;")
    page.goto(f"{reader.address}/lab.html")
    page.wait_for_function("document.getElementById('lab-alert').textContent")
    assert "lacks WebAssembly SIMD: use a newer one" in page.locator("#lab-alert").text_content()
    assert page.locator("#lab-player sonibook-player").count() == 0
    page.close()


@over_http
def test_a_piece_that_does_not_come_is_no_end(reader: Reader) -> None:
    reader.page.route("**/lab/*-11-*.js", lambda route: route.abort())
    reader.open("#layer=4")
    before = reader.heard()
    reader.page.wait_for_function("document.getElementById('lab-verdict').textContent")
    assert "cannot be loaded" in reader.text("verdict")
    reader.move("layer", 11)
    assert "cannot be loaded" in reader.text("alert")
    after = reader.heard()
    assert after["layer"] == 4
    assert reader.page.locator("#lab-layer").input_value() == "4"
    np.testing.assert_array_equal(after["sound"], before["sound"])
    reader.page.unroute("**/lab/*-11-*.js")
    assert reader.move("layer", 11)["layer"] == 11
    assert_sonifies(reader.heard())
    reader.complaints.clear()  # the browser's own, of what it could not load


@over_http
def test_before_anything_is_heard_nothing_breaks(reader: Reader) -> None:
    page = reader.page
    page.route("**/lab/{scene,5}-*.js", lambda route: route.abort())
    page.goto(f"{reader.address}/lab.html")
    page.wait_for_function("document.getElementById('lab-alert').textContent")
    assert "cannot be loaded" in reader.text("alert")
    for name in ("bars", "five", "save", "link"):
        page.locator(f"#lab-{name}").dispatch_event("click")
    reader.complaints[:] = [text for text in reader.complaints if "ERR_FAILED" not in text]
    assert reader.complaints == []
    page.unroute("**/lab/{scene,5}-*.js")
    page.locator("#lab-clip").select_option(index=1)
    assert len(reader.heard()["input"]) == 5 * RATE
