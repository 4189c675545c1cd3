"""Makes the results files of the paper's tables and figures: ``python -m tools.results table-a4``.

`make results` calls this for one file after the other. What is in a file already, made by the
same networks with the same settings, is not measured again; what was interrupted goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from sonibook.errors import SonibookError
from sonibook.replication.benchmarks import SEEDS
from sonibook.replication.paper import TABLES
from sonibook.replication.verdict import freeze, write_claims
from sonibook.training.config import PRECISIONS
from sonibook.training.loop import keep_memory
from tools import (
    results_elsewhere,
    results_figures,
    results_probes,
    results_spectrogram,
    results_tables,
)
from tools.results_settings import PROFILES, Settings

RESULTS = Path("data/results")


def _judge(target: str, _: Path, settings: Settings) -> None:
    """Write the claims with their verdicts, or the list of claims that is not to change."""
    write = write_claims if target == "claims" else freeze
    print(f"{write(settings.folder, command=settings.command(target))} is written.")


#: What makes a results file, or sees that it is there, by its name.
TARGETS: dict[str, Callable[[str, Path, Settings], None]] = {
    **dict.fromkeys(TABLES, results_tables.make),
    **dict.fromkeys(results_figures.FIGURES, results_figures.make),
    **dict.fromkeys(results_probes.TARGETS, results_probes.make),
    results_spectrogram.TARGET: lambda _, path, settings: results_spectrogram.make(path, settings),
    "elsewhere": lambda _target, _path, settings: results_elsewhere.make(settings),
    "synthesiser": lambda _, path, settings: results_elsewhere.make_synthesiser(path, settings),
    "claims": _judge,
    "freeze": _judge,
}


def main() -> int:
    """Make the results files that the command line names, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--profile", choices=tuple(PROFILES), default="frozen")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("SONIBOOK_DATA"))
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where results files go")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where training runs go")
    parser.add_argument("--processes", type=int, default=1, help="of the figures' analyses")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0], help="of training"
    )
    parser.add_argument(
        "--seeds", type=int, choices=range(1, len(SEEDS) + 1), help="networks of a regime"
    )
    parser.add_argument("--retrain", action="store_true", help="train the networks first")
    chosen = parser.parse_args()
    strangers = [one for one in chosen.targets if one not in TARGETS]
    if strangers:
        parser.error(f"there is no {strangers[0]}: choose of {', '.join(TARGETS)}")
    if chosen.data_root is None:
        parser.error("the results are made on recordings: give --data-root or set SONIBOOK_DATA")
    settings = Settings(
        profile=chosen.profile,
        root=Path(chosen.data_root),
        folder=chosen.folder,
        runs=chosen.runs,
        processes=chosen.processes,
        precision=chosen.precision,
        most=chosen.seeds,
    )
    keep_memory()
    try:
        if chosen.retrain:
            results_tables.retrain(settings)
        for target in chosen.targets:
            TARGETS[target](target, settings.folder / f"{target}.json", settings)
    except SonibookError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: give the same command again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
