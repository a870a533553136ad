"""What is said of a run in words and numbers: in its file, by its optimizer, by the caller.

It is the fields of a `Recipe`, "step" and "architecture".
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cbam_core.architectures import Architecture
from cbam_core.contents import Contents
from cbam_core.networks.network import check_depth
from cbam_core.recipe import Recipe

# What a recipe has to say of its optimizer; no slot depends on the loss.
_ALWAYS = ("optimizer", "learning_rate", "steps", "schedule", "weight_decay")
_OWN = {
    "sgd": ("momentum", "nesterov"),
    "adam": ("betas", "epsilon"),
    "adamw": ("betas", "epsilon"),
}

# Keras's names of a recipe's optimizers.
_OPTIMIZERS = {"sgd": "sgd", "adam": "adam", "adam_w": "adamw"}

# Who says something -> what.
Statements = Mapping[str, Mapping[str, Any]]


def stated(contents: Contents) -> dict[str, Any]:
    """What a file says in words: "architecture" and "recipe", as their `to_dict` gave them.

    This project writes them as metadata, and whoever saves a dict can put them into it.
    """
    words = {}
    for name in ("architecture", "recipe", "step"):
        if name in contents.metadata:
            words[name] = json.loads(contents.metadata[name])
        elif name != "step":
            words[name] = nested(contents.facts, name)
    for name in ("architecture", "recipe"):
        if words[name] is not None and not isinstance(words[name], dict):
            raise ValueError(f"its {name} is no dict of fields; save what {name}.to_dict() gives")
    recipe = words.pop("recipe") or {}
    return {name: value for name, value in words.items() if value is not None} | recipe


def nested(facts: Mapping[str, Any], around: str) -> Any:
    """The dicts and lists that a file has under a name, of its flat facts; None if nothing.

    >>> nested({"groups/0/lr": 0.1, "groups/1/lr": 0.2, "epoch": 90}, "groups")
    [{'lr': 0.1}, {'lr': 0.2}]
    """
    if around in facts:
        return facts[around]
    prefix = f"{around}/"
    tree: dict[str, Any] = {}
    for name, value in facts.items():
        if name.startswith(prefix):
            *path, last = name.removeprefix(prefix).split("/")
            node = tree
            for key in path:
                node = node.setdefault(key, {})
                if not isinstance(node, dict):
                    raise ValueError(f"{name!r} goes on from what is a value")
            node[last] = value
    return _listed(tree) if tree else None


def numbers(contents: Contents) -> dict[str, Any]:
    """The facts, and the arrays without axes as the numbers that they are."""
    scalars = {name: array.item() for name, array in contents.arrays.items() if not array.ndim}
    return {**contents.facts, **scalars}


def counted(said: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """ "step" -> what all of these names count that are there; nothing without any.

    Raises:
        ValueError: they do not count the same.
    """
    steps = sorted({said[name] for name in names if name in said})
    if len(steps) > 1:
        raise ValueError(
            f"it counts {' and '.join(f'{step:g}' for step in steps)} steps, and a run has made "
            f"one number of them; a recipe's schedule goes by steps, not by epochs"
        )
    return {"step": steps[0]} if steps else {}


def optimizer_called(name: str) -> dict[str, str]:
    """ "optimizer", by the name that Keras gives it; a second one of its kind is "adam_1".

    Raises:
        ValueError: it is none of a recipe's.

    >>> optimizer_called("adam_w_2")
    {'optimizer': 'adamw'}
    """
    known = _OPTIMIZERS.get(re.sub(r"_\d+$", "", name))
    if known is None:
        raise ValueError(
            f"its optimizer is called {name!r}, and Keras calls those of a recipe "
            f"{', '.join(_OPTIMIZERS)}; the slots of others have no counterpart"
        )
    return {"optimizer": known}


def agreed(statements: Statements) -> dict[str, Any]:
    """All that is said.

    Raises:
        ValueError: two say different things of the same; the message names who and what.
    """
    words: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, said in statements.items():
        for name, value in said.items():
            value = _comparable(name, value)
            if name in words and words[name] != value:
                raise ValueError(
                    f"{sources[name]} says {name}={words[name]!r}, and {source} {name}={value!r}; "
                    f"one of them is not of this run"
                )
            words[name], sources[name] = value, source
    return words


def complete(words: Mapping[str, Any]) -> tuple[Architecture, Recipe, int]:
    """The architecture, the recipe and the step of a run.

    Raises:
        ValueError: something is not said; the message lists all of it and how to say it.
    """
    fields = {name: value for name, value in words.items() if name not in ("architecture", "step")}
    own = _OWN.get(fields.get("optimizer", ""), ())
    needed = ("architecture", *_ALWAYS, *own, "step")
    missing = [name for name in needed if name not in words]
    if missing:
        raise ValueError(
            f"the file does not tell {', '.join(missing)}; give what is missing: to cbam convert "
            f"as --recipe FILE.json, in which it stands by these names, or a canonical file of "
            f"the same run; to read_state as a dict"
        )
    step = words["step"]
    if isinstance(step, bool) or step != int(step) or step < 0:
        raise ValueError(f"step={step!r} is no number of steps; expected 0 or more")
    check_depth(words["architecture"].depths)
    return words["architecture"], Recipe.from_dict(fields), int(step)


def in_words(architecture: Architecture, recipe: Recipe, step: int) -> dict[str, str]:
    """The metadata of which `stated` gives the same."""
    told = {"architecture": architecture.to_dict(), "recipe": recipe.to_dict(), "step": step}
    return {name: json.dumps(value) for name, value in told.items()}


def _comparable(name: str, value: Any) -> Any:
    if name == "architecture" and isinstance(value, Mapping):
        return Architecture.from_dict(value)
    if name == "betas" and isinstance(value, list):
        return tuple(value)
    known = {field.name for field in dataclasses.fields(Recipe)}
    if name not in known | {"architecture", "step"}:
        raise ValueError(f"{name}={value!r}: no field of a recipe, nor step or architecture")
    return value


def _listed(tree: dict[str, Any]) -> Any:
    """Dicts whose keys count from 0 become lists."""
    values = {key: _listed(one) if isinstance(one, dict) else one for key, one in tree.items()}
    if set(values) == set(map(str, range(len(values)))):
        return [values[str(n)] for n in range(len(values))]
    return values
