"""Networks that are variants of another, told by their names: one more seed, no normalisation."""

from __future__ import annotations

from collections.abc import Iterable


def main_networks(names: Iterable[str]) -> list[str]:
    """The networks among `names` that are no variant of another.

    Parameters
    ----------
    names : iterable of str
        ``supervised-1`` is a variant of ``supervised`` (another seed, say), where both are there.

    Returns
    -------
    list of str
        In the order of `names`.

    Examples
    --------
    >>> main_networks(["supervised", "supervised-1", "contrastive"])
    ['supervised', 'contrastive']
    """
    known = list(names)
    return [name for name in known if kind_of(name, known) == name]


def kind_of(name: str, names: Iterable[str]) -> str:
    """The network that a network is a variant of, or its own name.

    Parameters
    ----------
    name : str
    names : iterable of str
        What there is, `name` among it.

    Returns
    -------
    str

    Examples
    --------
    >>> kind_of("contrastive-1", ["contrastive", "contrastive-1"])
    'contrastive'
    """
    return min((one for one in names if f"{name}-".startswith(f"{one}-")), key=len)
