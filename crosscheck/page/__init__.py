"""A report as one page of HTML that needs nothing else: what `cbam check --report` writes.

page.py fills template.html with the parts: summary.py has the table, distribution.py the charts,
attention.py the photograph's maps, and page.js shows the rows that rows.py lists.
"""

from crosscheck.page.page import render, write

__all__ = ["render", "write"]
