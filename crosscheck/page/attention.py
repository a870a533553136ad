"""The photograph, the gates of a block on it, and each framework's differences from the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from crosscheck.maps import Maps
from crosscheck.page import picture
from crosscheck.page.distribution import EPS
from crosscheck.page.markup import Markup, element, joined

NAMES = {"spatial": "Ms, the spatial gate", "channel": "Mc, the channel gate"}


def attention(maps: Sequence[Maps], photograph: np.ndarray) -> Markup:
    """The maps of every dtype.

    Args:
        photograph: (H, W, 3) in 0 to 1.
    """
    parts = []
    for dtype in dict.fromkeys(one.dtype for one in maps):
        own = [one for one in maps if one.dtype == dtype]
        parts.append(element("h3", f"{own[0].case}, {dtype}"))
        parts.append(_group(own, photograph))
    return joined(*parts)


def _group(maps: Sequence[Maps], photograph: np.ndarray) -> Markup:
    # Gates compute in at least float32.
    eps = min(EPS[maps[0].dtype], EPS["float32"])
    differences = [_differences(one, eps) for one in maps]
    reach = _reach(values for one in differences for values in one.values())
    cards = [
        _card(one, difference, reach) for one, difference in zip(maps, differences, strict=True)
    ]
    bar = picture.diverging(np.linspace(-1, 1, 256)[None], 1)
    return joined(
        _reference(maps[0], photograph),
        element("p", _scale(reach, eps)),
        _colours(bar, f"{-reach:g} eps", f"+{reach:g} eps") if reach else "",
        element("div", *cards, class_="cards"),
    )


def _reach(differences: Iterable[np.ndarray]) -> float:
    """The difference that gets the full colour: one in a hundred is larger, somewhere."""
    finite = (np.abs(values[np.isfinite(values)]) for values in differences)
    largest = max(float(np.percentile(values, 99)) if values.size else 0.0 for values in finite)
    if not largest:
        return 0.0
    digit = 10.0 ** np.floor(np.log10(largest))
    return float(f"{np.ceil(largest / digit) * digit:.1g}")


def _scale(reach: float, eps: float) -> str:
    if not reach:
        return "No framework's maps differ from the reference by a number that could be shown."
    return (
        f"On the left each framework's maps, on the right their differences from the reference, "
        f"enlarged {_power(1 / (reach * eps))} times: full colour is {reach:g} eps and more, with "
        f"eps {eps:.2g} of the gate's largest value."
    )


def _reference(maps: Maps, photograph: np.ndarray) -> Markup:
    """The photograph beside the gates that the NumPy reference computes."""
    pixels = np.round(255 * photograph).astype(np.uint8)
    figures = [
        element(
            "figure",
            element("img", src=picture.data_uri(pixels), alt="The photograph", class_="map"),
            element("figcaption", "The photograph"),
        )
    ]
    for name in _names(maps):
        values = _values(maps.expected, name)
        low, high = float(values.min()), float(values.max())
        caption = f"{NAMES[name]}, in the reference"
        bar = _colours(
            picture.sequential(np.linspace(0, 1, 256)[None], 0, 1), f"{low:.3f}", f"{high:.3f}"
        )
        figures.append(
            element("figure", _gate(maps, name, caption), element("figcaption", caption), bar)
        )
    return element("div", *figures, class_="reference")


def _card(maps: Maps, differences: dict[str, np.ndarray], reach: float) -> Markup:
    """One framework: its gates on the left, their differences on the right."""
    pairs = []
    for name in _names(maps):
        off = picture.diverging(differences[name], reach)
        pairs.append(_gate(maps, name, f"{NAMES[name]}, in {maps.framework}"))
        pairs.append(_image(f"{name} off", off, "Its difference from the reference"))
    told = ", ".join(f"{name} {np.abs(differences[name]).max():.2g} eps" for name in _names(maps))
    caption = element("figcaption", element("b", maps.framework), f" largest difference: {told}")
    return element("figure", caption, element("div", *pairs, class_="pairs"))


def _gate(maps: Maps, name: str, alt: str) -> Markup:
    """A gate of a framework in the colours of the reference's range."""
    expected = _values(maps.expected, name)
    colours = picture.sequential(_values(maps.gates, name), expected.min(), expected.max())
    return _image(name, colours, alt)


def _image(classes: str, pixels: np.ndarray, alt: str) -> Markup:
    return element("img", src=picture.data_uri(pixels), alt=alt, class_=f"map {classes}")


def _colours(pixels: np.ndarray, low: str, high: str) -> Markup:
    """A bar of colours between the values at its ends."""
    bar = element("img", src=picture.data_uri(pixels), alt="to")
    return element("p", element("span", low), bar, element("span", high), class_="colours")


def _names(maps: Maps) -> list[str]:
    return [name for name in NAMES if f"gate:{name}" in maps.expected]


def _values(gates: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Of the first sample: (H, W) of the spatial gate, (1, C) of the channel gate."""
    gate = gates[f"gate:{name}"][0].astype(np.float64)
    return gate.reshape(1, -1) if name == "channel" else gate[..., 0]


def _differences(maps: Maps, eps: float) -> dict[str, np.ndarray]:
    """In units of eps of the reference's largest value."""
    found = {}
    for name in _names(maps):
        expected = _values(maps.expected, name)
        found[name] = (_values(maps.gates, name) - expected) / (eps * np.abs(expected).max())
    return found


def _power(value: float) -> str:
    """
    >>> _power(1.5e15)
    '1.5e15'
    """
    return f"{value:.1e}".replace("e+", "e")
