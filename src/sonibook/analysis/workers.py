"""One function on many arguments, in several processes, the results in order."""

from __future__ import annotations

import pickle
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

#: Calls that are begun ahead of the one that is waited for, for each process.
_AHEAD = 2


def in_order(function: Callable[..., Any], calls: Sequence[tuple], workers: int) -> Iterator[Any]:
    """``function(*call)`` for each of `calls`, a few ahead of the one that is asked for.

    Parameters
    ----------
    function : callable
        Picklable, if there are several workers. Each process gets it once.
    calls : sequence of tuple
        The arguments of each call.
    workers : int >= 1
        Processes; 1 computes in this one.

    Yields
    ------
    object
        What the calls gave, in their order.

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        If a process dies.
    Exception
        What a call raises. Calls that have begun are finished first; Ctrl-C does the same.
    """
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
                with _deaf_to_interrupts():
                    waiting.append(pool.submit(_call, call))
                if len(waiting) == _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C for the moment in which a process starts: it inherits that for good.

    An interrupt in that moment would leave behind a process that nobody knows of.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_function: Callable[..., Any]


def _start(file: Path) -> None:
    """Make a new process ready."""
    global _function
    _function = pickle.loads(file.read_bytes())  # noqa: S301 - from our own parent


def _call(call: tuple) -> Any:
    return _function(*call)
