"""Mathematics as MathML, made while the book is built: no script, no font, no foreign host."""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

#: Environments that the converter does not know, and the one it does that looks the same.
_ALIGNED = re.compile(r"\\(begin|end)\{(aligned|split|align)\}")
#: Operators that the converter does not know.
_OPERATOR = re.compile(r"\\(argmax|argmin|arg)\b")


def to_mathml(latex: str, *, display: bool) -> str:
    r"""Translate LaTeX mathematics to a MathML element that carries its source.

    Parameters
    ----------
    latex : str
        Without delimiters, such as ``\frac{a}{b}``.
    display : bool
        Whether it stands on a line of its own.

    Returns
    -------
    str
        A ``<math>`` element, with the source as its ``alttext`` for readers that want it.

    Raises
    ------
    ValueError
        If the formula is wrong or uses a command that cannot be translated.

    Examples
    --------
    >>> to_mathml("x^2", display=False)
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline" alttext="x^2">...'
    """
    source = latex.strip()
    try:
        known = _OPERATOR.sub(r"\\operatorname{\1}", _ALIGNED.sub(r"\\\1{align*}", source))
        converted = convert(known, display="block" if display else "inline")
        element = ElementTree.fromstring(converted)
    except ElementTree.ParseError as error:
        raise ValueError(f"{source!r} does not become MathML ({error}).") from None
    except Exception as error:  # the converter's errors share no base of their own
        raise ValueError(f"{source!r} is not LaTeX ({type(error).__name__}).") from None
    for leaf in element.iter():
        if leaf.text and leaf.text.startswith("\\") and len(leaf.text) > 1:
            raise ValueError(f"{source!r} uses {leaf.text}, which cannot be translated.")
    element.set("alttext", source)
    ElementTree.register_namespace("", "http://www.w3.org/1998/Math/MathML")
    return ElementTree.tostring(element, encoding="unicode")


def _translated(node: nodes.Element, *, display: bool) -> str:
    try:
        return to_mathml(node.astext(), display=display)
    except ValueError as error:
        logger.warning("%s", error, location=node)
        return f"<code>{html.escape(node.astext())}</code>"


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(_translated(node, display=False))
    raise nodes.SkipNode


def visit_display(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own, with its number where it has one."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(_translated(node, display=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Offer the renderer ``mathml`` to the setting ``html_math_renderer``."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
