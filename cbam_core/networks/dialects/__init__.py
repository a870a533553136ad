"""The dialects of whole networks: one file for each public implementation, and this list."""

from cbam_core.networks.dialects.luuuyi import LUUUYI
from cbam_core.networks.dialects.network_dialect import NetworkDialect
from cbam_core.networks.dialects.official import OFFICIAL
from cbam_core.networks.dialects.osmr import OSMR
from cbam_core.networks.dialects.torchvision import TORCHVISION

NETWORK_DIALECTS: dict[str, NetworkDialect] = {
    dialect.name: dialect for dialect in (TORCHVISION, OFFICIAL, LUUUYI, OSMR)
}

__all__ = ["NETWORK_DIALECTS", "NetworkDialect"]
