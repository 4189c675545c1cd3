"""A real browser and a server for the built pages."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator

import pytest
from built import KINDS, PAGES, made_alike, opened_names
from firefox import Firefox, installed

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A microphone that beeps; a page still has to be allowed to listen to it.
    "--use-fake-device-for-media-stream",
)


def missing(reason: str) -> None:
    """Skip on a developer's machine; fail where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "page_name" in metafunc.fixturenames:
        names = opened_names()
        if metafunc.definition.get_closest_marker("one_of_a_kind"):
            names = [name for name in names if not made_alike(name) or name in KINDS]
        # One visit a page: all its tests look at the same one.
        metafunc.parametrize("page_name", names or ["index.html"], scope="module")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The address under which the built pages are served."""
    if not (PAGES / "index.html").is_file():
        missing("The book is not built: run `make book` first.")
    handler = functools.partial(_Quiet, directory=str(PAGES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium, from this machine."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if executable is None:
        missing("No Chromium or Chrome on PATH: install one, such as Debian's package chromium.")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=list(_SWITCHES))
        yield running
        running.close()


@pytest.fixture(scope="session")
def firefox() -> Iterator[Firefox]:
    """Firefox, from this machine."""
    executable = installed()
    if executable is None:
        pytest.skip("No Firefox on PATH: install one, such as Debian's package firefox-esr.")
    running = Firefox(executable)
    yield running
    running.close()
