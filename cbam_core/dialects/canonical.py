"""This project's own names: canonical, and as its four packages keep them."""

from cbam_core.dialects.dialect import VECTOR, Dialect, conv, mlp, torch_norm
from cbam_core.dialects.layouts import IN_OUT, OUT_IN, OUT_IN_ONES

OPTIONAL = ("mlp_bias", "spatial_bias", "spatial_norm")
SETTABLE = (
    "channel_pools", "gate", "order", "pooling", "residual", "norm_eps", "norm_momentum",
)  # fmt: skip
ALONE = ("channel", "spatial")
_ENDS = (".kernel", ".bias")

# The tf modules and the Flax modules, nnx and linen, have the same names.
CANONICAL = Dialect(
    name="canonical",
    about="this project's files, and cbam_tf and cbam_flax",
    spellings=(
        mlp("channel.reduce", "channel.expand", IN_OUT, bias=True, ends=_ENDS)
        | {"spatial.squeeze.kernel": ("spatial.squeeze.kernel", IN_OUT)}
        | conv("spatial.conv", bias=True, ends=_ENDS)
        | {
            f"spatial.norm.{n}": (f"spatial.norm.{n}", VECTOR)
            for n in ("scale", "bias", "mean", "var")
        },
    ),
    settable=SETTABLE,
    optional=OPTIONAL,
    alone=ALONE,
)

CBAM_TORCH = Dialect(
    name="cbam_torch",
    about="the state dict of cbam_torch",
    spellings=(
        mlp("channel.reduce", "channel.expand", OUT_IN, bias=True)
        | {"spatial.squeeze.kernel": ("spatial.squeeze.weight", OUT_IN_ONES)}
        | conv("spatial.conv", bias=True)
        | torch_norm("spatial.norm"),
    ),
    settable=SETTABLE,
    optional=OPTIONAL,
    alone=ALONE,
)
