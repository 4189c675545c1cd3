"""One function on many arguments, in several processes, the results in order."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from pathlib import Path
from threading import Thread
from typing import Any

#: Calls that are begun ahead of the one that is waited for, for each process.
_AHEAD = 2


def in_order(function: Callable[..., Any], calls: Sequence[tuple], workers: int) -> Iterator[Any]:
    """``function(*call)`` for each of `calls`, a few ahead of the one that is asked for."""
    if workers == 1:
        yield from (function(*call) for call in calls)
        return
    with tempfile.TemporaryDirectory() as folder:
        # By a file: a process that is handed more than a pipe holds keeps the next one from
        # starting until it has woken up. Pickled here: tensors would travel by shared memory, of
        # which containers have little.
        file = Path(folder, "function.pickle")
        file.write_bytes(pickle.dumps(function))
        # Spawned, since the fork of a process with threads may hang.
        pool = ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=_start, initargs=(file,)
        )
        waiting: deque[Future[Any]] = deque()
        try:
            for call in calls:
                with _holding_interrupts():
                    waiting.append(pool.submit(_call, call))
                if len(waiting) == _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _holding_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back while a process starts: that inherits it, or nobody would know of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield  # Windows, which has no signals to hold back
        return
    # Python's own helper, which would be started with the first process and let interrupts in.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_function: Callable[..., Any]


def _start(file: Path) -> None:
    """Make a new process ready."""
    global _function
    Thread(target=_end_with_parent, daemon=True).start()
    _function = pickle.loads(file.read_bytes())  # noqa: S301 - from our own parent


def _end_with_parent() -> None:
    """End when the process that started this one was killed: it would wait for calls for good."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(call: tuple) -> Any:
    return _function(*call)
