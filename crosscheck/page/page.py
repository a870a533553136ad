"""The page: the template, filled with what a report has."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from cbam_core.atomic import whole_file
from crosscheck import outcome
from crosscheck.page.attention import attention
from crosscheck.page.distribution import distributions
from crosscheck.page.markup import Markup, element
from crosscheck.page.rows import rows_json
from crosscheck.page.summary import summary
from crosscheck.report import Report


def write(
    report: Report, path: Path, *, by_case: bool = False, picture: np.ndarray | None = None
) -> None:
    """Write the page of `render`, whole or not at all."""
    text = render(report, by_case=by_case, picture=picture)
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def render(report: Report, *, by_case: bool = False, picture: np.ndarray | None = None) -> str:
    """The page as HTML: one file that asks for no other.

    Args:
        by_case: whether each case has a table of its own, as networks have.
        picture: the photograph (H, W, 3) in 0 to 1 of the report's maps.

    Example:
        >>> render(Report("cpu"))[:15]
        '<!doctype html>'
    """
    style, script = _own("page.css"), _own("page.js")
    parts = {
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "verdict": _verdict(report),
        "circumstances": element(
            "p", f"{outcome.circumstances(report)}, {_date(report.date)}", class_="circumstances"
        ),
        "summary": summary(report, by_case=by_case),
        "distributions": distributions(report),
        "attention": _attention(report, picture),
        "command": element("code", report.command or "cbam check", id="command"),
        "versions": _versions(report),
        "rows": rows_json(report.rows),
    }
    return Template(_own("template.html")).substitute(parts)


def _own(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> Markup:
    """What a browser may do: nothing from elsewhere, and no other script, whatever a name says."""
    return element(
        "meta",
        http_equiv="Content-Security-Policy",
        content=f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'",
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _verdict(report: Report) -> Markup:
    mark = element("span", "✓" if report.ok else "✗", class_="mark", aria_hidden="true")
    said = "Passed: " if report.ok else "Failed: "
    words = element("span", said, class_="unseen")
    return element(
        "h1", mark, " ", words, outcome.verdict(report), class_="good" if report.ok else "bad"
    )


def _attention(report: Report, picture: np.ndarray | None) -> Markup:
    if not report.maps or picture is None:
        return element(
            "p",
            "This check has no attention maps: they belong to checks of blocks in evaluation, "
            "without faults.",
        )
    return attention(report.maps, picture)


def _versions(report: Report) -> Markup:
    facts = {"reference": "NumPy, float64", "device": report.device, "date": _date(report.date)}
    entries = [
        element("div", element("dt", name), element("dd", value))
        for name, value in (facts | report.made_with).items()
    ]
    return element("dl", *entries, class_="facts")


def _date(date: str) -> str:
    """
    >>> _date("2026-11-22T04:54:08Z")
    '2026-11-22 04:54 UTC'
    """
    return f"{date[:10]} {date[11:16]} UTC"
