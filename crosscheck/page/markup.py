"""HTML in which what is text stays text."""

from __future__ import annotations

import html


class Markup(str):
    """HTML that is escaped already."""


def element(name: str, *children: str, **attributes: str | float | bool | None) -> Markup:
    """An element; children that are no `Markup` are text, attributes are escaped.

    Underscores in the names of attributes stand for hyphens, and one at the end for none. An
    attribute that is None or False is left out.

    >>> element("p", "1 < 2 ", element("b", "so"), class_="note", data_of=1, hidden=True)
    '<p class="note" data-of="1" hidden>1 &lt; 2 <b>so</b></p>'
    >>> element("img", alt='"><script>')
    '<img alt="&quot;&gt;&lt;script&gt;">'
    """
    told = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{told}>")
    return Markup(f"<{name}{told}>{joined(*children)}</{name}>")


def joined(*children: str) -> Markup:
    """Several, one behind the other."""
    parts = (one if isinstance(one, Markup) else html.escape(one) for one in children)
    return Markup("".join(parts))


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


_VOID = ("img", "br")
