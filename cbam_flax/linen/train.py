"""A network in training on NumPy arrays, with optax's optimizers: alike in all packages."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cbam_core import Recipe, TrainingState, as_canonical
from cbam_core.costs import is_statistic
from cbam_core.slots import OPTAX
from cbam_flax.linen.backbones import Backbone
from cbam_flax.linen.weights import load_canonical, to_canonical
from cbam_flax.train import LOSSES, make_optimizer, slot_name

Variables = dict[str, Any]


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
        self.network = Backbone(state.architecture, param_dtype=dtype, use_running_average=False)
        self.optimizer = make_optimizer(state.recipe)
        self.variables: Variables = {}
        self.slots: Any = None
        self.count = 0
        self.load(state)
        self._gradients: Variables = {}

    def step(self, x: np.ndarray, target: np.ndarray) -> float:
        """One step on pictures x (N, H, W, 3) and their labels or values; the loss before it."""
        with jax.default_device(self.device):
            arrays = jnp.asarray(x, self.dtype), jnp.asarray(target)
            loss, self._gradients, self.variables, self.slots = _step(
                self.network, self.optimizer, self.recipe.loss, self.variables, self.slots, *arrays
            )
        self.count += 1
        return float(loss)

    def gradients(self) -> dict[str, np.ndarray]:
        """Canonical name -> the gradient of the last step's loss."""
        whole = to_canonical(self.network, {**self.variables, "params": self._gradients})
        return {name: array for name, array in whole.items() if not is_statistic(name)}

    def state(self) -> TrainingState:
        """Where the run stands."""
        return to_state(self.network, self.variables, self.slots, self.recipe, self.count)

    def load(self, state: TrainingState) -> None:
        """Go on from another state of this architecture and recipe.

        Raises:
            ValueError: it is not one of them, or not whole; nothing has been loaded.
        """
        state.check_recipe(self.recipe)
        with jax.default_device(self.device):
            self.variables, self.slots = load_state(self.network, self.optimizer, state)
        self.count = state.step

    def logits(self, x: np.ndarray) -> np.ndarray:
        """What the network says to pictures x, in evaluation."""
        evaluated = self.network.clone(use_running_average=True)
        return np.asarray(jax.jit(evaluated.apply)(self.variables, jnp.asarray(x, self.dtype)))


@functools.partial(jax.jit, static_argnames=("network", "optimizer", "loss"))
def _step(
    network: Backbone,
    optimizer: optax.GradientTransformation,
    loss: str,
    variables: Variables,
    slots: Any,
    x: Array,
    target: Array,
) -> tuple[Array, Variables, Variables, Any]:
    """The loss, the gradients, and the variables and slots behind the step."""
    others = {kind: own for kind, own in variables.items() if kind != "params"}

    def loss_of(params: Variables) -> Any:
        logits, after = network.apply({"params": params, **others}, x, mutable=["batch_stats"])
        return LOSSES[loss](logits, target), after

    params = variables["params"]
    (value, after), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
    updates, slots = optimizer.update(gradients, slots, params)
    return value, gradients, {"params": optax.apply_updates(params, updates), **after}, slots


def to_state(
    network: Backbone, variables: Variables, slots: Any, recipe: Recipe, step: int
) -> TrainingState:
    """The network's weights and the optimizer's slots after `step` steps, copied."""
    found, _ = jax.tree_util.tree_flatten_with_path(slots)
    named = {slot_name(path): as_canonical(np.array(array)) for path, array in found}
    own = {name: array for name, array in named.items() if name[-1] != ":"}
    weights = to_canonical(network, variables)
    return TrainingState(network.architecture, recipe, weights, own, step)


def load_state(
    network: Backbone, optimizer: optax.GradientTransformation, state: TrainingState
) -> tuple[Variables, Any]:
    """The variables and the slots with which a run continues from `state`.

    Raises:
        ValueError: the state is not whole.
    """
    state.check(OPTAX.kinds(state.recipe))
    variables = load_canonical(network, state.weights)

    def loaded(path: Any, old: Array) -> Array:
        name = slot_name(path)
        if name[-1] == ":":
            return jnp.asarray(state.step, old.dtype)
        return jnp.asarray(as_canonical(state.slots[name]), old.dtype) if state.slots else old

    slots = optimizer.init(variables["params"])
    return variables, jax.tree_util.tree_map_with_path(loaded, slots)
