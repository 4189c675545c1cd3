"""``sonibook analyse``: the analyses, one command each."""

from sonibook.cli.analyse import commands, comparisons
from sonibook.cli.analyse.shared import analyse_commands

__all__ = ["analyse_commands", "commands", "comparisons"]
