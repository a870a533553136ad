"""A network in training on NumPy arrays, with TensorFlow's own optimizers: alike in all packages.

TensorFlow's optimizers are Keras's, whose SGD keeps the learning rate in its momentum and whose
Adam has its epsilon elsewhere; `prepare_step` and `regularized` make up for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from cbam_core import Recipe, TrainingState, as_canonical
from cbam_core.costs import is_statistic
from cbam_core.slots import KERAS
from cbam_tf.backbones import Backbone
from cbam_tf.weights import canonical_array, load_canonical, named_weights, to_canonical


class Trainer:
    """A network, its optimizer and its schedule, one step at a time.

    Args:
        state: where the run stands, with slots in the convention `cbam_core.slots.KERAS`.
        dtype: of parameters and pictures.
        device: "cpu" or "gpu".
        compiled: whether the step goes through tf.function.

    Raises:
        ValueError: the state is not whole.

    Example:
        >>> import numpy as np
        >>> from cbam_core import Architecture, Recipe, TrainingState, initial_network
        >>> architecture = Architecture("basic", (1,), (8,), attention="cbam", num_classes=10)
        >>> recipe = Recipe("sgd", 0.1, steps=200, momentum=0.9)
        >>> trainer = Trainer(TrainingState(architecture, recipe, initial_network(architecture)))
        >>> x, labels = np.ones((4, 32, 32, 3)), np.array([0, 1, 2, 3])
        >>> loss = trainer.step(x, labels)
        >>> trainer.state().step, trainer.state().kinds
        (1, ('momentum',))
    """

    def __init__(
        self,
        state: TrainingState,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        self.recipe, self.dtype = state.recipe, tf.as_dtype(dtype)
        self.device = f"/{device.upper()}:0"
        # What the optimizer's rate has as its dtype.
        tf.keras.backend.set_floatx(dtype)
        with tf.device(self.device):
            self.network = Backbone(state.architecture, dtype=self.dtype)
            self.optimizer = make_optimizer(self.network, state.recipe)
            self.load(state)
        self.run = tf.function(self._run) if compiled else self._run
        self._gradients: Mapping[str, tf.Tensor] = {}

    def step(self, x: np.ndarray, target: np.ndarray) -> float:
        """One step on pictures x (N, H, W, 3) and their labels or values; the loss before it."""
        with tf.device(self.device):
            epsilon = prepare_step(self.network, self.optimizer, self.recipe)
            arrays = tf.cast(x, self.dtype), tf.convert_to_tensor(target)
            loss, self._gradients = self.run(*arrays, tf.constant(epsilon, self.dtype))
        return float(loss)

    def _run(
        self, x: tf.Tensor, target: tf.Tensor, epsilon: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = self.loss(self.network(x, training=True), target)
        parameters = _parameters(self.network)
        gradients = tape.gradient(loss, parameters)
        if self.recipe.optimizer != "sgd":
            self.optimizer.epsilon = epsilon
        whole = regularized(self.network, self.recipe, gradients)
        self.optimizer.apply([whole[name] for name in parameters], list(parameters.values()))
        return loss, gradients

    def loss(self, logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        if self.recipe.loss == "cross_entropy":
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
            return tf.reduce_mean(each)
        return tf.reduce_mean(tf.square(logits - tf.cast(target, logits.dtype)))

    def gradients(self) -> dict[str, np.ndarray]:
        """Canonical name -> the gradient of the last step's loss."""
        return {name: canonical_array(gradient) for name, gradient in self._gradients.items()}

    def state(self) -> TrainingState:
        """Where the run stands."""
        return to_state(self.network, self.optimizer, self.recipe)

    def load(self, state: TrainingState) -> None:
        """Go on from another state of this architecture and recipe.

        Raises:
            ValueError: it is not one of them, or not whole; nothing has been loaded.
        """
        state.check_recipe(self.recipe)
        load_state(self.network, self.optimizer, state)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """What the network says to pictures x, in evaluation."""
        logits = self.network(tf.cast(x, self.dtype), training=False)
        return canonical_array(logits)


def make_optimizer(network: tf.Module, recipe: Recipe) -> tf.keras.optimizers.Optimizer:
    """Keras's own optimizer for the recipe, built for the network's parameters.

    `prepare_step` and `regularized` make its steps those of the recipe.
    """
    optimizers, parameters = tf.keras.optimizers, _parameters(network)
    # Of a Python float TensorFlow makes a float32, of NumPy's float64, which is one, a float64.
    is_double = next(iter(parameters.values())).dtype == tf.float64
    number = np.float64 if is_double else float
    beta_1, beta_2 = map(number, recipe.betas)
    match recipe.optimizer:
        case "sgd":
            optimizer = optimizers.SGD(1.0, number(recipe.momentum), recipe.nesterov)
        case "adam":
            optimizer = optimizers.Adam(1.0, beta_1, beta_2)
        case "adamw":
            optimizer = optimizers.AdamW(1.0, number(recipe.weight_decay), beta_1, beta_2)
    others = [variable for name, variable in parameters.items() if not recipe.decays(name)]
    optimizer.exclude_from_weight_decay(var_list=others)
    optimizer.build(list(parameters.values()))
    return optimizer


def prepare_step(
    network: tf.Module, optimizer: tf.keras.optimizers.Optimizer, recipe: Recipe
) -> float:
    """Set the rate of the next step, and correct the momentum for it; the step's epsilon.

    - Keras's momentum is -rate * v, with the rate of each step in it. So it is scaled where the
      rate has changed, the momentum correction of Goyal et al., https://arxiv.org/abs/1706.02677.
    - Keras's epsilon is added before the second moment is corrected for its beginning at 0,
      "epsilon hat" of Kingma and Ba; the recipe's is added behind it, as in their algorithm 1.
    """
    step = int(optimizer.iterations)
    before, rate = recipe.rate(max(step - 1, 0)), recipe.rate(step)
    optimizer.learning_rate = rate
    if recipe.optimizer == "sgd" and rate != before:
        for _, slot in _slots(optimizer, _parameters(network)):
            slot.assign(slot * tf.constant(rate / before, slot.dtype))
    return recipe.epsilon * math.sqrt(1 - recipe.betas[1] ** (step + 1))


def regularized(
    network: tf.Module, recipe: Recipe, gradients: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """The gradients with the weight decay of sgd and adam, a term that Keras's optimizers lack."""
    if recipe.optimizer == "adamw":
        return dict(gradients)
    parameters = _parameters(network)
    return {
        name: gradient + recipe.weight_decay * parameters[name] if recipe.decays(name) else gradient
        for name, gradient in gradients.items()
    }


def to_state(
    network: Backbone, optimizer: tf.keras.optimizers.Optimizer, recipe: Recipe
) -> TrainingState:
    """The network's weights, the optimizer's slots and its count of steps, copied."""
    slots = {name: canonical_array(slot) for name, slot in _slots(optimizer, _parameters(network))}
    step = int(optimizer.iterations)
    return TrainingState(network.architecture, recipe, to_canonical(network), slots, step)


def load_state(
    network: Backbone, optimizer: tf.keras.optimizers.Optimizer, state: TrainingState
) -> None:
    """Continue from `state`, with an optimizer of its recipe.

    Raises:
        ValueError: the state is not whole, or not one of this network; nothing has been loaded.
    """
    state.check(KERAS.kinds(state.recipe))
    load_canonical(network, state.weights)
    optimizer.iterations.assign(state.step)
    for name, slot in _slots(optimizer, _parameters(network)):
        slot.assign(as_canonical(state.slots[name]) if state.slots else np.zeros(slot.shape))


def _slots(
    optimizer: tf.keras.optimizers.Optimizer, parameters: Mapping[str, tf.Variable]
) -> Iterator[tuple[str, Any]]:
    """(name, "KIND:NAME", and variable) of what the optimizer keeps for each parameter."""
    rate = optimizer.learning_rate
    own = [v for v in optimizer.variables if v is not optimizer.iterations and v is not rate]
    names, each = list(parameters), len(own) // len(parameters)
    for place, slot in enumerate(own):
        name = names[place // each]
        prefix = parameters[name].name.replace("/", "_").replace(":", "_")
        yield f"{slot.name.removeprefix(f'{prefix}_')}:{name}", slot


def _parameters(network: tf.Module) -> dict[str, tf.Variable]:
    """Canonical name -> parameter."""
    return {n: weight for n, weight in named_weights(network).items() if not is_statistic(n)}
