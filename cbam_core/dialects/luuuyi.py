"""The PyTorch copy that most detectors carry, https://github.com/luuuyi/CBAM.PyTorch.

Its ratio argument is ignored: the MLP has C // 16 hidden units, which the arrays show.
"""

from cbam_core.dialects.dialect import OUT_IN_ONES, Dialect, mlp, torch_conv

LUUUYI = Dialect(
    name="luuuyi",
    about="the PyTorch copy that most detectors carry",
    spellings=(
        mlp("ca{n}.fc.0", "ca{n}.fc.2", OUT_IN_ONES, bias=False) | torch_conv("sa{n}.conv1"),
        # Older copies, and many forks.
        mlp("ca{n}.fc1", "ca{n}.fc2", OUT_IN_ONES, bias=False) | torch_conv("sa{n}.conv1"),
    ),
)
