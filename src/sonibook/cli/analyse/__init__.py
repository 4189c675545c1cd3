"""``sonibook analyse``: the analyses, one command each."""

from sonibook.cli.analyse.commands import analyse_commands

__all__ = ["analyse_commands"]
