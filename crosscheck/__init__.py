"""The same weights through every framework, judged by one reference; owns the command `cbam`."""

from crosscheck.identifying import Identified, identify

__all__ = ["Identified", "identify"]
