"""PyTorch's form: the state dicts of a model, its optimizer and its scheduler, in one dict.

The optimizer's numbers its parameters. Built with named parameters, as `cbam_torch.train` does, it
has their names too; without names and in one group they are in the order of the model's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.contents import Contents
from cbam_core.costs import is_statistic
from cbam_core.dialects.dialect import Leaves
from cbam_core.dialects.layouts import OUT_IN, OUT_IN_ONES, OUT_IN_SPACE, VECTOR, Layout
from cbam_core.finding.nestings import unwrap
from cbam_core.recipe import Recipe
from cbam_core.slots import TORCH
from cbam_core.training_files.run import Parameters, Run, Slots
from cbam_core.training_files.stated import counted, in_words, nested, numbers
from cbam_core.training_state import TrainingState

CONVENTION = TORCH
CONTAINERS = ("torch",)

_LEAVES = {
    "kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean",
    "var": "running_var",
}  # fmt: skip
_LAYOUTS = {1: VECTOR, 2: OUT_IN, 4: OUT_IN_SPACE}

_PARAMETER = re.compile(r"(.*/)?param_groups/\d+/params/\d+")
_SCHEDULE = re.compile(r"(.*/)?last_epoch")
_STEPS = ("step", "global_step", "iteration")
# What a group calls the fields of a recipe, and options with which it is none.
_FIELDS = {"momentum": "momentum", "nesterov": "nesterov", "betas": "betas", "eps": "epsilon"}
_OFF = ("dampening", "maximize", "amsgrad")
# What the groups of SGD, Adam and AdamW have.
_OPTIONS = {
    "params", "param_names", "lr", "initial_lr", "weight_decay", *_FIELDS, *_OFF, "foreach",
    "capturable", "differentiable", "fused", "decoupled_weight_decay",
}  # fmt: skip
# What every scheduler has.
_COMMON = {
    "base_lrs", "last_epoch", "verbose", "_step_count", "_is_initial", "_last_lr",
    "_get_lr_called_within_step",
}  # fmt: skip

Group = Mapping[str, Any]


def leaves(architecture: Architecture) -> Leaves:
    shapes = network_shapes(architecture)
    return {name: (_name(name), _layout(name, shape)) for name, shape in shapes.items()}


def find(contents: Contents) -> Run | None:
    said = numbers(contents)
    prefix = _only("optimizers", _PARAMETER, said)
    if prefix is None:
        return None
    scheduler = _only("schedulers", _SCHEDULE, said)
    kinds = {
        name: name.rpartition("/")[2]
        for name, array in contents.arrays.items()
        if name.startswith(f"{prefix}state/") and array.ndim
    }
    counts = [name for name in said if re.fullmatch(rf"{re.escape(prefix)}state/\d+/step", name)]
    counts += [name for name in _STEPS if name in said]
    schedule = [] if scheduler is None else [f"{scheduler}last_epoch"]
    told = counted(said, [*counts, *schedule]) | _by_groups(_groups(said, prefix))
    # SGD counts no steps, and a schedule may count epochs; so the norms have to agree with it.
    batches = {count for name, count in said.items() if name.endswith("num_batches_tracked")}
    if not counts and batches and batches != {told.get("step")}:
        told.pop("step", None)
    if scheduler is not None:
        told |= _by_schedule(nested(said, scheduler.removesuffix("/")))
    return Run("torch", tuple(kinds), tuple(dict.fromkeys(kinds.values())), told)


def slots(contents: Contents, run: Run, state: TrainingState, parameters: Parameters) -> Slots:
    said = numbers(contents)
    prefix = _only("optimizers", _PARAMETER, said)
    groups = _groups(said, prefix or "")
    names = _names(contents, groups, parameters)
    _check(groups, names, state, parameters)
    kept: Slots = {}
    for slot in run.slots:
        number, kind = slot.removeprefix(f"{prefix}state/").split("/")
        if int(number) not in names:
            raise ValueError(f"it keeps {slot!r}, and no group has a parameter of this number")
        kept[kind, names[int(number)]] = contents.arrays[slot]
    return kept


def contents(state: TrainingState) -> Contents:
    """As `cbam_torch.train.make_optimizer` has its groups: what decays first, the rest behind."""
    recipe, own = state.recipe, leaves(state.architecture)
    trained = [name for name in own if not is_statistic(name)]
    parted = [[n for n in trained if recipe.decays(n) is decays] for decays in (True, False)]
    order = [name for group in parted for name in group]
    groups = [
        {
            **_options(recipe),
            "lr": recipe.rate(state.step),
            "initial_lr": recipe.learning_rate,
            "weight_decay": recipe.weight_decay * recipe.decays(group[0]),
            "params": [order.index(name) for name in group],
            "param_names": [own[name][0] for name in group],
        }
        for group in parted
        if group
    ]
    arrays = {**_model(state, own), **_kept(state, own, order)}
    facts: dict[str, Any] = {
        "optimizer/param_groups": groups,
        "scheduler": _schedule(recipe, state.step, len(groups)),
    }
    if not state.slots:
        facts["optimizer/state"] = {}
    return Contents(arrays, facts, in_words(state.architecture, recipe, state.step))


def _model(state: TrainingState, own: Leaves) -> dict[str, np.ndarray]:
    """The model's state dict, in which norms count batches."""
    arrays = {}
    for name, weight in state.weights.items():
        theirs, layout = own[name]
        arrays[f"model/{theirs}"] = layout.write(weight, 2)
        if theirs.endswith("running_var"):
            counter = theirs.replace("running_var", "num_batches_tracked")
            arrays[f"model/{counter}"] = np.array(state.step)
    return arrays


def _kept(state: TrainingState, own: Leaves, order: Sequence[str]) -> dict[str, np.ndarray]:
    """The slots of the parameters, by their numbers in `order`; Adam counts steps for each."""
    arrays = {}
    for number, name in enumerate(order):
        for kind in state.kinds:
            slot = own[name][1].write(state.slots[f"{kind}:{name}"], 2)
            arrays[f"optimizer/state/{number}/{kind}"] = slot
        if state.slots and state.recipe.optimizer != "sgd":
            arrays[f"optimizer/state/{number}/step"] = np.array(state.step, np.float32)
    return arrays


def _name(canonical: str) -> str:
    path, _, leaf = canonical.rpartition(".")
    return f"{path}.{_LEAVES[leaf]}"


def _layout(name: str, shape: tuple[int, ...]) -> Layout:
    return OUT_IN_ONES if name.endswith("squeeze.kernel") else _LAYOUTS[len(shape)]


def _only(what: str, pattern: re.Pattern[str], said: Mapping[str, Any]) -> str | None:
    """What stands before the names that fit, which are those of one thing."""
    around = {match[1] or "" for match in map(pattern.fullmatch, said) if match}
    if len(around) > 1:
        raise ValueError(f"it holds {len(around)} {what} ({', '.join(sorted(around))}), not one")
    return next(iter(around), None)


def _groups(said: Mapping[str, Any], prefix: str) -> list[Group]:
    groups = nested(said, f"{prefix}param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise ValueError("its param_groups are no list of dicts")
    if not all(isinstance(group.get("params"), list) for group in groups):
        raise ValueError("one of its param_groups has no list of params")
    return groups


def _by_groups(groups: Sequence[Group]) -> dict[str, Any]:
    """What the groups of parameters tell of a recipe.

    Raises:
        ValueError: they have what no recipe has.
    """
    told: dict[str, Any] = {}
    for group in groups:
        for option in _OFF:
            if group.get(option):
                raise ValueError(
                    f"its optimizer has {option}={group[option]!r}, which no recipe has"
                )
        for theirs, ours in _FIELDS.items():
            if theirs in group and told.setdefault(ours, group[theirs]) != group[theirs]:
                raise ValueError(f"{theirs} differs in its param_groups, and a recipe has one")
    first = groups[0]
    if {"nesterov", "dampening"} <= first.keys():
        told["optimizer"] = "sgd"
    elif {"betas", "amsgrad", "decoupled_weight_decay"} <= first.keys():
        told["optimizer"] = "adamw" if first["decoupled_weight_decay"] else "adam"
    decays = {group.get("weight_decay", 0) for group in groups} - {0}
    if len(decays) > 1:
        raise ValueError(f"it has the weight decays {sorted(decays)}, and a recipe has one")
    if decays:
        everywhere = all(group.get("weight_decay") for group in groups)
        told["decayed"] = "all" if everywhere else "kernels"
    return {**told, "weight_decay": next(iter(decays), 0.0)}


def _by_schedule(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler tells of a recipe; without one the rate may have been set by hand.

    Raises:
        ValueError: no recipe has such a schedule.
    """
    own = {name: value for name, value in scheduler.items() if name not in _COMMON}
    rates = set(scheduler.get("base_lrs", ()))
    is_cosine = own.keys() == {"T_max", "eta_min"} and own["eta_min"] == 0
    is_constant = own.keys() == {"factor", "total_iters"} and own["factor"] == 1
    if not (is_cosine or is_constant) or len(rates) != 1:
        raise ValueError(
            f"its scheduler is none of a recipe, which are CosineAnnealingLR to eta_min=0 and "
            f"ConstantLR with factor=1, with one rate for all groups; it has {own} and "
            f"base_lrs={sorted(rates)}"
        )
    told = {"schedule": "cosine" if is_cosine else "constant", "learning_rate": rates.pop()}
    return told | ({"steps": own["T_max"]} if is_cosine else {})


def _names(contents: Contents, groups: Sequence[Group], parameters: Parameters) -> dict[int, str]:
    """Number of a parameter -> its name in the model."""
    named: dict[int, str] = {}
    if all(len(group.get("param_names", ())) == len(group["params"]) for group in groups):
        for group in groups:
            named |= dict(zip(group["params"], map(_bare, group["param_names"]), strict=True))
        return named
    if len(groups) > 1:
        raise ValueError(
            f"its {len(groups)} param_groups have no param_names, so no array tells whose slots "
            f"are whose; build the optimizer with named parameters, (name, parameter), as PyTorch "
            f"takes them since 2.6, load its state dict into it and save it again"
        )
    ordered = [name for name in unwrap(contents.arrays) if name in parameters]
    (group,) = groups
    if len(group["params"]) != len(ordered):
        raise ValueError(
            f"its optimizer has {len(group['params'])} parameters without param_names, and the "
            f"model {len(ordered)}; build it with named parameters and save it again"
        )
    return dict(zip(group["params"], ordered, strict=True))


def _bare(name: str) -> str:
    return next(iter(unwrap([name])))


def _check(
    groups: Sequence[Group],
    names: Mapping[int, str],
    state: TrainingState,
    parameters: Parameters,
) -> None:
    """Raise a ValueError where the rate or a parameter's decay is not the recipe's."""
    recipe, step = state.recipe, state.step
    for group in groups:
        unknown = sorted(group.keys() - _OPTIONS)
        if unknown:
            raise ValueError(
                f"its optimizer has {', '.join(unknown)}, which PyTorch's SGD, Adam and AdamW have "
                f"not; the slots of others have no counterpart"
            )
        rate, has = recipe.rate(step), group["lr"]
        if not math.isclose(has, rate, rel_tol=1e-6, abs_tol=1e-9 * recipe.learning_rate):
            raise ValueError(
                f"its optimizer has lr={has}, and the recipe's at step {step} is {rate}"
            )
        for name in map(names.__getitem__, group["params"]):
            # What has axes is a kernel.
            decays = recipe.decayed == "all" or len(parameters.get(name, ())) > 1
            decay = recipe.weight_decay if decays else 0
            if name in parameters and group.get("weight_decay", 0) != decay:
                raise ValueError(
                    f"its optimizer has weight_decay={group['weight_decay']} for {name}, and the "
                    f"recipe's is {decay}: all parameters decay, or the kernels alone"
                )


def _options(recipe: Recipe) -> dict[str, Any]:
    """What PyTorch's optimizers keep in each group, besides the rate and the decay."""
    if recipe.optimizer == "sgd":
        own: dict[str, Any] = {
            "momentum": recipe.momentum,
            "dampening": 0,
            "nesterov": recipe.nesterov,
        }
    else:
        is_adamw = recipe.optimizer == "adamw"
        own = {"betas": list(recipe.betas), "eps": recipe.epsilon, "amsgrad": False}
        own |= {"capturable": False, "decoupled_weight_decay": is_adamw}
    return {**own, "maximize": False, "foreach": None, "differentiable": False, "fused": None}


def _schedule(recipe: Recipe, step: int, groups: int) -> dict[str, Any]:
    """The state of PyTorch's scheduler after this step."""
    if recipe.schedule == "cosine":
        own: dict[str, Any] = {"T_max": recipe.steps, "eta_min": 0.0}
    else:
        own = {"factor": 1.0, "total_iters": 5}
    return {
        **own,
        "base_lrs": [recipe.learning_rate] * groups,
        "last_epoch": step,
        "_step_count": step + 1,
        "_is_initial": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [recipe.rate(step)] * groups,
    }
