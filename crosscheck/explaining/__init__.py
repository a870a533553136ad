"""What a network looks at in one picture, as numbers and as pictures."""

from crosscheck.explaining.explanation import Explanation

__all__ = ["Explanation"]
