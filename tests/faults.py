"""Faults at random moments of training, packing and analysis: ``python tests/faults.py``.

Each trial forks a process that does a job and meets a fault at a moment that the seed decides: at
one of the times it opens, renames or removes a file, or after an amount of processor time. Then

- no file that has its final name is less than whole;
- the process has ended in one sentence (exit code 2, or 130 for Ctrl-C), if it could still speak;
- the same job, done again, ends in the same bits as one that met no fault.

Faults: ``kill`` (no handler runs), ``interrupt`` (Ctrl-C, and again a moment later), ``full`` (a
disk of random size), ``gone`` (the folder of recordings vanishes), ``readonly`` (the disk, when a
job that was killed is taken up again), ``worker`` (one of two processes of an analysis is killed).
Full and read-only disks are mounted, for which Linux wants root; without, they are left out.

Counts are merged into ``--out`` after each fault of each job, each with the commit it is of, so
that ``--jobs packing --faults full`` renews one of them.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from clips import settings_of, write_tones
from safetensors import safe_open
from safetensors.torch import load_file

from sonibook.audio import read_audio
from sonibook.cli import main as command_line
from sonibook.files import provenance, write_result
from sonibook.training import loop

FAULTS = ("kill", "interrupt", "full", "gone", "readonly", "worker")
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "tempfile.mkstemp")
#: How often a trial is drawn anew whose moment came after the end of the job.
DRAWS = 20
PLAN = {"optimiser": {"epochs": 2, "warmup_epochs": 0, "batch_size": 12}}


# --- jobs: what is done in `out`, from the recordings in `sounds` --------------------------------


def train(out: Path, sounds: Path) -> int:
    config = sounds.parent / "tiny.yaml"
    return command_line(["train", str(config), "--out", str(out), "--data-root", str(sounds)])


def pack_folder(out: Path, sounds: Path) -> int:
    options = ["--data-root", str(sounds), "--out", str(out), "--workers", "1"]
    return command_line(["data", "pack", "folder", *options])


def analyse(out: Path, sounds: Path, processes: int = 1) -> int:
    options = ["--dataset", "folder", "--split", "all", "--width", str(1 / 64)]
    options += ["--processes", str(processes)]
    where = ["--data-root", str(sounds), "--out", str(out / "result.json")]
    return command_line(["analyse", "coherence", "random", *options, *where])


JOBS: dict[str, Callable[[Path, Path], int]] = {
    "training": train,
    "packing": pack_folder,
    "analysis": analyse,
}


def analyse_in_two(out: Path, sounds: Path) -> int:
    return analyse(out, sounds, processes=2)


# --- one process with a fault --------------------------------------------------------------------


@dataclass
class Ended:
    """How a forked process ended.

    Attributes
    ----------
    code : int
        Its exit code; negative for a signal.
    said : str
        What it wrote.
    events : int
        File events that it counted.
    seconds : float
        Of processor time.
    """

    code: int
    said: str
    events: int
    seconds: float


def forked(job: Callable[[], int], watch: Callable[[int], None] | None, timer: Any) -> Ended:
    """Run a job in a fork; `watch` is told the number of each file event, `timer` sets a clock."""
    with tempfile.NamedTemporaryFile() as counts, tempfile.NamedTemporaryFile() as said:
        return _forked(job, watch, timer, counts, said)


def _forked(job: Any, watch: Any, timer: Any, counts: Any, said: Any) -> Ended:
    child = os.fork()
    if child == 0:
        try:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            number = 0

            def hook(event: str, _: tuple[Any, ...]) -> None:
                nonlocal number
                if event in EVENTS:
                    number += 1
                    if watch is not None:
                        watch(number)

            sys.addaudithook(hook)
            if timer is not None:
                timer()
            code = 130  # as Python and click end where an interrupt meets no handler of ours
            # The second interrupt may come when the first has ended the job.
            with suppress(KeyboardInterrupt):
                with suppress(KeyboardInterrupt):
                    code = job()
                signal.setitimer(signal.ITIMER_PROF, 0)
            os.pwrite(counts.fileno(), str(number).encode(), 0)
        except BaseException:
            code = 70
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    return Ended(
        os.waitstatus_to_exitcode(status),
        Path(said.name).read_text("utf-8", "replace"),
        int(counts.read() or b"0"),
        usage.ru_utime + usage.ru_stime,
    )


def faulty(
    fault: str, straight: Ended, random: np.random.Generator, sounds: Path
) -> tuple[Callable[[int], None] | None, Callable[[], None] | None]:
    """What a process meets: a watcher of its file events, or a clock."""
    at = int(random.integers(1, straight.events + 1))
    then = at + int(random.integers(1, 4))
    seconds = float(random.uniform(0.02, 1.0)) * straight.seconds
    by_time = bool(random.random() < 0.5)
    if fault == "worker":
        seconds /= 2  # each of the two has done half
        return None, lambda: _kill_a_worker(int(by_time), seconds)
    if fault in ("kill", "readonly") and by_time:
        return None, lambda: signal.setitimer(signal.ITIMER_PROF, seconds)  # kills: no handler
    if fault in ("kill", "readonly"):
        return _at((at,), lambda: os.kill(os.getpid(), signal.SIGKILL)), None
    if fault == "interrupt" and by_time:
        return None, lambda: _interrupt_twice(seconds)
    if fault == "interrupt":
        return _at((at, then), lambda: os.kill(os.getpid(), signal.SIGINT)), None
    if fault == "gone" and by_time:
        return None, lambda: _rename(sounds, seconds)
    if fault == "gone":
        return _at((at,), lambda: sounds.rename(sounds.with_name("gone"))), None
    return None, None


def _at(numbers: tuple[int, ...], act: Callable[[], None]) -> Callable[[int], None]:
    def watch(number: int) -> None:
        if number in numbers:
            act()

    return watch


def _rename(sounds: Path, seconds: float) -> None:
    def rename(number: int, frame: Any) -> None:
        sounds.rename(sounds.with_name("gone"))

    signal.signal(signal.SIGPROF, rename)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _interrupt_twice(seconds: float) -> None:
    left = [2]

    def interrupt(number: int, frame: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            signal.setitimer(signal.ITIMER_PROF, 0)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.005)


def _kill_a_worker(which: int, seconds: float) -> None:
    """Kill one of the processes that this one starts, when it has worked for so long."""

    def wait() -> None:
        while True:
            time.sleep(0.005)
            try:
                children = psutil.Process().children()
                worker = [one for one in children if "spawn_main" in str(one.cmdline())][which]
                times = worker.cpu_times()
                if times.user + times.system >= seconds:
                    worker.kill()
                    return
            except (IndexError, psutil.Error):
                continue  # not there yet, or gone between two looks

    threading.Thread(target=wait, daemon=True).start()


# --- what must hold ------------------------------------------------------------------------------


def _read_tensors(path: Path) -> Any:
    with safe_open(path, framework="pt") as file:
        card = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
    for part in card.values():
        for entry in (part, *part.get("log", ())):
            for varies in ("provenance", "seconds"):
                entry.pop(varies, None)
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}, card


def _read_json(path: Path) -> Any:
    content = json.loads(path.read_text("utf-8"))
    content.pop("provenance", None)
    return content if path.name != "provenance.json" else sorted(content)


def _read_table(path: Path) -> Any:
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    return [{key: row[key] for key in row if key != "seconds"} for row in rows]


def _read_arrays(path: Path) -> Any:
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files}


READ: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _read_tensors,
    ".json": _read_json,
    ".csv": _read_table,
    ".yaml": lambda path: yaml.safe_load(path.read_text("utf-8")),
    ".npz": _read_arrays,
    ".npy": lambda path: np.load(path).tobytes(),
    ".wav": lambda path: read_audio(path, unit_peak=False).tobytes(),
}


def contents(folder: Path) -> dict[str, Any]:
    """All files with final names, read whole: what cannot be read raises."""
    return {
        path.relative_to(folder).as_posix(): READ[path.suffix](path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@dataclass
class Report:
    """What came of the trials of one fault in one job.

    A trial whose fault came too late is drawn again: `met` are those that it struck.
    """

    commit: Any
    trials: int = 0
    met: int = 0
    resumed_identical: int = 0
    leftovers: int = 0
    defects: list[str] = field(default_factory=list)


class Trials:
    """Every fault in every job, below one folder."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.seed, self.sounds = root, seed, root / "recordings" / "sounds"
        write_tones(self.sounds)
        shutil.rmtree(self.sounds / "noise")  # sixteen clips are enough
        plan = settings_of(**PLAN, keep_every=1, evaluate_every=1)
        (self.sounds.parent / "tiny.yaml").write_text(yaml.safe_dump(plan), "utf-8")
        self.disk = root / "disk"

    def out(self, name: str) -> Path:
        return self.root / "out" / name

    def straight(self, job: str) -> tuple[Ended, dict[str, Any], int]:
        """The job without a fault: how it ended, what it left, and the bytes of that."""
        self.spoil(job)
        out = self.out(f"{job}-straight")
        ended = forked(lambda: JOBS[job](out, self.sounds), None, None)
        assert ended.code == (2 if job == "packing" else 0), ended.said
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        return ended, contents(out), size

    def import_what(self, job: str) -> None:
        """Import here what a job imports, or most of its moments would be those of importing."""
        self.spoil(job)
        needed = self.root / "modules.json"

        def work() -> int:
            code = JOBS[job](self.out(f"{job}-first"), self.sounds)
            needed.write_text(json.dumps(sorted(sys.modules)))
            return code

        forked(work, None, None)
        for name in json.loads(needed.read_text()):
            with suppress(ImportError):  # modules that others make as they run
                importlib.import_module(name)

    def spoil(self, job: str) -> None:
        """Put a file that is not a sound among the recordings; training would end there."""
        letter = self.sounds / "low" / "letter.wav"
        letter.unlink(missing_ok=True)
        if job != "training":
            letter.write_text("I am a letter.")

    def run(self, job: str, fault: str, times: int, straight: Any) -> Report:
        ended, expected, size = straight
        self.spoil(job)
        if fault == "worker":
            ended = forked(lambda: analyse_in_two(self.out("two"), self.sounds), None, None)
            assert contents(self.out("two")) == expected, ended.said
        report = Report(provenance()["commit"])
        for trial in range(times):
            for draw in range(DRAWS):
                random = np.random.default_rng(
                    [self.seed, *f"{job} {fault} {trial} {draw}".encode()]
                )
                report.trials += 1
                met = report.met
                try:
                    self._on_a_disk(job, fault, random, (ended, expected, size), report)
                except Exception as problem:
                    text = f"trial {trial}, draw {draw}: {type(problem).__name__}: {problem}"
                    report.defects.append(text[:2000])
                    break
                if report.met > met:
                    break
        return report

    def _on_a_disk(self, job: str, fault: str, random: Any, straight: Any, report: Report) -> None:
        """One trial, with what it needs before and what has to go after it."""
        ended, expected, size = straight
        out = self.out(f"{job}-{fault}")
        mounted = fault in ("full", "readonly")
        if mounted:
            self.mount(int(random.uniform(0.02, 1.2) * size) if fault == "full" else 4 * size)
            out = self.disk / "out"
        try:
            self._trial(job, fault, out, random, (ended, expected), report)
        finally:
            gone = self.sounds.with_name("gone")
            if gone.exists():
                gone.rename(self.sounds)
            if mounted:
                subprocess.run(["umount", self.disk], check=True)
            shutil.rmtree(out, ignore_errors=True)

    def _trial(
        self, job: str, fault: str, out: Path, random: Any, straight: Any, report: Report
    ) -> None:
        reference, expected = straight
        watch, timer = faulty(fault, reference, random, self.sounds)
        work = analyse_in_two if fault == "worker" else JOBS[job]
        met = forked(lambda: work(out, self.sounds), watch, timer)
        fine = reference.code
        before = None
        if fault == "readonly":
            before = contents(out) if out.exists() else {}
            self.remount("ro")
            met = forked(lambda: work(out, self.sounds), None, None)
        assert "Traceback" not in met.said, met.said
        allowed = {
            "kill": (-signal.SIGKILL, -signal.SIGPROF, fine),
            "interrupt": (130, 1, fine),
        }.get(fault, (2, fine))
        assert met.code in allowed, f"exit code {met.code}: {met.said}"
        report.met += met.code != fine or (fine == 2 and "clips in" not in met.said)
        found = contents(out) if out.exists() else {}
        gone = self.sounds.with_name("gone")
        if gone.exists():
            gone.rename(self.sounds)
        if fault == "readonly":
            assert found == before, "a disk that is read-only holds something else"
            self.remount("rw")
        if fault == "full":
            self.remount("size=64m")
        again = forked(lambda: JOBS[job](out, self.sounds), None, None)
        assert again.code == fine, f"again: exit code {again.code}: {again.said}"
        assert contents(out) == expected, "the end is another"
        report.resumed_identical += 1
        report.leftovers += sum(path.name.startswith(".") for path in out.rglob("*.*"))

    def mount(self, size: int) -> None:
        self.disk.mkdir(exist_ok=True)
        options = ["-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", self.disk]
        subprocess.run(["mount", *options], check=True)

    def remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", self.disk], check=True)


def can_mount(folder: Path) -> bool:
    """Whether disks can be mounted here."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True)
    return done.returncode == 0 and subprocess.run(["umount", folder]).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="*", default=list(JOBS))
    parser.add_argument("--faults", nargs="*", default=list(FAULTS))
    parser.add_argument("--out", type=Path, help="where to write the counts, as JSON")
    chosen = parser.parse_args()
    loop._SAVE_EVERY = 1
    # What runs in the background may have been told to ignore Ctrl-C, and hands that down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sound = True
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), chosen.seed)
        mounting = can_mount(Path(folder))
        for job in chosen.jobs:
            trials.import_what(job)
        straight = {job: trials.straight(job) for job in chosen.jobs}
        for fault in chosen.faults:
            for job in chosen.jobs:
                found: str | dict[str, Any]
                if fault == "worker" and job != "analysis":
                    continue  # the others compute in threads
                if fault in ("full", "readonly") and not mounting:
                    found = "left out: disks cannot be mounted here"
                else:
                    report = trials.run(job, fault, chosen.times, straight[job])
                    sound &= not report.defects
                    found = vars(report)
                sys.stdout.write(f"{job}, {fault}: {found}\n")
                sys.stdout.flush()
                if chosen.out is not None:
                    note(chosen.out, chosen.seed, job, fault, found)
    return 0 if sound else 1


def note(path: Path, seed: int, job: str, fault: str, found: str | dict[str, Any]) -> None:
    """Put what was found into the file, beside what stands there of the same seed."""
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    jobs: dict[str, dict[str, Any]] = before["jobs"] if before.get("seed") == seed else {}
    jobs.setdefault(job, {})[fault] = found
    write_result(path, {"seed": seed, "jobs": jobs})


if __name__ == "__main__":
    sys.exit(main())
