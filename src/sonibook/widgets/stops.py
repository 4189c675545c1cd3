"""A slider on a page without a kernel: its stops, to be opened one by one.

Where the book's script runs (``book/_static/explorer.js``), it puts a slider in their place.
"""

from __future__ import annotations

import html
from collections.abc import Mapping


def one_stop(value: str, called: str, shown: str, *, is_open: bool, lab: bool = False) -> str:
    """One stop of a slider, as HTML.

    Parameters
    ----------
    value : str
        Of the slider.
    called : str
        Stands above what is shown.
    shown : str
        HTML.
    is_open : bool
    lab : bool
        The value is what a link into the lab asks for.

    Returns
    -------
    str
    """
    quoted = html.escape(value, quote=True)
    known = f' data-lab="{quoted}"' if lab else ""
    return (
        f'<details data-stop="{quoted}"{known}{" open" if is_open else ""}>'
        f"<summary>{html.escape(called)}</summary>{shown}</details>"
    )


def static_slider(
    stops: Mapping[str, tuple[str, str]], *, name: str, title: str, opened: str, end: str
) -> str:
    """The static form of a slider, as HTML.

    Parameters
    ----------
    stops : mapping from str to (str, str)
        By the slider's value: what the stop is called, and the HTML that it shows.
    name : str
        What the slider moves, such as "Temperature".
    title : str
        Names the whole for screen readers.
    opened : str
        The stop that is open at first.
    end : str
        The sentence below.

    Returns
    -------
    str
    """
    parts = [
        one_stop(value, called, shown, is_open=value == opened)
        for value, (called, shown) in stops.items()
    ]
    return (
        f'<section class="explorer" aria-label="{html.escape(title, quote=True)}">'
        f'<div data-slider="{name}">{"".join(parts)}</div><p>{html.escape(end)}</p></section>'
    )
