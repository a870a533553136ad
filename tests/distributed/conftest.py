"""The engines' scripts are run, each in a process of its own, and never imported for doctests."""

from pathlib import Path

collect_ignore = [
    path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")
]
