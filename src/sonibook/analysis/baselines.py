"""Networks that have learned nothing, which a trained one is to be read against."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from sonibook.analysis.networks import mixed, untrained
from sonibook.errors import AnalysisError
from sonibook.model.stack import blocks_of

_TITLE = "random weights"


def is_baseline(name: str) -> bool:
    """Whether a network is one that others are to be read against, by its name."""
    return name.startswith(_TITLE)


def with_random_weights(networks: Mapping[str, nn.Module], *, seed: int) -> dict[str, nn.Module]:
    """Networks, and after them one with He weights for each shape that there is among them.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
    seed : int >= 0

    Returns
    -------
    dict of str to torch.nn.Module
        The others are called ``random weights``, and by whose shape they have where shapes differ.

    Raises
    ------
    AnalysisError
        If there is no network, or one is called as another's baseline.
    StackError
        If a network cannot be inverted.
    """
    if not networks:
        raise AnalysisError("There is no network to analyse: give one at least.")
    shapes: dict[str, list[str]] = {}
    for name, network in networks.items():
        shapes.setdefault(repr(blocks_of(network)), []).append(name)
    found = dict(networks)
    for names in shapes.values():
        title = _TITLE if len(shapes) == 1 else f"{_TITLE} ({', '.join(names)})"
        if title in networks:
            raise AnalysisError(f"{title!r} is what the baseline is called: name yours otherwise.")
        fresh = untrained(blocks_of(networks[names[0]]), seed=seed)
        found[title] = mixed(fresh, fresh, ())
    return found
