"""The lab in the page, opened from disk: to the first sound, and from slider to sound."""

from __future__ import annotations

import os
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from timing import write

PAGE = Path(__file__).parents[1] / "build" / "book" / "_build" / "html" / "lab.html"
VISITS = 5
MOVES = 15
#: Notes when the lab has shown its first sound.
WATCH = """addEventListener("DOMContentLoaded", () => {
    const shown = () => { window.firstHeard = performance.now(); };
    const later = () => requestAnimationFrame(() => setTimeout(shown));
    document.getElementById("lab").addEventListener("heard", later, { once: true });
});"""
#: Moves a slider; the milliseconds until the picture is painted and the new sound can be played.
MOVE = """([slider, value]) => new Promise((done) => {
    const lab = document.getElementById("lab");
    const start = performance.now();
    lab.addEventListener("heard", () => requestAnimationFrame(() => setTimeout(async () => {
        const track = document.querySelector("sonibook-player").tracks[1];
        await Promise.all([track.samples(), track.buffer()]); // seen, and heard
        done(performance.now() - start);
    })), { once: true });
    const input = document.getElementById(`lab-${slider}`);
    input.value = value;
    input.dispatchEvent(new Event("input"));
})"""


def measured(page: Page, network: str) -> dict[str, dict[str, float]]:
    """Milliseconds from slider to new sound and picture, at every layer of a network."""
    page.goto("about:blank")
    page.goto(f"{PAGE.as_uri()}#network={network}&layer=2")
    page.wait_for_function("window.sonibookLab?.heard")
    layers = {}
    for layer in range(1, 12):
        visit = page.evaluate(MOVE, ["layer", layer])
        filters = int(page.locator("#lab-filter").get_attribute("max") or 1)
        ranks = [1 + 7 * move % filters for move in range(1, MOVES + 1)]
        moves = [page.evaluate(MOVE, ["filter", rank]) for rank in ranks]
        layers[f"layer {layer}"] = {
            "first_visit_ms": visit,
            "median_ms": statistics.median(moves),
            "max_ms": max(moves),
        }
        print(f"{network}, layer {layer}: {statistics.median(moves):.0f} ms, first {visit:.0f} ms")
    return layers


def main() -> None:
    """Measure, print and write."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or not PAGE.is_file():
        print("Left out: it needs Chromium, and the book (`make book`).")
        return
    with sync_playwright() as playwright:
        switches = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=switches)
        first, page = [], None
        for _ in range(VISITS):
            if page is not None:
                page.close()
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.add_init_script(WATCH)
            page.goto(PAGE.as_uri())
            first.append(page.wait_for_function("window.firstHeard").json_value())
        options = page.locator("#lab-network option")
        names = options.evaluate_all("options => options.map((option) => option.value)")
        networks = {name: measured(page, name) for name in names}
        version = browser.version
        browser.close()
    print(f"first sound after {statistics.median(first):.0f} ms (largest: {max(first):.0f})")
    result = {
        "clip_seconds": 5.0,
        "browser": f"Chromium {version}, no GPU",
        "load_average": os.getloadavg()[0],
        "first_sound_ms": {"median": statistics.median(first), "max": max(first)},
        "networks": networks,
    }
    write("bench-lab", result)


if __name__ == "__main__":
    main()
