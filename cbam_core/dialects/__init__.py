"""The dialects: one file for each public implementation, and this list of them."""

from cbam_core.dialects.canonical import CANONICAL, CBAM_TORCH
from cbam_core.dialects.cbam_flax import CBAM_FLAX
from cbam_core.dialects.cbam_keras import CBAM_KERAS
from cbam_core.dialects.cbam_keras_se import CBAM_KERAS_SE
from cbam_core.dialects.dialect import Dialect
from cbam_core.dialects.elbuco1 import ELBUCO1
from cbam_core.dialects.k3_addons import K3_ADDONS
from cbam_core.dialects.keras import KERAS
from cbam_core.dialects.kobiso import KOBISO
from cbam_core.dialects.kobiso_keras import KOBISO_KERAS
from cbam_core.dialects.kobiso_se import KOBISO_SE
from cbam_core.dialects.luuuyi import LUUUYI
from cbam_core.dialects.mmyolo import MMYOLO
from cbam_core.dialects.nested import NESTED
from cbam_core.dialects.official import OFFICIAL
from cbam_core.dialects.osmr import OSMR
from cbam_core.dialects.seed_tf1 import SEED_TF1
from cbam_core.dialects.seed_torch import SEED_TORCH
from cbam_core.dialects.senet import SENET
from cbam_core.dialects.timm import TIMM
from cbam_core.dialects.timm_light import TIMM_LIGHT
from cbam_core.dialects.timm_se import TIMM_SE
from cbam_core.dialects.torchvision_se import TORCHVISION_SE
from cbam_core.dialects.ugenteraan import UGENTERAAN
from cbam_core.dialects.ultralytics import ULTRALYTICS
from cbam_core.dialects.unshared_mlp import UNSHARED_MLP
from cbam_core.dialects.xmu import XMU

# Of two that mean the same by the same names, the first is the one that is told.
DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        CANONICAL, NESTED, CBAM_TORCH, CBAM_KERAS, CBAM_KERAS_SE, OFFICIAL, OSMR, UGENTERAAN,
        ELBUCO1, LUUUYI, SEED_TORCH, TIMM, TIMM_LIGHT, MMYOLO, XMU, KOBISO, KOBISO_KERAS, KERAS,
        SEED_TF1, K3_ADDONS, CBAM_FLAX, KOBISO_SE, SENET, TIMM_SE, TORCHVISION_SE, ULTRALYTICS,
        UNSHARED_MLP,
    )
}  # fmt: skip

# What else people call them, in lower case and with underscores.
ALIASES = {
    "pytorchinsight": "official",
    "pytorchcv": "osmr",
    "gluoncv2": "osmr",
    "tf2cv": "osmr",
    "kobiso_tf": "kobiso",
    "kobiso_tf_slim": "kobiso",
    "seed_keras": "keras",
    "cbam.flax": "cbam_flax",
    "torchvision": "torchvision_se",
}


def named(names: str, argument: str = "dialect") -> list[Dialect]:
    """The dialects of `names`, one name or several with commas, however they are written.

    Raises:
        ValueError: there is no such dialect.

    >>> [dialect.name for dialect in named("PytorchInsight, k3-addons")]
    ['official', 'k3_addons']
    """
    found = []
    for name in names.split(","):
        plain = name.strip().lower().replace("-", "_")
        plain = ALIASES.get(plain, plain)
        if plain not in DIALECTS:
            raise ValueError(
                f"{argument}={name.strip()!r} is unknown; choose from {', '.join(DIALECTS)}"
            )
        found.append(DIALECTS[plain])
    return found


__all__ = ["ALIASES", "DIALECTS", "Dialect", "named"]
