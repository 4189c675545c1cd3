"""Sounds that come from a browser as the bytes of a file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from sonibook.audio import read_audio
from sonibook.errors import AudioError


def read_upload(name: str, content: bytes, sample_rate: int) -> Float[ndarray, " time"]:
    """An uploaded file as a waveform; an error names it as its owner does.

    Parameters
    ----------
    name : str
        What the file is called, without a folder.
    content : bytes
    sample_rate : int > 0, in Hz

    Returns
    -------
    ndarray, shape (time,), float32
        Mono, at unit peak.

    Raises
    ------
    AudioError
        As `sonibook.read_audio`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return read_audio(path, sample_rate=sample_rate)
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from None
