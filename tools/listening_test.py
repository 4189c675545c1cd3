"""Make the listening test of the book, as `make book` does: its page, sounds and trials."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sonibook.analysis.networks import Network, load_network
from sonibook.datasets import Dataset, open_dataset
from sonibook.errors import SonibookError
from sonibook.widgets.listening_test import make_listening_test

#: Ends of the names of networks that differ in their seed alone.
_SEEDS = ("", "-32", "-33")


def families() -> list[list[Network]]:
    """By seed: a supervised and a contrastive network, and the weights that both started from."""
    found = []
    for end in _SEEDS:
        pair = [
            load_network(name + end, name + end) for name in ("supervised-esc40", "contrastive")
        ]
        start = pair[1].start
        assert start is not None
        found.append([*pair, start])
    return found


def clips(dataset: str, data_root: str) -> Dataset:
    """Soundscapes of one event each, or recordings that the networks were not trained on."""
    if dataset in ("", "soundscapes"):
        return open_dataset(
            "soundscapes", split="test", task="single-label", size=160, duration=2.0
        )
    part = {"folds": [5]} if dataset.startswith("esc") else {"split": "test"}
    return open_dataset(dataset, root=data_root or None, **part)


def main() -> int:
    """Make what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(description="Make the listening test.")
    parser.add_argument("out", type=Path, help="the folder for it")
    parser.add_argument("--dataset", default="")
    parser.add_argument("--data-root", default="")
    options = parser.parse_args()
    try:
        make_listening_test(families(), clips(options.dataset, options.data_root), options.out)
    except SonibookError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
