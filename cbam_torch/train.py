"""A network in training on NumPy arrays, with torch's own optimizers: alike in all packages."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core import Recipe, TrainingState
from cbam_core.costs import is_statistic
from cbam_core.slots import TORCH
from cbam_torch.backbones import Backbone
from cbam_torch.evaluate import PLACES, channels_first
from cbam_torch.weights import (
    canonical_array,
    load_canonical,
    named_weights,
    shapes_of,
    tensor_like,
    to_canonical,
    to_numpy,
)


class Trainer:
    """A network, its optimizer and its schedule, one step at a time.

    Args:
        state: where the run stands, with slots in the convention `cbam_core.slots.TORCH`.
        dtype: of parameters and pictures.
        device: "cpu" or "gpu".
        compiled: whether the network goes through torch.compile(fullgraph=True).

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
        (1, ('momentum_buffer',))
    """

    def __init__(
        self,
        state: TrainingState,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        self.recipe = state.recipe
        self.options = {"device": PLACES[device], "dtype": getattr(torch, dtype)}
        self.network = Backbone(state.architecture, **self.options).train()
        self.optimizer = make_optimizer(self.network, state.recipe)
        self.scheduler = make_scheduler(self.optimizer, state.recipe)
        self.load(state)
        torch.compiler.reset()
        self.run = torch.compile(self.network, fullgraph=True) if compiled else self.network

    def step(self, x: np.ndarray, target: np.ndarray) -> float:
        """One step on pictures x (N, H, W, 3) and their labels or values; the loss before it."""
        self.network.train()
        pictures = channels_first(x).to(**self.options)
        loss = self.loss(self.run(pictures), torch.from_numpy(target).to(pictures.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.recipe.loss == "cross_entropy":
            return F.cross_entropy(logits, target)
        return F.mse_loss(logits, target.to(logits))

    def gradients(self) -> dict[str, np.ndarray]:
        """Canonical name -> the gradient of the last step's loss."""
        shapes = shapes_of(self.network)
        return {
            name: canonical_array(parameter.grad, shapes[name])
            for name, parameter in _parameters(self.network).items()
            if parameter.grad is not None
        }

    def state(self) -> TrainingState:
        """Where the run stands."""
        return to_state(self.network, self.optimizer, self.recipe, self.scheduler.last_epoch)

    def load(self, state: TrainingState) -> None:
        """Go on from another state of this architecture and recipe.

        Raises:
            ValueError: it is not one of them, or not whole; nothing has been loaded.
        """
        state.check_recipe(self.recipe)
        load_state(self.network, self.optimizer, self.scheduler, state)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """What the network says to pictures x, in evaluation."""
        self.network.eval()
        with torch.no_grad():
            return to_numpy(self.network(channels_first(x).to(**self.options)))


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """torch's own optimizer for the recipe; parameters that decay are a group of their own."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups: dict[bool, list[tuple[str, Tensor]]] = {True: [], False: []}
    for name, parameter in _parameters(network).items():
        groups[recipe.decays(name)].append((names[id(parameter)], parameter))
    parameters = [
        {"params": group, "weight_decay": recipe.weight_decay * decays}
        for decays, group in groups.items()
        if group
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, recipe.learning_rate, recipe.momentum, nesterov=recipe.nesterov
        )
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return adam(parameters, recipe.learning_rate, recipe.betas, recipe.epsilon)


def make_scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe
) -> torch.optim.lr_scheduler.LRScheduler:
    """torch's own schedule for the recipe."""
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def to_state(
    network: Backbone, optimizer: torch.optim.Optimizer, recipe: Recipe, step: int
) -> TrainingState:
    """The network's weights and the optimizer's slots after `step` steps, copied."""
    shapes = shapes_of(network)
    slots = {
        f"{kind}:{name}": canonical_array(slot, shapes[name])
        for name, parameter in _parameters(network).items()
        for kind, slot in optimizer.state.get(parameter, {}).items()
        # Adam's count of the steps is every parameter's own here.
        if isinstance(slot, Tensor) and kind != "step"
    }
    return TrainingState(network.architecture, recipe, to_canonical(network), slots, step)


def load_state(
    network: Backbone,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    state: TrainingState,
) -> None:
    """Continue from `state`, with an optimizer and a schedule of its recipe.

    Raises:
        ValueError: the state is not whole, or not one of this network; nothing has been loaded.
    """
    state.check(TORCH.kinds(state.recipe))
    load_canonical(network, state.weights)
    optimizer.state.clear()
    parameters = _parameters(network)
    for full, slot in state.slots.items():
        kind, _, name = full.partition(":")
        parameter = parameters[name]
        optimizer.state[parameter][kind] = tensor_like(parameter, slot)
        if state.recipe.optimizer != "sgd":
            optimizer.state[parameter]["step"] = torch.tensor(float(state.step))
    rate = state.recipe.rate(state.step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    reached = {"last_epoch": state.step, "_last_lr": [rate] * len(optimizer.param_groups)}
    scheduler.load_state_dict(scheduler.state_dict() | reached)


def _parameters(network: nn.Module) -> dict[str, Tensor]:
    """Canonical name -> parameter."""
    return {n: weight for n, weight in named_weights(network).items() if not is_statistic(n)}
