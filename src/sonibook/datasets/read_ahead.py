"""A data set read from end to end, a few clips ahead, by several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from jaxtyping import Int16
from numpy import ndarray

from sonibook.datasets.base import Dataset
from sonibook.datasets.packed import quantise
from sonibook.errors import AudioError, DatasetError, MissingAudioError

#: So many bad clips in a row are no bad clips but a disk that has gone.
BAD_IN_A_ROW = 100
_AHEAD = 4


@dataclass(frozen=True)
class Readable:
    """A clip as it is packed."""

    index: int
    samples: Int16[ndarray, " time"]
    labels: tuple[int, ...]
    clip_id: str


@dataclass(frozen=True)
class Unreadable:
    """A clip that cannot be read, and why."""

    index: int
    reason: str


Outcome = Readable | Unreadable


@contextmanager
def read_ahead(
    data: Dataset, start: int, *, workers: int, progress: bool | None
) -> Iterator[Iterator[Outcome]]:
    """Read the clips of a data set in order.

    Decoding and resampling leave Python's lock alone most of the time, so threads will do.

    Parameters
    ----------
    data : Dataset
    start : int >= 0
        The first clip to read.
    workers : int >= 1
        Threads. The order of what is yielded does not depend on it.
    progress : bool or None
        Whether to show a progress bar; None shows one on a terminal.

    Yields
    ------
    iterator of Readable or Unreadable
        Clip after clip; it raises DatasetError where `BAD_IN_A_ROW` clips cannot be read.
    """
    from tqdm.auto import tqdm

    def outcomes() -> Iterator[Outcome]:
        indices = iter(range(start, len(data)))
        waiting: deque[Future[Outcome]] = deque()
        bad_in_a_row = 0
        while True:
            for index in islice(indices, _AHEAD * workers - len(waiting)):
                waiting.append(readers.submit(_read, data, index))
            if not waiting:
                return
            outcome = waiting.popleft().result()
            bar.update()
            bad_in_a_row = bad_in_a_row + 1 if isinstance(outcome, Unreadable) else 0
            if isinstance(outcome, Unreadable) and bad_in_a_row == BAD_IN_A_ROW:
                raise DatasetError(
                    f"{bad_in_a_row} clips in a row cannot be read, the last because: "
                    f"{outcome.reason} Is the disk there? If it is, mend or remove them."
                )
            yield outcome

    readers = ThreadPoolExecutor(workers)
    hidden = None if progress is None else not progress
    with tqdm(
        desc="pack", unit="clip", total=len(data), initial=start, disable=hidden, leave=False
    ) as bar:
        try:
            yield outcomes()
        finally:
            readers.shutdown(cancel_futures=True)


def _read(data: Dataset, index: int) -> Outcome:
    try:
        clip = data[index]
        return Readable(index, quantise(clip.waveform), clip.labels, clip.clip_id)
    except MissingAudioError as error:
        raise DatasetError(
            f"{error} It was there when the data set was opened: is the disk still there? Nothing "
            "is lost: pack again to go on."
        ) from None
    except AudioError as error:
        return Unreadable(index, str(error))
