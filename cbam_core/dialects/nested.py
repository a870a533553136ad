"""The canonical names as a tree, which is how cbam_flax and cbam_tf keep them.

As `from_pure_dict` and the like take a module's state. Read, they are canonical.
"""

from dataclasses import replace

from cbam_core.dialects.canonical import CANONICAL

NESTED = replace(
    CANONICAL,
    name="nested",
    about="cbam_flax's and cbam_tf's objects, as a tree",
    spellings=tuple(
        {ours: (theirs.replace(".", "/"), layout) for ours, (theirs, layout) in leaves.items()}
        for leaves in CANONICAL.spellings
    ),
)
