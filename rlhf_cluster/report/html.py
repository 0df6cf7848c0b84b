"""HTML and SVG as nested calls: what is not already `Html` is text, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

from rlhf_cluster.driver.observers.excerpt import printable

VOID = ("meta", "br")


class Html(str):
    """Markup, safe to stand as it is."""

    __slots__ = ()


Child = str | Iterable["Child"]


def element(tag: str, /, *children: Child, **attributes: object) -> Html:
    """One element. A trailing underscore of an attribute is dropped, others become hyphens; None leaves it out.

    >>> element("p", "a < b ", element("b", "c"), class_="x")
    '<p class="x">a &lt; b <b>c</b></p>'
    """
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Html(f"<{tag}{told}>")
    return Html(f"<{tag}{told}>{join(children)}</{tag}>")


def join(children: Child) -> Html:
    """Escaped, one after another.

    >>> join(["<", [element("i", "x")]])
    '&lt;<i>x</i>'
    """
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return Html(html.escape(printable(children), quote=False))
    return Html("".join(join(child) for child in children))


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else printable(str(value))
