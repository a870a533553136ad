"""The table that `cbam check` prints, the faults, and the rows that failed."""

from __future__ import annotations

from collections.abc import Sequence

from crosscheck import outcome
from crosscheck.outcome import KINDS
from crosscheck.page.markup import Markup, element, joined
from crosscheck.report import Report, Row

# Failing rows that are told in sentences; the list of rows has them all.
SHOWN = 20


def summary(report: Report, *, by_case: bool) -> Markup:
    """One table, or one for each case if `by_case`."""
    sound, faulty = outcome.parted(report)
    cases = dict.fromkeys(row.case for row in sound) if by_case else {}
    tables = [_equality(sound, None)] if sound and not by_case else []
    tables += [_equality([row for row in sound if row.case == case], case) for case in cases]
    return joined(*tables, _faults(faulty), _failures(report))


def _equality(rows: Sequence[Row], case: str | None) -> Markup:
    kinds = outcome.kinds_of(rows)
    head = element(
        "tr",
        element("th", "framework", scope="col"),
        element("th", "dtype", scope="col"),
        *(
            element("th", text, scope="col", class_="number")
            for text in ("passes", *(KINDS[kind] for kind in kinds))
        ),
        element("th", "verdict", scope="col"),
    )
    body = [_line(line, kinds, case) for line in outcome.lines(rows)]
    caption = "Largest difference from the NumPy reference, relative to its largest value"
    return _table(f"{case}: {caption}" if case else caption, head, body)


def _line(line: outcome.Line, kinds: Sequence[str], case: str | None) -> Markup:
    place = {"data_framework": line.framework, "data_dtype": line.dtype, "data_case": case}
    return element(
        "tr",
        element("th", element("a", line.framework, href="#rows", **place), scope="row"),
        element("td", line.dtype),
        element("td", str(line.passes), class_="number"),
        *(_worst(line, kind) for kind in kinds),
        _verdict(line.ok, "equal" if line.ok else "differs"),
    )


def _worst(line: outcome.Line, kind: str) -> Markup:
    if kind not in line.worst:
        return element("td", "-", class_="number")
    difference, ok = line.worst[kind]
    return element("td", f"{difference:.1e}", class_="number" if ok else "number bad")


def _verdict(ok: bool, text: str) -> Markup:
    return element("td", f"{'✓' if ok else '✗'} {text}", class_="good" if ok else "bad")


def _faults(rows: Sequence[Row]) -> Markup:
    if not rows:
        return Markup()
    columns = ("fault", "the mistake", "caught")
    head = element("tr", *(element("th", text, scope="col") for text in columns))
    body = []
    for line in outcome.fault_lines(rows):
        caught = f"{len(line.caught)} of {len(line.caught) + len(line.missed)}"
        missed = f", missed in {', '.join(line.missed)}" if line.missed else ""
        body.append(
            element(
                "tr",
                element("th", line.fault, scope="row"),
                element("td", line.about, class_="words"),
                _verdict(not line.missed, caught + missed),
            )
        )
    return _table("Planted faults, and in how many frameworks each was caught", head, body)


def _table(caption: str, head: Markup, body: Sequence[Markup]) -> Markup:
    table = element("table", element("thead", head), element("tbody", *body), aria_label=caption)
    # A wide table scrolls by itself, also by the keyboard; the page does not.
    region = element("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return joined(element("p", caption, class_="caption"), region)


def _failures(report: Report) -> Markup:
    failed = [row for row in report.rows if not row.ok]
    if not failed:
        return Markup()
    items = [element("li", outcome.describe(row)) for row in failed[:SHOWN]]
    if len(failed) > SHOWN:
        items.append(element("li", f"… and {len(failed) - SHOWN} more, in the list of rows"))
    return joined(element("h3", "What failed"), element("ul", *items, class_="failures"))
