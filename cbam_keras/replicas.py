"""What the replicas of a tf.distribute strategy know together.

Keras has `synchronized=True` in a norm of its own, and no operation of which another layer could
be made, so this file asks the backend.
"""

from __future__ import annotations

import keras
from keras import KerasTensor as Tensor


def check_synchronized(synchronized: bool) -> bool:
    """`synchronized`, which no other backend than TensorFlow has."""
    if synchronized and keras.config.backend() != "tensorflow":
        raise ValueError(
            f"synchronized=True needs the TensorFlow backend, and this is "
            f"{keras.config.backend()}; on JAX keras.distribution takes statistics over all "
            f"devices without it"
        )
    return synchronized


def total(values: Tensor) -> Tensor:
    """The sum of all replicas' `values`; themselves outside of a strategy."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return values if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, values)
