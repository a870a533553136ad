"""A look-alike that many have written: an MLP of its own for each pool.

It has no names in common, so it is found by its structure: two pairs of layers of equal shapes
beside one spatial convolution.
"""

from cbam_core.dialects.dialect import Dialect

UNSHARED_MLP = Dialect(
    name="unshared_mlp",
    about="a block with an unshared MLP",
    lookalike="the average and the maximum go through MLPs of their own, and CBAM has one that "
    "they share",
)
