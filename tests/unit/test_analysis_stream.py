"""The stream that every analysis runs on, and the base of what they give back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import nn

from sonibook.analysis import workers
from sonibook.analysis.result import Estimate, MeasuredOn, Result, estimate, fingerprint, key_of
from sonibook.analysis.stream import Chunk, gather, seeded, stream
from sonibook.datasets import Clip, Dataset, open_dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError, AudioError
from sonibook.metrics import bootstrap_interval
from sonibook.model.encoder import CNN12

KEY = {"analysis": "test"}
IN_ORDER = """
import os, sys, time
from workers import in_order

def work(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()

if __name__ == "__main__":
    for process in in_order(work, [(number,) for number in range(100_000)], 2):
        print(process, flush=True)
"""


@dataclass(frozen=True)
class Listen:
    """Sonifies with a real network, draws by clip, and perhaps comes to a stop."""

    network: nn.Module
    stop_at: str = ""
    how: str = ""

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        if self.stop_at in [clip.clip_id for clip in clips]:
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        sounds = [
            ForwardPass(self.network, clip.waveform).sonify_most_active(rescale=True)[0]
            for clip in clips
        ]
        return {
            "rms": torch.stack([s.square().mean(dim=1) for s in sounds]).numpy(),
            "threads": np.full(len(clips), torch.get_num_threads()),
            "drawn": np.array([seeded(1, clip.clip_id).random() for clip in clips]),
        }


class Sounds(Dataset):
    """Clips that a test makes."""

    name, classes, split, task = "sounds", ("any",), "all", "single-label"

    def __init__(self, waveforms: Sequence[ndarray | None]) -> None:
        self.waveforms = waveforms

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, index: int) -> Clip:
        waveform = self.waveforms[index]
        if waveform is None:
            raise AudioError(f"clip {index} is not a sound.")
        return Clip(waveform, (0,), f"sound-{index}")


@dataclass(frozen=True)
class Peak:
    """The simplest measure."""

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        return {"peak": np.array([np.abs(clip.waveform).max() for clip in clips])}


@pytest.fixture(scope="module")
def network() -> CNN12:
    return CNN12(width=1 / 16, seed=0).eval()


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return open_dataset("soundscapes", size=11, duration=1.0, seed=5)


def same(first: Chunk, second: Chunk) -> bool:
    return (
        first.index.tolist() == second.index.tolist()
        and first.clip_ids == second.clip_ids
        and first.skipped == second.skipped
        and first.arrays.keys() == second.arrays.keys()
        and all((first.arrays[name] == second.arrays[name]).all() for name in first.arrays)
    )


def tone(samples: int = 4000) -> ndarray:
    return np.sin(np.arange(samples) * 0.3).astype(np.float32)


def test_one_and_two_processes_give_the_same_bits_on_one_thread_each(network, scenes) -> None:
    whole = [
        gather(stream(Listen(network), scenes, key=KEY, chunk=4, processes=processes))
        for processes in (1, 2)
    ]
    assert same(*whole)
    assert whole[0].clip_ids == tuple(clip.clip_id for clip in scenes)
    assert whole[0].arrays["rms"].shape == (11, 11)
    assert set(whole[0].arrays["threads"]) == {1}
    assert len(set(whole[0].arrays["drawn"])) == 11


def test_threads_of_the_caller_are_left_as_they_were(network, scenes) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gather(stream(Listen(network), scenes, key=KEY, limit=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_interrupted_it_goes_on_where_it_stood(network, scenes, tmp_path) -> None:
    options = {"key": KEY, "parts": tmp_path, "chunk": 2}
    broken = Listen(network, stop_at=scenes[7].clip_id)
    with pytest.raises(KeyboardInterrupt):
        gather(stream(broken, scenes, **options))
    assert len(list(tmp_path.rglob("*.npz"))) == 3
    # The work that goes on would stop at the first clip, were that measured again.
    resumed = gather(stream(Listen(network, stop_at=scenes[0].clip_id), scenes, **options))
    assert same(resumed, gather(stream(Listen(network), scenes, key=KEY, chunk=2)))


@pytest.mark.usefixtures("quick_processes")
def test_a_process_that_dies_is_one_sentence_and_loses_nothing(network, scenes, tmp_path) -> None:
    broken = Listen(network, stop_at=scenes[10].clip_id, how="die")
    options = {"key": KEY, "parts": tmp_path, "chunk": 2}
    with pytest.raises(AnalysisError, match=r"processes died.*is kept"):
        gather(stream(broken, scenes, processes=2, **options))
    kept = len(list(tmp_path.rglob("*.npz")))
    assert kept >= 1
    resumed = gather(stream(Listen(network), scenes, **options))
    assert same(resumed, gather(stream(Listen(network), scenes, key=KEY, chunk=2)))


def test_chunks_of_other_settings_or_sounds_are_never_mixed(tmp_path) -> None:
    def peaks(data: Dataset, **options: object) -> list[float]:
        settings = {"key": KEY, "parts": tmp_path, **options}
        return gather(stream(Peak(), data, **settings)).arrays["peak"].tolist()

    first = Sounds([0.5 * tone(), tone()])
    louder = Sounds([0.75 * tone(), tone()])
    assert peaks(first) == pytest.approx([0.5, 1.0], rel=1e-3)
    assert peaks(louder) == pytest.approx([0.75, 1.0], rel=1e-3)
    assert len(peaks(first, key={"analysis": "other"})) == 2
    assert len(peaks(first, limit=1)) == 1
    assert len(peaks(first, least_samples=4000)) == 2
    assert len(list(tmp_path.iterdir())) == 5


def test_a_damaged_chunk_is_measured_again(tmp_path) -> None:
    data = Sounds([tone(), tone()])
    first = gather(stream(Peak(), data, key=KEY, parts=tmp_path))
    (part,) = tmp_path.rglob("*.npz")
    part.write_bytes(part.read_bytes()[:100])
    assert same(gather(stream(Peak(), data, key=KEY, parts=tmp_path)), first)


def test_what_cannot_be_measured_is_skipped_and_counted() -> None:
    short, silent = tone(255), np.zeros(4000, np.float32)
    data = Sounds([tone(), silent, short, None, 0.5 * tone(256), silent, silent, silent])
    chunks = list(stream(Peak(), data, key=KEY, chunk=5))
    assert chunks[1].arrays == {}
    whole = gather(chunks)
    assert whole.skipped == {"short": 1, "silent": 4, "unreadable": 1}
    assert whole.clip_ids == ("sound-0", "sound-4")
    assert whole.index.tolist() == [0, 4]


def test_a_disk_that_has_gone_is_no_bad_file() -> None:
    data = Sounds([*[tone()] * 4, *[None] * 4])
    with pytest.raises(AudioError, match="clip 7 is not a sound"):
        gather(stream(Peak(), data, key=KEY, chunk=4))


def test_a_bad_file_alone_in_the_last_chunk_is_skipped() -> None:
    whole = gather(stream(Peak(), Sounds([tone(), tone(), None]), key=KEY, chunk=2))
    assert whole.skipped == {"unreadable": 1}


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(AnalysisError, match=r"no clip to measure \(2 silent\)"):
        gather(stream(Peak(), Sounds([np.zeros(4000, np.float32)] * 2), key=KEY))
    with pytest.raises(AnalysisError, match="the data set is empty"):
        gather(stream(Peak(), Sounds([]), key=KEY))


def test_a_limit_is_spread_evenly() -> None:
    data = Sounds([tone()] * 10)
    assert gather(stream(Peak(), data, key=KEY, limit=4)).index.tolist() == [0, 2, 5, 7]
    assert gather(stream(Peak(), data, key=KEY, limit=99)).index.tolist() == list(range(10))


@pytest.mark.parametrize("option", ["chunk", "processes", "limit"])
def test_impossible_numbers_are_refused(option) -> None:
    with pytest.raises(AnalysisError, match=f"{option} 0 is impossible"):
        gather(stream(Peak(), Sounds([tone()]), key=KEY, **{option: 0}))


def test_it_holds_no_more_chunks_than_it_must(monkeypatch) -> None:
    """Memory does not grow with the data: a chunk is measured when it is asked for."""
    asked: list[int] = []
    data = Sounds([tone()] * 1000)
    monkeypatch.setattr(
        Sounds, "__getitem__", lambda self, index: asked.append(index) or Clip(tone(), (0,), "x")
    )
    chunks = stream(Peak(), data, key=KEY, chunk=4)
    next(chunks)
    assert asked == [0, 1, 2, 3]


def test_seeded_draws_depend_on_the_name_alone() -> None:
    first = seeded(0, "a", "b").random(3)
    assert (first == seeded(0, "a", "b").random(3)).all()
    for other in (seeded(1, "a", "b"), seeded(0, "ab"), seeded(0, "b", "a")):
        assert not (first == other.random(3)).any()


class Loudness(Result):
    loudest: tuple[float, ...]


def loudness(**changes: object) -> Loudness:
    key = key_of("loudness", {"tiny": CNN12(width=1 / 64, seed=0)}, {"k": 3, "layers": [1, 2]})
    data = MeasuredOn.of(Sounds([tone()]), clips=1, skipped={"silent": 2})
    return Loudness(**{**key, "data": data, "loudest": (0.1, 1 / 3), **changes})


def test_a_result_is_read_back_equal_with_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    result = loudness()
    result.write(path)
    read = Loudness.read(path)
    assert read == result
    assert read.provenance == result.provenance
    assert read.provenance["versions"]["torch"]
    assert read != loudness(loudest=(0.1, 0.3))
    again = loudness(provenance={"command": "another"})
    assert again == result


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"loudest": ["loud"]}, r"loudest\.0: Input should be a valid number"),
        ({"data": None}, "data: "),
        ({"unknown": 1}, "unknown: Extra inputs"),
    ],
)
def test_a_result_that_is_none_is_refused_in_one_sentence(tmp_path, change, reason) -> None:
    path = tmp_path / "result.json"
    loudness().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(AnalysisError, match=rf"result.json: is not a Loudness result \({reason}"):
        Loudness.read(path)


def test_files_that_are_no_json_are_refused(tmp_path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(AnalysisError, match="is not JSON"):
        Loudness.read(tmp_path / "a.json")
    with pytest.raises(AnalysisError, match="cannot be read"):
        Loudness.read(tmp_path / "b.json")


def test_nan_is_no_result() -> None:
    with pytest.raises(ValueError, match="finite"):
        loudness(loudest=(float("nan"),))


def test_an_estimate_leaves_out_what_could_not_be_measured() -> None:
    values = np.random.default_rng(0).random(50)
    ours = estimate(np.concatenate([values, [np.nan] * 7]), seed=3)
    times = np.random.default_rng(3).multinomial(57, np.full(57, 1 / 57), size=2000)[:, :50]
    expected = np.quantile(times @ values / times.sum(axis=1), [0.025, 0.975])
    assert (ours.low, ours.high) == pytest.approx(expected, rel=1e-12)
    assert (ours.low, ours.high) == pytest.approx(bootstrap_interval(values, seed=3), abs=0.01)
    assert (ours.mean, ours.clips) == (pytest.approx(values.mean()), 50)
    assert estimate(np.array([0.5])) == Estimate(mean=0.5, low=None, high=None, clips=1)
    assert estimate(np.array([np.nan])) == Estimate(mean=None, low=None, high=None, clips=0)


def test_fingerprints_tell_networks_apart() -> None:
    def stack(pool: int, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.MaxPool1d(pool))

    assert fingerprint(stack(2)) == fingerprint(stack(2))
    assert fingerprint(stack(2)) != fingerprint(stack(2, seed=1))
    assert fingerprint(stack(2)) != fingerprint(stack(4))


def alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_no_process_outlives_the_one_that_it_works_for(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IN_ORDER)
    shutil.copy(workers.__file__, tmp_path)  # alone: the library would be imported three times
    found: set[int] = set()
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        while len(found) < 2:
            found.add(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while any(map(alive, found)) and time.monotonic() < until:
        time.sleep(0.05)
    left = [process for process in found if alive(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left
