"""The dialects: one file for each public implementation, and this list of them."""

from cbam_core.dialects.canonical import CANONICAL, CBAM_TORCH
from cbam_core.dialects.cbam_keras import CBAM_KERAS
from cbam_core.dialects.dialect import Dialect
from cbam_core.dialects.luuuyi import LUUUYI
from cbam_core.dialects.nested import NESTED
from cbam_core.dialects.official import OFFICIAL

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (CANONICAL, NESTED, CBAM_TORCH, CBAM_KERAS, OFFICIAL, LUUUYI)
}

__all__ = ["DIALECTS", "Dialect"]
