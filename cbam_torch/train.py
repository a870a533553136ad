"""A network in training on NumPy arrays, with torch's own optimizers: alike in all four packages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core import Architecture, Recipe, TrainingState
from cbam_core.costs import is_statistic
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

# Optimizer of a recipe -> the slots that torch keeps for it.
SLOTS = {
    "sgd": ("momentum_buffer",),
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
}


class Trainer:
    """A network, its optimizer and its schedule, one step at a time.

    Args:
        state: where the run stands, with the slots of this package's `SLOTS`; without slots,
            a run's beginning.
        dtype: of parameters and pictures.
        device: "cpu" or "gpu".
        compiled: whether the network goes through torch.compile(fullgraph=True).

    Raises:
        ValueError: the state is not one of this architecture and recipe.

    Example:
        >>> import numpy as np
        >>> from cbam_core import Architecture, Recipe, TrainingState, initial_network
        >>> architecture = Architecture("basic", (1,), (8,), attention="cbam", num_classes=10)
        >>> state = TrainingState(0, initial_network(architecture), {})
        >>> trainer = Trainer(architecture, Recipe("sgd", 0.1, steps=200, momentum=0.9), state)
        >>> x, labels = np.ones((4, 32, 32, 3)), np.array([0, 1, 2, 3])
        >>> loss = trainer.step(x, labels)
        >>> trainer.state().step, trainer.state().kinds
        (1, ['momentum_buffer'])
    """

    def __init__(
        self,
        architecture: Architecture,
        recipe: Recipe,
        state: TrainingState,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        self.recipe = recipe
        self.options = {"device": PLACES[device], "dtype": getattr(torch, dtype)}
        self.network = Backbone(architecture, **self.options).train()
        self.optimizer = make_optimizer(self.network, recipe)
        self.scheduler = make_scheduler(self.optimizer, recipe)
        load_state(self.network, self.optimizer, self.scheduler, recipe, state)
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
        }

    def state(self) -> TrainingState:
        """Where the run stands."""
        return to_state(self.network, self.optimizer, self.scheduler.last_epoch)

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


def to_state(network: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> TrainingState:
    """The network's weights and the optimizer's slots after `step` steps, copied.

    Before the first step torch has no slots.
    """
    shapes = shapes_of(network)
    slots = {
        f"{kind}:{name}": canonical_array(slot, shapes[name])
        for name, parameter in _parameters(network).items()
        for kind, slot in optimizer.state.get(parameter, {}).items()
        # Adam's count of the steps is every parameter's own here.
        if isinstance(slot, Tensor) and kind != "step"
    }
    return TrainingState(step, to_canonical(network), slots)


def load_state(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    recipe: Recipe,
    state: TrainingState,
) -> None:
    """Continue from `state`, with an optimizer and a schedule of the recipe.

    Raises:
        ValueError: names are missing or unexpected or shapes differ; nothing has been loaded.
    """
    kinds = SLOTS[recipe.optimizer] if recipe.slots and state.step else ()
    state.check(network.architecture, kinds)
    load_canonical(network, state.weights)
    for name, parameter in _parameters(network).items():
        own = optimizer.state[parameter]
        for kind in kinds:
            own[kind] = tensor_like(parameter, state.slots[f"{kind}:{name}"])
        if recipe.optimizer != "sgd" and kinds:
            own["step"] = torch.tensor(float(state.step))
    rate = recipe.rate(state.step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    reached = {"last_epoch": state.step, "_last_lr": [rate] * len(optimizer.param_groups)}
    scheduler.load_state_dict(scheduler.state_dict() | reached)


def _parameters(network: nn.Module) -> Mapping[str, Tensor]:
    """Canonical name -> parameter."""
    return {n: weight for n, weight in named_weights(network).items() if not is_statistic(n)}
