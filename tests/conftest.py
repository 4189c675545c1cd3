"""What several test files need."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest

_HERE = {None, "", b"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}


def _stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what would leave this machine: no test needs a network."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if host not in _HERE and host != os.uname().nodename:
        raise RuntimeError(f"A test asked for {host}, but tests run without a network.")


sys.addaudithook(_stay_here)

# What runs in the background may have been told to ignore Ctrl-C, and hands that down: the tests
# that send it would wait for nothing.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_power_cuts():
    """Wait for no disk: thousands of little files would take minutes to reach it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def quick_context() -> BaseContext:
    """Starts processes as forks of one that has imported what takes seconds, where forks are."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    kernel = ["papermill", "ipykernel.kernelapp", "matplotlib.pyplot"]
    context.set_forkserver_preload(["pytest", *kernel, "sonibook.chapter", "sonibook.replication"])
    return context


@pytest.fixture
def quick_processes(quick_context: BaseContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start an analysis's processes so; users start new ones."""
    monkeypatch.setattr("sonibook.analysis.workers.get_context", lambda _method: quick_context)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line: its exit code, what it prints, and its errors."""
    from sonibook.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real recordings that SONIBOOK_DATA names; the test is skipped without."""
    named = os.environ.get("SONIBOOK_DATA", "")
    if not named:
        pytest.skip("needs real recordings: set SONIBOOK_DATA to the folder that holds them")
    if not Path(named).is_dir():
        pytest.skip(f"needs real recordings: SONIBOOK_DATA names {named}, which is not a folder")
    return Path(named)


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 sounds in three classes that a network can tell apart; not to be changed."""
    from clips import write_tones

    return write_tones(tmp_path_factory.mktemp("sounds"))
