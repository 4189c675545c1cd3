"""How much of the results is made: the profiles, and what a run of the pipeline is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonibook.analysis.result import Result
from sonibook.analysis.stream import Streaming
from sonibook.files import provenance
from sonibook.model.checkpoint import shipped
from sonibook.replication.benchmarks import SEEDS, Pretrained, pretrained
from sonibook.replication.paper import Training

#: The trainings of the tables that each profile makes. "quick" is a look in half an hour, at one
#: network of each regime and few clips; "frozen" is all that needs no training, "full" everything.
#: A file that a later one made is not replaced.
PROFILES: dict[str, tuple[Training, ...]] = {
    "quick": ("linear probe",),
    "frozen": ("linear probe", "fc-only"),
    "full": ("linear probe", "fc-only", "full"),
}
#: Clips to a figure for a quick look, and to those that take longer to measure a clip.
FEW = {
    "figure-7": 100,
    "figure-b3": 16,
    "stimulation": 16,
    "figure-4-out-of-domain": 600,
    "figure-4-out-of-domain-ridge": 600,
    "figure-4-speakers": 300,
    "sanity": 4,
    "separation": 8,
    "unpooling": 4,
    "explanations": 4,
    "dose-response": 8,
    "roar": 200,
}
_FEW = 40
#: The same of all other profiles, where it would take too long to measure all.
_MANY = {
    "figure-1": 200,
    "figure-7-training": 200,
    "figure-4-speakers": 600,
    "faithfulness": 100,
    "faithfulness-least-squares": 100,
    "listeners-esc10": 200,
    "listeners-fsdd": 120,
    "listeners-scenes": 60,
    "sanity": 24,
    "separation": 60,
    "unpooling": 40,
    "explanations": 24,
    "dose-response": 60,
}


@dataclass(frozen=True)
class Settings:
    """What one run of the pipeline is told: where recordings, results and runs lie, and how to
    work.

    `precision` is of what is trained for the tables, but for classifiers on frozen encoders;
    `most` is how many networks of each regime are taken at most, None for the profile's.
    """

    profile: str
    root: Path
    folder: Path
    runs: Path
    processes: int
    precision: str = "float32"
    most: int | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the networks that are compared."""
        return SEEDS[: self.most or (1 if self.profile == "quick" else None)]

    @property
    def rank(self) -> tuple[int, int]:
        """Of what it makes: files of a higher one are kept."""
        return rank_of({"profile": self.profile, "seeds": self.most})

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Of the tables."""
        return PROFILES[self.profile]

    def limit(self, target: str) -> int | None:
        """How many clips a figure is measured on; None for all."""
        return FEW.get(target, _FEW) if self.profile == "quick" else _MANY.get(target)

    def encoders(self, *, every: bool = False) -> list[Pretrained]:
        """The encoders to compare, of the same seeds; `every` adds other sizes and norms."""
        found = pretrained(shipped())
        if every and self.seeds == SEEDS:
            return found
        return [one for one in found if one.main and one.seed in self.seeds]

    def command(self, target: str) -> str:
        """The command that makes a results file."""
        precision = f" PRECISION={self.precision}" if self.changes else ""
        most = f" SEEDS={self.most}" if self.most else ""
        return f"make results/{target} RESULTS={self.profile}{precision}{most}"

    @property
    def changes(self) -> tuple[str, ...]:
        """What is changed of the configuration of a run that trains an encoder."""
        as_configured = self.precision == "float32"
        return () if as_configured else (f"optimiser.precision={self.precision}",)

    def provenance(self, target: str) -> dict[str, Any]:
        """What made a results file, the profile among it."""
        seeds = {"seeds": self.most} if self.most else {}
        return {**provenance(self.command(target)), "profile": self.profile, **seeds}

    def write(
        self,
        path: Path,
        measure: Callable[[Streaming], Result],
        *,
        limit: int | None,
        made: dict[str, Any],
    ) -> None:
        """Measure, on so many clips, and write what was found; what is interrupted goes on."""
        parts = path.with_name(f".{path.name}.parts")
        result = measure({"parts": parts, "processes": self.processes, "limit": limit})
        result.model_copy(update={"provenance": made}).write(path)
        shutil.rmtree(parts, ignore_errors=True)
        print(f"{path} is written.")


def rank_of(made: Mapping[str, Any]) -> tuple[int, int]:
    """The rank of what made a file: of its profile or, lower, of a few networks of each regime."""
    most = made.get("seeds")
    return (0, most) if most else ([*PROFILES].index(made.get("profile", "quick")), 0)
