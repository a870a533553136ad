"""Which CBAM a live module is, found out by probing it."""

from crosscheck.identifying.identified import Identified
from crosscheck.identifying.identify import identify

__all__ = ["Identified", "identify"]
