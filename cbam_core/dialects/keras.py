"""A Keras 2 copy of kobiso's block whose two gates are Keras 2's hard sigmoid.

No array shows the gate.
"""

from cbam_core.dialects.dialect import Dialect
from cbam_core.dialects.kobiso_keras import KOBISO_KERAS
from cbam_core.spec import PRESETS

KERAS = Dialect(
    name="keras",
    about="a Keras copy of kobiso's block with Keras 2's hard sigmoid",
    spellings=KOBISO_KERAS.spellings,
    fields=PRESETS["keras"],
)
