"""The book's widgets as a learner uses them: in JupyterLab, with a mouse, a keyboard and a file."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
CHAPTER = ROOT / "book" / "01_why_listen.ipynb"
DESKTOP = {"width": 1280, "height": 1000}
NOTEBOOK = """\
from sonibook import CNN12, load_encoder, open_dataset, show
from sonibook.widgets.view import AliasSlider

networks = {"supervised": load_encoder("supervised"), "random": CNN12(width=0.25, seed=0).eval()}
data = open_dataset("soundscapes", split="test", size=6, seed=0)
explorer = show.Explorer(networks, data)
explorer.microphone.seconds = 1.0
display(explorer)
AliasSlider(frequency=3900)
"""
NETWORKS = Path(os.environ.get("SONIBOOK_NETWORKS", "."))
#: A network of others, which takes 22,050 Hz, and nobody says so.
SOUNDNET = f"""\
from sonibook import open_dataset, show
from sonibook.model.checkpoint import open_network

network, card = open_network({str(NETWORKS / "soundnet.safetensors")!r})
show.Explorer(network, open_dataset("soundscapes", split="test", size=3, duration=2.0, seed=0))
"""
#: The sampling rates that the players' FLAC files tell.
RATES = """async (explorer) => Promise.all(
    explorer.querySelector("sonibook-player").tracks.map(async (track) => {
        const bytes = new Uint8Array(await track.file());
        return (bytes[18] << 12) | (bytes[19] << 4) | (bytes[20] >> 4);
    }))"""
#: Whether the notebook's kernel is there.
CONNECTED = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return session?.isReady && session.session?.kernel?.connectionStatus === "connected"
        && session.session.kernel.status === "idle";
}"""
#: What can be seen and heard; waits until all is drawn.
STATE = r"""async (explorer) => {
    const players = [...explorer.querySelectorAll("sonibook-player")];
    const tracks = players.flatMap((player) => player.tracks);
    await Promise.all(tracks.map((track) => track.samples()));
    const digest = async (track) => {
        const bytes = await track.file();
        return [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].join(" ");
    };
    const drawn = [...players[0].shadowRoot.querySelectorAll("figure.drawn .spectrogram")];
    const text = (selector) =>
        [...explorer.querySelectorAll(selector)].map((each) => each.textContent).join(" ");
    return {
        durations: tracks.map((track) => track.duration),
        sounds: await Promise.all(tracks.map(digest)),
        picture: drawn.map((canvas) => canvas.toDataURL()).join(),
        widths: drawn.map((canvas) => canvas.getBoundingClientRect().width),
        text: text(".widget-html p"),
        notice: text("[role=status]"),
        clip: explorer.querySelector("select").selectedOptions[0].textContent.replace(/\s/g, " "),
        readouts: [...explorer.querySelectorAll(".widget-readout")].map((each) => each.textContent),
        top: [...explorer.querySelectorAll("button")].map((each) => each.textContent)
            .filter((words) => words.startsWith("top clip")),
    };
}"""
#: Which tracks play, and where they are.
PLAYING = """(explorer) => [...explorer.querySelectorAll("sonibook-player")]
    .filter((player) => !player.paused)
    .map((player) => [player.tracks[player.track].name, player.currentTime])"""

#: Whether every cell of code was run.
RUN = """() => jupyterapp.shell.currentWidget.content.widgets.every((cell) =>
    cell.model.type !== "code" || cell.model.executionCount !== null)"""
#: What each cell shows, once it is in view: its text and HTML, and whether its code is folded.
CELLS = """async () => {
    const notebook = jupyterapp.shell.currentWidget.content;
    const shown = [];
    for (const [number, cell] of notebook.widgets.entries()) {
        await notebook.scrollToItem(number);
        if (cell.model.type === "markdown") {
            for (let tries = 0; tries < 100; tries += 1) {
                if (cell.node.querySelector(".myst, .jp-MarkdownOutput")?.innerText.trim()) break;
                await new Promise((done) => setTimeout(done, 50));
            }
        }
        shown.push({
            tags: cell.model.getMetadata("tags") ?? [],
            markdown: cell.model.type === "markdown",
            text: cell.node.querySelector(".myst, .jp-MarkdownOutput")?.innerText ?? "",
            open: cell.node.querySelectorAll("details[open]").length,
            folds: cell.node.querySelectorAll("details").length,
            folded: Boolean(cell.inputHidden),
        });
    }
    return shown;
}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a notebook in a JupyterLab of its own, which knows no user's settings."""
    pytest.importorskip("jupyterlab")
    folder = tmp_path_factory.mktemp("lab")
    (folder / "book").mkdir()
    for name, code in (("explore", NOTEBOOK), ("soundnet", SOUNDNET)):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / "book" / f"{name}.ipynb")
    shutil.copy(CHAPTER, folder / "book")
    port = free_port()
    own = {
        name: str(folder / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")
    }
    own |= {
        f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")
    }
    log = folder / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
             "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
             "--IdentityProvider.token=", "--ServerApp.password=",
             f"--ServerApp.root_dir={folder / 'book'}",
             "--LabApp.extension_manager=readonly",
             "--LabApp.expose_app_in_browser=True",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
             "--LabApp.news_url=None"],
            env={**os.environ, **own, "IPYTHONDIR": str(folder / "ipython")},
            stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/api/status", server, log)
            yield f"{address}/lab/tree/explore.ipynb?reset"  # without what was open before
        finally:
            # The server ends its kernels when it is asked to end.
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path, seconds: int = 60) -> None:
    """Until the server answers."""
    end = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=2) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab does not answer:\n{log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def page(browser: Any, lab: str) -> Iterator[Any]:
    """The notebook, run, with the explorer in it."""
    with running(browser, lab) as page:
        yield page


@contextmanager
def running(browser: Any, address: str) -> Iterator[Any]:
    """A notebook that has run and shows what is to be played."""
    context = browser.new_context(viewport=DESKTOP, permissions=["microphone"])
    page = context.new_page()
    page.goto(address)
    # JupyterLab drops what it is told to run in the moment before its kernel is connected.
    page.wait_for_function(CONNECTED, timeout=60_000)
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    drawn = ".jp-OutputArea .widget-vbox sonibook-player figure.drawn .spectrogram"
    page.wait_for_selector(drawn, state="attached", timeout=60_000)
    yield page
    context.close()


class Seen:
    """The explorer, and what it showed last."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.explorer = page.locator(".jp-OutputArea .widget-vbox").first
        self.state = self.look()

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = self.explorer.evaluate(STATE)
        return found

    def settled(self, *, until: float) -> dict[str, Any]:
        """What is shown once it stays: messages for the other widgets follow the first."""
        state: dict[str, Any] = {}
        while state != (now := self.look()):
            assert time.monotonic() < until, "what is shown goes on changing"
            state = now
            self.page.wait_for_timeout(400)
        return state

    def after(
        self, action: Callable[[], object], name: str, *, changed: str = "text", clip: str = ""
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The states before and after an action; `changed` and `clip` tell when it is answered."""
        before = self.state
        action()
        end = time.monotonic() + 40
        while (now := self.look())[changed] == before[changed] or clip not in now["clip"]:
            assert time.monotonic() < end, f"{name}: nothing happened. {now['notice']}"
            self.page.wait_for_timeout(100)
        self.state = self.settled(until=end)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(SCREENSHOTS / f"jupyterlab-{name}.png"))
        return before, self.state


@pytest.fixture(scope="module")
def seen(page: Any) -> Seen:
    return Seen(page)


def plays(state: dict[str, Any]) -> None:
    """Input, sonification and residual can be played and are as long, and drawn."""
    assert len(state["durations"]) == 3
    assert len(set(state["durations"])) == 1
    assert state["durations"][0] > 0
    assert min(state["widths"]) > 150
    assert len(state["widths"]) == 3


def slider(page: Any, label: str) -> Any:
    return page.locator(".widget-hslider", has_text=label).locator(".noUi-handle")


def wav(seconds: float, frequency: float, rate: int = 22_050) -> bytes:
    """A tone that is not there all the time, as a file."""
    time_axis = np.arange(int(seconds * rate)) / rate
    x = 0.5 * np.sin(2 * np.pi * frequency * time_axis) * (time_axis > seconds / 3)
    file = io.BytesIO()
    soundfile.write(file, x, rate, format="WAV")
    return file.getvalue()


def choose_file(page: Any, name: str, content: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator(".widget-upload").click()
    chooser.value.set_files({"name": name, "mimeType": "audio/wav", "buffer": content})


def test_the_explorer_plays_and_draws_at_once(seen: Seen) -> None:
    plays(seen.state)
    assert "Layer 1, rank 1 of 16" in seen.state["text"]
    assert "supervised: Layer 1" in seen.state["text"]
    assert "Coherence with the input" in seen.state["text"]
    assert "SI-SDR" in seen.state["text"]
    assert len(set(seen.state["sounds"])) == 3


@pytest.mark.parametrize(
    ("label", "said"),
    [("Layer", "Layer 2, rank 1 of 16"), ("Filter rank", "Layer 2, rank 2 of 16")],
)
def test_another_layer_and_filter_are_heard_and_seen(seen: Seen, label: str, said: str) -> None:
    handle = slider(seen.page, label)
    handle.focus()
    before, after = seen.after(lambda: handle.press("ArrowRight"), label.split()[0].lower())
    plays(after)
    assert said in after["text"]
    assert after["sounds"][0] == before["sounds"][0]
    assert after["sounds"][1] != before["sounds"][1]
    assert after["sounds"][2] != before["sounds"][2]
    assert after["picture"] != before["picture"]


def test_another_clip_is_heard_and_seen(seen: Seen) -> None:
    chooser = seen.explorer.locator("select")
    before, after = seen.after(lambda: chooser.select_option(index=5), "clip", changed="sounds")
    plays(after)
    assert after["sounds"][0] != before["sounds"][0]
    assert after["sounds"][1] != before["sounds"][1]
    assert after["sounds"][2] != before["sounds"][2]
    assert after["picture"] != before["picture"]
    assert after["readouts"] == ["2", "1"]


def test_a_and_b_are_one_place_and_a_slider_moves_what_plays(seen: Seen) -> None:
    def playing(name: str) -> float:
        end = time.monotonic() + 10
        while True:
            found = seen.explorer.evaluate(PLAYING)
            if len(found) == 1 and found[0][0] == name and found[0][1] > 0:
                return float(found[0][1])
            assert time.monotonic() < end, f"{name} does not play alone: {found}"
            seen.page.wait_for_timeout(50)

    seen.explorer.get_by_role("button", name="Loop").click()
    seen.explorer.get_by_role("button", name="1 Input").click()
    playing("Input")
    seen.page.wait_for_timeout(500)
    place = playing("Input")
    # The digits are the player's here, and make no headings of JupyterLab's cells.
    seen.page.keyboard.press("2")
    assert playing("Sonification") >= place
    assert seen.page.locator(".jp-MarkdownCell").count() == 0
    seen.page.wait_for_timeout(300)
    place = playing("Sonification")
    handle = slider(seen.page, "Filter rank")
    handle.focus()
    _, after = seen.after(lambda: handle.press("ArrowRight"), "moved-while-playing")
    plays(after)
    assert playing("Sonification") >= place or place > 4.0  # it may have begun anew: a loop
    seen.explorer.locator("sonibook-player").first.evaluate("(player) => player.pause()")


def test_the_clips_of_a_filter_are_found_and_one_click_away(seen: Seen) -> None:
    find = seen.explorer.get_by_role("button", name="Which clips excite it most?")
    _, after = seen.after(lambda: find.click(), "top-clips", changed="top")
    assert 1 <= len(after["top"]) <= 3
    assert after["top"][0].startswith("top clip 1: ")
    last = len(after["top"])
    words = re.search(r"filter \d+", after["text"])
    assert words
    title = after["top"][-1].removeprefix(f"top clip {last}: ")
    if title == after["clip"]:
        title = after["top"][0].removeprefix("top clip 1: ")
    jump = seen.explorer.get_by_role("button", name=title)
    _, after = seen.after(lambda: jump.click(), "top-clip", changed="sounds")
    plays(after)
    assert after["clip"] == title
    assert words.group() in after["text"]


def test_another_network_is_heard_and_both_are_shown_together(seen: Seen) -> None:
    other = seen.explorer.get_by_role("radio", name="random").or_(
        seen.explorer.get_by_role("button", name="random")
    )
    before, after = seen.after(lambda: other.first.click(), "network", changed="sounds")
    plays(after)
    assert "random: Layer 2" in after["text"]
    assert after["sounds"][0] == before["sounds"][0]
    assert after["sounds"][1] != before["sounds"][1]
    both = seen.explorer.get_by_label("all of them, one below the other")
    _, together = seen.after(lambda: both.check(), "both-networks", changed="durations")
    assert len(together["durations"]) == 6
    assert "random: Layer 2" in together["text"]
    assert "supervised: Layer 2" in together["text"]
    assert together["sounds"][:3] == after["sounds"]
    assert together["sounds"][3] == after["sounds"][0]
    assert together["sounds"][4] not in after["sounds"]
    _, after = seen.after(lambda: both.uncheck(), "one-network", changed="durations")
    plays(after)


def test_the_microphone_is_heard(seen: Seen) -> None:
    record = seen.explorer.get_by_role("button", name="Record 1 s")
    before, after = seen.after(
        lambda: record.click(), "microphone", changed="sounds", clip="recording 1"
    )
    plays(after)
    assert after["clip"] == "recording 1"
    assert after["durations"][0] == pytest.approx(1.0, abs=1e-3)
    assert after["sounds"][1] != before["sounds"][1]
    assert after["notice"].strip() == ""
    record.wait_for()  # it can be pressed again, and says so
    seen.page.wait_for_timeout(500)
    assert record.is_enabled()


def test_an_uploaded_file_is_heard_and_what_is_no_sound_is_refused(seen: Seen) -> None:
    before, after = seen.after(
        lambda: choose_file(seen.page, "my tone.wav", wav(1.5, 440.0)),
        "upload", changed="sounds", clip="my tone.wav",
    )  # fmt: skip
    plays(after)
    assert after["durations"][0] == pytest.approx(1.5, abs=1e-3)
    assert "my tone.wav" in after["clip"]
    assert after["sounds"][1] != before["sounds"][1]
    assert after["sounds"][2] != before["sounds"][2]
    assert after["picture"] != before["picture"]

    before, after = seen.after(
        lambda: choose_file(seen.page, "letter.wav", b"Dear reader, this is not a sound.\n"),
        "refused", changed="notice",
    )  # fmt: skip
    assert after["notice"].startswith("letter.wav: ")
    assert after["notice"].count(".wav") == after["notice"].count(": give") == 1
    for kept in ("sounds", "picture", "clip", "readouts", "durations"):
        assert after[kept] == before[kept], kept

    # After a refusal the instrument goes on, and the sentence is gone.
    handle = slider(seen.page, "Layer")
    handle.focus()
    before, after = seen.after(lambda: handle.press("ArrowRight"), "after-refusal")
    plays(after)
    assert after["sounds"][1] != before["sounds"][1]
    assert after["notice"].strip() == ""


def test_the_slider_of_a_chapter_moves_sound_picture_and_words(page: Any) -> None:
    from playwright.sync_api import expect

    aliases = page.locator(".widget-vbox", has=page.get_by_text("Tone / Hz"))
    player, image = aliases.locator("sonibook-player"), aliases.locator("img")
    name = "(player) => player.tracks[0].name"
    aliases.get_by_text("a tone of 3900 Hz is kept").wait_for()
    assert player.evaluate(name) == "Samples of 3900 Hz"
    before = image.get_attribute("src")
    handle = aliases.locator(".noUi-handle")
    handle.focus()
    for _ in range(3):
        handle.press("ArrowRight")
    aliases.get_by_text("a tone of 4200 Hz comes back as one of 3800 Hz").wait_for()
    # Sound and picture follow.
    aliases.get_by_role("button", name="Samples of 4200 Hz").wait_for()
    expect(image).not_to_have_attribute("src", before)
    # What plays goes on as the new tone, where it was.
    player.evaluate("(player) => { player.loop = true; return player.play(); }")
    handle.press("ArrowRight")
    aliases.get_by_role("button", name="Samples of 4300 Hz").wait_for()
    assert player.evaluate("(player) => !player.paused")
    player.evaluate("(player) => player.pause()")
    aliases.screenshot(path=str(SCREENSHOTS / "jupyterlab-aliasing.png"))


@pytest.mark.skipif(
    "SONIBOOK_LIVE" not in os.environ,
    reason="runs a chapter in JupyterLab, on an idle machine: set SONIBOOK_LIVE",
)
def test_a_chapter_reads_as_on_the_page(browser: Any, lab: str) -> None:
    page = browser.new_page(viewport=DESKTOP)
    page.goto(lab.replace("explore.ipynb", CHAPTER.name))
    page.wait_for_function(CONNECTED, timeout=60_000)
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(RUN, timeout=120_000)
    cells = page.evaluate(CELLS)
    page.screenshot(path=str(SCREENSHOTS / "jupyterlab-chapter.png"))
    page.close()
    prose = [cell for cell in cells if cell["markdown"]]
    assert all(cell["text"].strip() for cell in prose)
    unread = [re.findall(r":::.*|\{[\w:]+\}`.*|:class:.*", cell["text"]) for cell in prose]
    assert not [found for found in unread if found]
    assert sum(cell["folds"] for cell in prose) == 6  # three exercises and three questions
    assert not any(cell["open"] for cell in prose)
    for cell in cells:
        assert cell["folded"] == bool({"hide-input", "hide-cell"} & set(cell["tags"]))


@pytest.mark.skipif(
    not (NETWORKS / "soundnet.safetensors").is_file(),
    reason="SONIBOOK_NETWORKS names no folder with soundnet.safetensors (make networks)",
)
def test_a_network_of_others_is_heard_at_its_own_rate(browser: Any, lab: str) -> None:
    with running(browser, lab.replace("explore.ipynb", "soundnet.ipynb")) as page:
        seen = Seen(page)
        plays(seen.state)
        assert seen.state["durations"][0] == pytest.approx(2.0, abs=1e-3)
        assert seen.explorer.evaluate(RATES) == [22_050] * 3
        handle = slider(page, "Layer")
        handle.focus()
        before, after = seen.after(lambda: handle.press("ArrowRight"), "soundnet")
        plays(after)
        assert "Layer 2, rank 1 of 32" in after["text"]
        assert after["sounds"][0] == before["sounds"][0]
        assert after["sounds"][1] != before["sounds"][1]
        assert after["picture"] != before["picture"]
        assert after["durations"] == before["durations"]
        assert seen.explorer.evaluate(RATES) == [22_050] * 3
