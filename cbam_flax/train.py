"""A network in training on NumPy arrays, with optax's optimizers: alike in all packages."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.tree_util import DictKey, GetAttrKey, KeyPath

from cbam_core import Recipe, TrainingState, as_canonical
from cbam_core.slots import OPTAX
from cbam_flax.backbones import Backbone
from cbam_flax.weights import canonical_array, load_canonical, to_canonical


class Trainer:
    """A network, its optimizer and its schedule, one step at a time.

    Args:
        state: where the run stands, with slots in the convention `cbam_core.slots.OPTAX`.
        dtype: of parameters and pictures.
        device: "cpu" or "gpu".
        compiled: has no effect; the step always goes through jax.jit.

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
        (1, ('trace',))
    """

    def __init__(
        self,
        state: TrainingState,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        self.recipe, self.dtype, self.device = state.recipe, dtype, jax.devices(device)[0]
        with jax.default_device(self.device):
            # Only the shapes: what draws values that nobody uses would take JAX long to compile.
            self.network = nnx.eval_shape(
                lambda: Backbone(state.architecture, param_dtype=dtype, rngs=nnx.Rngs(0))
            )
            nnx.reseed(self.network, default=0)
            load_canonical(self.network, state.weights)
            self.optimizer = nnx.Optimizer(
                self.network, make_optimizer(state.recipe), wrt=nnx.Param
            )
            self.load(state)
        self._gradients: Any = None

    def step(self, x: np.ndarray, target: np.ndarray) -> float:
        """One step on pictures x (N, H, W, 3) and their labels or values; the loss before it."""
        self.network.train()
        with jax.default_device(self.device):
            arrays = jnp.asarray(x, self.dtype), jnp.asarray(target)
            loss, self._gradients = _step(
                self.network, self.optimizer, *arrays, loss=self.recipe.loss
            )
        return float(loss)

    def gradients(self) -> dict[str, np.ndarray]:
        """Canonical name -> the gradient of the last step's loss."""
        return {".".join(path): canonical_array(g) for path, g in self._gradients.flat_state()}

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
        self.network.eval()
        return np.asarray(_logits(self.network, jnp.asarray(x, self.dtype)))


@nnx.jit(static_argnames="loss")
def _step(
    network: Backbone, optimizer: nnx.Optimizer, x: Array, target: Array, loss: str
) -> tuple[Array, nnx.State]:
    """The loss and the gradients; the network and the optimizer have made the step."""
    loss_of = nnx.value_and_grad(lambda network: LOSSES[loss](network(x), target))
    value, gradients = loss_of(network)
    optimizer.update(network, gradients)
    return value, gradients


_logits = nnx.jit(lambda network, x: network(x))


def cross_entropy(logits: Array, labels: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def squared_error(values: Array, target: Array) -> Array:
    return jnp.square(values - target.astype(values.dtype)).mean()


LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error}


@functools.cache
def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """optax's own optimizer and schedule for the recipe; one recipe's steps compile once."""

    def decays(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: recipe.decays(_name(path)), params)

    rate: Any = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
    adam = (rate, *recipe.betas, recipe.epsilon)
    match recipe.optimizer:
        case "sgd":
            rule = optax.sgd(rate, recipe.momentum or None, recipe.nesterov)
        case "adam":
            rule = optax.adam(*adam)
        case "adamw":
            return optax.adamw(*adam, weight_decay=recipe.weight_decay, mask=decays)
    return optax.chain(optax.add_decayed_weights(recipe.weight_decay, decays), rule)


def to_state(network: Backbone, optimizer: nnx.Optimizer, recipe: Recipe) -> TrainingState:
    """The network's weights, the optimizer's slots and its count of steps, copied."""
    slots = {name: canonical_array(slot) for name, slot in _slots(optimizer)}
    step = int(optimizer.step[...])
    return TrainingState(network.architecture, recipe, to_canonical(network), slots, step)


def load_state(network: Backbone, optimizer: nnx.Optimizer, state: TrainingState) -> None:
    """Continue from `state`, with an optimizer of its recipe.

    Raises:
        ValueError: the state is not whole, or not one of this network; nothing has been loaded.
    """
    state.check(OPTAX.kinds(state.recipe))
    load_canonical(network, state.weights)
    for variable in [optimizer.step, *_counts(optimizer)]:
        variable.set_value(jnp.asarray(state.step, variable.get_value().dtype))
    for name, slot in _slots(optimizer):
        old = slot.get_value()
        array = as_canonical(state.slots[name]) if state.slots else np.zeros(old.shape)
        slot.set_value(jnp.asarray(array, old.dtype))


def slot_name(path: KeyPath) -> str:
    """Name, "KIND:NAME", of what stands at `path` in optax's state, "KIND:" of a count of steps."""
    # nnx keeps every array as the value of a variable.
    kinds = [key.name for key in path if isinstance(key, GetAttrKey) and key.name != "value"]
    return f"{kinds[-1]}:{_name(path)}"


def _name(path: KeyPath) -> str:
    return ".".join(key.key for key in path if isinstance(key, DictKey))


def _slots(optimizer: nnx.Optimizer) -> Iterator[tuple[str, nnx.Variable]]:
    """(name, "KIND:NAME", and variable) of what the optimizer keeps for each parameter."""
    return ((name, variable) for name, variable in _variables(optimizer) if name[-1] != ":")


def _counts(optimizer: nnx.Optimizer) -> list[nnx.Variable]:
    return [variable for name, variable in _variables(optimizer) if name[-1] == ":"]


def _variables(optimizer: nnx.Optimizer) -> Iterator[tuple[str, nnx.Variable]]:
    found, _ = jax.tree_util.tree_flatten_with_path(optimizer.opt_state, is_leaf=_is_variable)
    return ((slot_name(path), variable) for path, variable in found)


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)
