"""Firefox, driven by Marionette: the protocol it speaks by itself, with nothing else installed.

Firefox source docs, "Marionette protocol": each message is JSON with its length before it,
``[0, id, command, parameters]`` and ``[1, id, error, result]``; the commands are WebDriver's.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_NAMES = ("firefox-esr", "firefox")
_PREFERENCES = {
    "marionette.port": 0,  # a free one
    # A microphone that hums, which every page may listen to.
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    # Nothing beyond this machine: what is not on it is asked of a proxy that does not answer.
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.proxy.no_proxies_on": "127.0.0.1",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}
#: Calls a function of the page with JSON, and hands back what it, or its promise, gives.
_CALL = """
const [source, argument, done] = arguments;
window.eval(`(async () => {
    const argument = JSON.parse(${JSON.stringify(argument)});
    try {
        return JSON.stringify({ value: await (${source})(argument) });
    } catch (error) {
        return JSON.stringify({ error: String(error) });
    }
})()`).then(done);
"""
_SOCKET = "sound"
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver, section 12: the key of an element


class Firefox:
    """A headless Firefox with a new profile and one page.

    Parameters
    ----------
    executable : str
    """

    def __init__(self, executable: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True)
        profile = Path(self._folder.name)
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in _PREFERENCES.items()]
        (profile / "user.js").write_text("".join(lines), encoding="utf-8")
        self._sound = _sound_server(profile)
        switches = ("--headless", "--marionette", "--no-remote", "--profile", str(profile))
        self._process = subprocess.Popen(
            [executable, *switches, "about:blank"],
            env={**os.environ, "PULSE_SERVER": f"unix:{profile / _SOCKET}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._socket = socket.create_connection(("127.0.0.1", self._port(profile)))
            self._messages = self._socket.makefile("rb")
            self._count = 0
            self._receive()  # its greeting
            self.version = self._ask("WebDriver:NewSession")["capabilities"]["browserVersion"]
            self._ask("WebDriver:SetTimeouts", script=60_000, pageLoad=60_000)
        except BaseException:
            self._end()
            raise

    @property
    def hears(self) -> bool:
        """Whether there is a sound device: Firefox has no clock for live sound without one."""
        return self._sound is not None

    def _port(self, profile: Path) -> int:
        """Where it listens: it writes that down once it does."""
        file, patience = profile / "MarionetteActivePort", time.monotonic() + 60
        while not (file.is_file() and file.read_text().strip()):
            if self._process.poll() is not None or time.monotonic() > patience:
                raise RuntimeError("Firefox does not start.")
            time.sleep(0.05)
        return int(file.read_text())

    def _receive(self) -> Any:
        length = b""
        while (byte := self._messages.read(1)) not in (b":", b""):
            length += byte
        return json.loads(self._messages.read(int(length)))

    def _ask(self, command: str, **parameters: Any) -> Any:
        self._count += 1
        message = json.dumps([0, self._count, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, result = self._receive()
        if error:
            raise RuntimeError(f"{command}: {error['message']}")
        return result

    def goto(self, address: str) -> None:
        """Open a page and wait until it is loaded."""
        self._ask("WebDriver:Navigate", url=address)

    def add_script_tag(self, *, content: str) -> None:
        """Run a classic script in the page."""
        self.evaluate(
            """(text) => {
                const script = document.createElement("script");
                script.textContent = text;
                document.head.append(script);
            }""",
            content,
        )

    def evaluate(self, function: str, argument: Any = None) -> Any:
        """Call a function of the page, and wait for what it gives; both ways as JSON."""
        arguments = [function, json.dumps(argument)]
        text = self._ask("WebDriver:ExecuteAsyncScript", script=_CALL, args=arguments)["value"]
        answer = json.loads(text)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer.get("value")

    def wait_for(self, expression: str, *, seconds: float = 30) -> Any:
        """Wait until an expression of the page is true; its value."""
        return self.evaluate(
            """([expression, seconds]) => new Promise((done, fail) => {
                const end = performance.now() + 1000 * seconds;
                const look = () => {
                    const value = window.eval(expression);
                    if (value) done(typeof value === "object" || value);
                    else if (performance.now() > end) fail(`never came: ${expression}`);
                    else setTimeout(look, 50);
                };
                look();
            })""",
            [expression, seconds],
        )

    def _find(self, selector: str) -> str:
        found = self._ask("WebDriver:FindElement", using="css selector", value=selector)
        return found["value"][_ELEMENT]

    def click(self, selector: str) -> None:
        """Click on an element as a mouse does."""
        self._ask("WebDriver:ElementClick", id=self._find(selector))

    def type(self, selector: str, text: str) -> None:
        """Type into an element, or give a file to a chooser by its path."""
        self._ask("WebDriver:ElementSendKeys", id=self._find(selector), text=text)

    def screenshot(self, selector: str) -> bytes:
        """What is seen of an element, as PNG."""
        picture = self._ask("WebDriver:TakeScreenshot", id=self._find(selector))["value"]
        return base64.b64decode(picture)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError, RuntimeError, ValueError, subprocess.TimeoutExpired):
            self._ask("Marionette:Quit", flags=["eForceQuit"])
            self._process.wait(20)
        self._messages.close()
        self._socket.close()
        self._end()

    def _end(self) -> None:
        for process in filter(None, (self._process, self._sound)):
            process.kill()
            process.wait()
        self._folder.cleanup()


def _sound_server(folder: Path) -> subprocess.Popen | None:
    """A sound device that nobody hears, if PulseAudio is installed."""
    executable = shutil.which("pulseaudio")
    if executable is None:
        return None
    switches = ("-n", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes")
    socket_of = f"module-native-protocol-unix socket={folder / _SOCKET} auth-anonymous=1"
    server = subprocess.Popen(
        [executable, *switches, "-L", socket_of, "-L", "module-null-sink"],
        env={**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    patience = time.monotonic() + 20
    while not (folder / _SOCKET).exists():
        if server.poll() is not None or time.monotonic() > patience:
            server.kill()
            server.wait()
            return None
        time.sleep(0.05)
    return server


def installed() -> str | None:
    """Firefox on this machine."""
    return next(filter(None, map(shutil.which, _NAMES)), None)
