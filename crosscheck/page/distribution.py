"""How large the differences are, in units of eps: a histogram for each framework, as SVG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crosscheck import outcome
from crosscheck.outcome import KINDS
from crosscheck.page.markup import Markup, element, joined
from crosscheck.report import Report, Row

# The distance from 1 to the next number.
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}

# Bars in each decade of the axis.
PER_DECADE = 4
# Between which powers of ten values are told apart.
FIRST_DECADE, LAST_DECADE = -2, 20
# The picture: what is around the bars, and its size.
WIDTH, HEIGHT, TOP, BOTTOM, SIDE = 320, 150, 28, 24, 8
# Of a text.
LINE = 11


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis of differences in units of eps, with a bar of its own for the smallest.

    Attributes:
        last: the decade at which it ends.
    """

    last: int

    @classmethod
    def over(cls, values: Iterable[float]) -> Axis:
        """The axis on which all values have a place, those beyond `LAST_DECADE` in its last bar."""
        largest = max((value for value in values if math.isfinite(value)), default=1.0)
        last = math.ceil(math.log10(max(largest, 1.0)) + 0.25)
        return cls(min(max(last, 1), LAST_DECADE))

    @property
    def bars(self) -> int:
        """How many there are: those of the decades, one below and one above them."""
        return (self.last - FIRST_DECADE) * PER_DECADE + 2

    def bar(self, value: float) -> int:
        """The bar to which a value belongs.

        >>> Axis(4).bar(0.0), Axis(4).bar(0.01), Axis(4).bar(1.0), Axis(4).bar(math.inf)
        (0, 1, 9, 25)
        """
        if value < 10.0**FIRST_DECADE:
            return 0
        if not math.isfinite(value):
            return self.bars - 1
        return min(1 + math.floor(PER_DECADE * self._decades(value) + 1e-9), self.bars - 1)

    def place(self, value: float) -> float:
        """Where a value stands in the picture."""
        return self.edge(1) + PER_DECADE * self._decades(value) * self.step

    def edge(self, bar: int) -> float:
        """Where a bar begins."""
        return SIDE + bar * self.step

    @property
    def step(self) -> float:
        return (WIDTH - 2 * SIDE) / self.bars

    def range_of(self, bar: int) -> str:
        """What a bar holds, in words."""
        if bar == 0:
            return f"below {10.0**FIRST_DECADE:g} eps"
        if bar == self.bars - 1:
            return f"{10.0**self.last:g} eps and more, or not comparable"
        low, high = (10 ** (FIRST_DECADE + (bar - 1 + end) / PER_DECADE) for end in (0, 1))
        return f"{low:.2g} to {high:.2g} eps"

    def _decades(self, value: float) -> float:
        return math.log10(max(value, 10.0**FIRST_DECADE)) - FIRST_DECADE


def distributions(report: Report) -> Markup:
    """The histograms of all sound rows, those of one dtype under a heading of their own."""
    sound, _ = outcome.parted(report)
    dtypes = [dtype for dtype in EPS if any(row.dtype == dtype for row in sound)]
    kinds = outcome.kinds_of(sound)
    if not dtypes or not kinds:
        return element("p", "There is nothing to show: every row is a planted fault.")
    groups = []
    for dtype in dtypes:
        own = [row for row in sound if row.dtype == dtype]
        heading = element("h3", f"{dtype}, eps {EPS[dtype]:.2g}")
        groups += [heading, element("div", *_panels(own, kinds), class_="panels")]
    return joined(_legend(kinds), *groups)


def _legend(kinds: Sequence[str]) -> Markup:
    entries = [
        element("li", element("span", class_=f"swatch {_class(kind)}"), KINDS[kind])
        for kind in kinds
    ]
    entries.append(element("li", element("span", class_="swatch failed"), "over its limit"))
    entries.append(element("li", element("span", class_="swatch dashed"), "limit"))
    return element("ul", *entries, class_="legend")


def _panels(rows: Sequence[Row], kinds: Sequence[str]) -> list[Markup]:
    axis = Axis.over([_in_eps(row) for row in rows] + [_limit(row) for row in rows])
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.framework, []).append(row)
    counts = {name: Counter(axis.bar(_in_eps(row)) for row in own) for name, own in groups.items()}
    highest = max(max(counts[name].values()) / len(own) for name, own in groups.items())
    return [_panel(name, own, kinds, axis, highest) for name, own in groups.items()]


def _panel(
    framework: str, rows: Sequence[Row], kinds: Sequence[str], axis: Axis, highest: float
) -> Markup:
    """The histogram of a framework: shares of its quantities, of which `highest` is a full bar."""
    differences = [_in_eps(row) for row in rows]
    told = (
        f"{len(rows):,} quantities, half of them within {_eps(float(np.median(differences)))}, "
        f"the largest {_eps(max(differences))}"
    )
    picture = element(
        "svg",
        *_bars(rows, kinds, axis, highest),
        *_ticks(axis),
        *_limits(rows, axis),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{framework}: {told}",
    )
    return element("figure", element("figcaption", element("b", framework), " ", told), picture)


def _bars(rows: Sequence[Row], kinds: Sequence[str], axis: Axis, highest: float) -> list[Markup]:
    """Each bar has the kinds one above the other, and what failed on top."""
    heaps = Counter((axis.bar(_in_eps(row)), _heap(row)) for row in rows)
    room = HEIGHT - TOP - BOTTOM
    found, filled = [], [0] * axis.bars
    for heap, name in [*((_class(kind), KINDS[kind]) for kind in kinds), ("failed", "failed")]:
        for bar in range(axis.bars):
            count = heaps[bar, heap]
            if not count:
                continue
            filled[bar] += count
            found.append(
                element(
                    "rect",
                    element("title", f"{axis.range_of(bar)}: {count:,} {name}"),
                    class_=heap,
                    x=f"{axis.edge(bar) + 0.5:.1f}",
                    width=f"{axis.step - 1:.1f}",
                    y=f"{TOP + room * (1 - filled[bar] / len(rows) / highest):.2f}",
                    height=f"{room * count / len(rows) / highest:.2f}",
                )
            )
    return found


def _ticks(axis: Axis) -> list[Markup]:
    base = HEIGHT - BOTTOM
    found = [element("path", d=f"M{SIDE} {base}H{WIDTH - SIDE}", class_="axis")]
    for decade in range(FIRST_DECADE, axis.last + 1):
        x = f"{axis.place(10.0**decade):.1f}"
        found.append(element("path", d=f"M{x} {base}v4", class_="axis"))
        # Every second one, so that they stay apart.
        if decade % 2 == 0:
            label = f"{10.0**decade:g}" if decade < 4 else f"1e{decade}"
            found.append(element("text", label, x=x, y=base + 16, text_anchor="middle"))
    return found


def _limits(rows: Sequence[Row], axis: Axis) -> list[Markup]:
    """A line for each limit, with the names of the kinds that have it."""
    kinds: dict[float, set[str]] = {}
    for row in rows:
        kinds.setdefault(_limit(row), set()).add(outcome.kind_of(row))
    found = []
    for number, (limit, own) in enumerate(sorted(kinds.items())):
        names = ", ".join(text for kind, text in KINDS.items() if kind in own)
        told = f"limit {limit * EPS[rows[0].dtype]:.0e}"
        x, y = axis.place(limit), LINE * (1 + number % 2)
        line = element("path", d=f"M{x:.1f} {y + 3}V{HEIGHT - BOTTOM}", class_="limit")
        anchor = "end" if x > WIDTH / 2 else "start"
        label = element("text", told, x=f"{x:.1f}", y=y, text_anchor=anchor)
        found.append(element("g", element("title", f"{told}, of {names}"), line, label))
    return found


def _heap(row: Row) -> str:
    return _class(outcome.kind_of(row)) if row.ok else "failed"


def _class(kind: str) -> str:
    return f"kind-{kind}"


def _in_eps(row: Row) -> float:
    return row.comparison.max_rel / EPS[row.dtype]


def _limit(row: Row) -> float:
    return row.comparison.limit / EPS[row.dtype]


def _eps(value: float) -> str:
    """
    >>> _eps(1.6789), _eps(1234.5), _eps(math.inf)
    ('1.7 eps', '1,234 eps', 'not comparable')
    """
    if not math.isfinite(value):
        return "not comparable"
    return f"{value:,.0f} eps" if value >= 10 else f"{value:.2g} eps"
