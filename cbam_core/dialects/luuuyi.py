"""The PyTorch copy that most detectors carry, https://github.com/luuuyi/CBAM.PyTorch.

Its ratio argument is ignored: the MLP has C // 16 hidden units, which the arrays show. Its gates
are two modules, so that a file may hold either alone, or the weights of one module by itself.
"""

from cbam_core.dialects.dialect import Dialect, conv, mlp
from cbam_core.dialects.layouts import OUT_IN_ONES
from cbam_core.spec import PRESETS

LUUUYI = Dialect(
    name="luuuyi",
    about="the PyTorch copy that most detectors carry",
    spellings=(
        mlp("ca{n}.fc.0", "ca{n}.fc.2", OUT_IN_ONES, bias=False) | conv("sa{n}.conv1"),
        # Older copies, and many forks.
        mlp("ca{n}.fc1", "ca{n}.fc2", OUT_IN_ONES, bias=False) | conv("sa{n}.conv1"),
    ),
    bare=(
        mlp("fc.0", "fc.2", OUT_IN_ONES, bias=False),
        mlp("fc1", "fc2", OUT_IN_ONES, bias=False),
        conv("conv1"),
    ),
    fields=PRESETS["luuuyi"],
    alone=("channel", "spatial"),
)
