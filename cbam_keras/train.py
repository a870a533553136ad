"""A network in training on NumPy arrays, with Keras's own optimizers: alike in all packages.

Keras's SGD keeps the learning rate in its momentum, and its Adam has its epsilon elsewhere;
`prepare_step` and `regularized` make up for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cbam_core import Recipe, TrainingState, as_canonical
from cbam_core.costs import is_statistic
from cbam_core.slots import KERAS
from cbam_keras.backbones import Backbone
from cbam_keras.evaluate import prepare
from cbam_keras.weights import canonical_array, load_canonical, named_weights, to_canonical


class Trainer:
    """A network, its optimizer and its schedule, one step at a time.

    Args:
        state: where the run stands, with slots in the convention `cbam_core.slots.KERAS`.
        dtype: of parameters and pictures.
        device: "cpu" or "gpu".
        compiled: whether the step goes through tf.function; on JAX it always goes through jax.jit,
            on torch it never is compiled.

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
        prepare(device)
        self.recipe, self.dtype, self.device = state.recipe, dtype, device
        # What the optimizer's rate has as its dtype.
        keras.config.set_floatx(dtype)
        with keras.device(self.device):
            self.network = Backbone(state.architecture, data_format="channels_last", dtype=dtype)
            self.optimizer = make_optimizer(self.network, state.recipe)
            self.load(state)
        self.run = _STEPS[keras.config.backend()](self, compiled)
        self._gradients: Mapping[str, Any] = {}

    def step(self, x: np.ndarray, target: np.ndarray) -> float:
        """One step on pictures x (N, H, W, 3) and their labels or values; the loss before it."""
        with keras.device(self.device):
            epsilon = prepare_step(self.network, self.optimizer, self.recipe)
            arrays = ops.convert_to_tensor(x, self.dtype), ops.convert_to_tensor(target)
            loss, gradients = self.run(*arrays, ops.convert_to_tensor(epsilon, self.dtype))
        self._gradients = dict(zip(_parameters(self.network), gradients, strict=True))
        return float(ops.convert_to_numpy(loss))

    def loss(self, logits: Any, target: Any) -> Any:
        if self.recipe.loss == "cross_entropy":
            losses = ops.sparse_categorical_crossentropy(target, logits, from_logits=True)
            return ops.sum(losses) / len(losses)
        squares = ops.square(logits - ops.cast(target, logits.dtype))
        return ops.sum(squares) / math.prod(squares.shape)

    def update(self, gradients: Sequence[Any], epsilon: Any) -> None:
        """One step of the optimizer, from the gradients by the parameters in their order."""
        if self.recipe.optimizer != "sgd":
            self.optimizer.epsilon = epsilon
        parameters = _parameters(self.network)
        named = dict(zip(parameters, gradients, strict=True))
        whole = regularized(self.network, self.recipe, named)
        self.optimizer.apply(list(whole.values()), list(parameters.values()))

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
        logits = self.network(ops.convert_to_tensor(x, self.dtype), training=False)
        return ops.convert_to_numpy(logits)


def make_optimizer(network: keras.Model, recipe: Recipe) -> keras.optimizers.Optimizer:
    """Keras's own optimizer for the recipe, built for the network's parameters.

    `prepare_step` and `regularized` make its steps those of the recipe.
    """
    optimizers, parameters = keras.optimizers, _parameters(network)
    # Of a Python float TensorFlow makes a float32, of NumPy's float64, which is one, a float64.
    is_double = next(iter(parameters.values())).dtype == "float64"
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
    network: keras.Model, optimizer: keras.optimizers.Optimizer, recipe: Recipe
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
            slot.assign(slot * ops.convert_to_tensor(rate / before, slot.dtype))
    return recipe.epsilon * math.sqrt(1 - recipe.betas[1] ** (step + 1))


def regularized(
    network: keras.Model, recipe: Recipe, gradients: Mapping[str, Any]
) -> dict[str, Any]:
    """The gradients with the weight decay of sgd and adam, a term that Keras's optimizers lack."""
    if recipe.optimizer == "adamw":
        return dict(gradients)
    parameters = _parameters(network)
    return {
        name: gradient + recipe.weight_decay * parameters[name] if recipe.decays(name) else gradient
        for name, gradient in gradients.items()
    }


def to_state(
    network: Backbone, optimizer: keras.optimizers.Optimizer, recipe: Recipe
) -> TrainingState:
    """The network's weights, the optimizer's slots and its count of steps, copied."""
    slots = {name: canonical_array(slot) for name, slot in _slots(optimizer, _parameters(network))}
    step = int(optimizer.iterations)
    return TrainingState(network.architecture, recipe, to_canonical(network), slots, step)


def load_state(
    network: Backbone, optimizer: keras.optimizers.Optimizer, state: TrainingState
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
    optimizer: keras.optimizers.Optimizer, parameters: Mapping[str, keras.Variable]
) -> Iterator[tuple[str, Any]]:
    """(name, "KIND:NAME", and variable) of what the optimizer keeps for each parameter.

    By their names: `compile` and `fit` build an optimizer in the order of the model's variables.
    """
    rate = optimizer.learning_rate
    names = {parameter.path.replace("/", "_"): name for name, parameter in parameters.items()}
    for slot in optimizer.variables:
        if slot is optimizer.iterations or slot is rate:
            continue
        prefix = slot.name
        while prefix and prefix not in names:
            prefix = prefix.rpartition("_")[0]
        yield f"{slot.name.removeprefix(f'{prefix}_')}:{names[prefix]}", slot


def _parameters(network: keras.Model) -> dict[str, keras.Variable]:
    """Canonical name -> parameter."""
    return {n: weight for n, weight in named_weights(network).items() if not is_statistic(n)}


# Gradients and state are the backends' own business. Each of these makes the function that takes
# pictures, targets and the epsilon to the loss and the gradients, and updates everything.


def _tensorflow_step(trainer: Trainer, compiled: bool) -> Any:
    import tensorflow as tf

    def step(x: Any, target: Any, epsilon: Any) -> tuple[Any, list[Any]]:
        variables = [parameter.value for parameter in _parameters(trainer.network).values()]
        with tf.GradientTape() as tape:
            loss = trainer.loss(trainer.network(x, training=True), target)
        gradients = tape.gradient(loss, variables)
        trainer.update(gradients, epsilon)
        return loss, gradients

    return tf.function(step) if compiled else step


def _torch_step(trainer: Trainer, compiled: bool) -> Any:
    import torch

    def step(x: Any, target: Any, epsilon: Any) -> tuple[Any, list[Any]]:
        variables = [parameter.value for parameter in _parameters(trainer.network).values()]
        loss = trainer.loss(trainer.network(x, training=True), target)
        gradients = list(torch.autograd.grad(loss, variables))
        with torch.no_grad():
            trainer.update(gradients, epsilon)
        return loss, gradients

    return step


def _jax_step(trainer: Trainer, compiled: bool) -> Any:
    import jax

    network, optimizer = trainer.network, trainer.optimizer
    parameters = list(_parameters(network).values())
    variables = [*parameters, *network.non_trainable_variables, *optimizer.variables]

    @jax.jit
    def stateless_step(values: list[Any], x: Any, target: Any, epsilon: Any) -> Any:
        def loss_of(weights: list[Any]) -> Any:
            given = list(zip(variables, [*weights, *values[len(weights) :]], strict=True))
            with keras.StatelessScope(given) as scope:
                loss = trainer.loss(network(x, training=True), target)
            return loss, [scope.get_current_value(variable) for variable in variables]

        found = jax.value_and_grad(loss_of, has_aux=True)(values[: len(parameters)])
        (loss, values), gradients = found
        with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
            trainer.update(gradients, epsilon)
        return loss, gradients, [scope.get_current_value(variable) for variable in variables]

    def step(x: Any, target: Any, epsilon: Any) -> tuple[Any, list[Any]]:
        values = [variable.value for variable in variables]
        loss, gradients, values = stateless_step(values, x, target, epsilon)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return loss, gradients

    return step


_STEPS = {"tensorflow": _tensorflow_step, "jax": _jax_step, "torch": _torch_step}
