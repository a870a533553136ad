"""Training runs in files: from every form to every other, and what is refused, by its name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from random import Random

import numpy as np
import pytest

import cbam_core
from cbam_core import (
    Architecture,
    CheckpointError,
    Recipe,
    TrainingState,
    containers,
    read_state,
    write_state,
)
from cbam_core.containers import CONTAINERS
from cbam_core.contents import Contents
from cbam_core.training_files import FORMS, canonical, find_run, flax, keras, torch
from cbam_core.training_state import slot_shapes
from tests import networks
from tests.core.damage import KINDS, damaged

SMALL = Architecture(
    "basic",
    (1,),
    (4,),
    attention="cbam",
    spec={"reduction": 2, "kernel_size": 3},
    stem="cifar",
    num_classes=3,
)
RECIPES = {
    "sgd": Recipe("sgd", 0.1, steps=20, momentum=0.9, weight_decay=5e-4),
    "plain": Recipe("sgd", 0.1, steps=20, loss="squared_error"),
    "nesterov": Recipe("sgd", 0.1, steps=20, schedule="cosine", momentum=0.9, nesterov=True),
    "adam": Recipe("adam", 0.01, steps=20, schedule="cosine", weight_decay=5e-4, decayed="all"),
    "adamw": Recipe("adamw", 0.01, steps=20, weight_decay=0.05, betas=(0.8, 0.99), epsilon=1e-6),
}
ENDINGS = [CONTAINERS[name].endings[0] for form in FORMS.values() for name in form.CONTAINERS]
STEP = 5


def a_run(name: str = "nesterov", *, step: int = STEP, dtype: type = np.float64) -> TrainingState:
    recipe, rng = RECIPES[name], np.random.default_rng(0)
    shapes = slot_shapes(SMALL, recipe.slots if step else ())
    slots = {slot: rng.uniform(0.1, 1, shape).astype(dtype) for slot, shape in shapes.items()}
    weights = {name: array.astype(dtype) for name, array in networks.weights(SMALL).items()}
    return TrainingState(SMALL, recipe, weights, slots, step)


def same(found: TrainingState, expected: TrainingState, limit: float = 1e-15) -> None:
    for field in ("architecture", "recipe", "step"):
        assert getattr(found, field) == getattr(expected, field)
    for own, known in ((found.weights, expected.weights), (found.slots, expected.slots)):
        assert own.keys() == known.keys()
        for name, array in known.items():
            assert own[name].dtype == array.dtype, name
            np.testing.assert_allclose(own[name], array, rtol=limit, atol=0, err_msg=name)


@pytest.mark.parametrize("target", ENDINGS)
@pytest.mark.parametrize("source", ENDINGS)
def test_a_run_moves_from_every_form_to_every_other(tmp_path, source, target):
    for name in ("nesterov", "adamw"):
        state = a_run(name)
        write_state(tmp_path / f"{name}{source}", state)
        found = read_state(tmp_path / f"{name}{source}")
        same(found, state)
        write_state(tmp_path / f"{name}-moved{target}", found)
        same(read_state(tmp_path / f"{name}-moved{target}"), state)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_run_comes_back_at_any_step_and_in_float32(tmp_path, name, ending):
    for step in (0, STEP):
        state = a_run(name, step=step, dtype=np.float32)
        path = tmp_path / f"{step}{ending}"
        write_state(path, state)
        found = read_state(path)
        # Of a run that begins, Keras's optimizers have slots too.
        if not state.slots:
            assert not any(slot.any() for slot in found.slots.values())
            found = dataclasses.replace(found, slots={})
        same(found, state, 1e-6)


def test_a_canonical_file_is_still_that_of_its_network(tmp_path):
    state, path = a_run(), tmp_path / "run.safetensors"
    write_state(path, state)
    found = cbam_core.read(path)
    assert (found.architecture, found.dialect) == (SMALL, "canonical")
    assert found.weights.keys() == state.weights.keys()
    assert found.rest.keys() == state.slots.keys()
    assert (found.run.form, found.run.kinds) == ("canonical", ("momentum",))
    assert found.run.told["step"] == STEP
    cbam_core.convert(path, tmp_path / "network.safetensors")
    assert cbam_core.read(tmp_path / "network.safetensors").run is None


def test_a_run_that_is_not_whole_leaves_the_target_alone(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"slots=\{\} at step=5 of 'sgd', expected momentum"):
        write_state(path, dataclasses.replace(a_run(), slots={}))
    with pytest.raises(ValueError, match=r"missing: stem\.conv\.kernel"):
        write_state(path, dataclasses.replace(a_run(), weights={}))
    with pytest.raises(ValueError, match=r"a NumPy archive \(npz\) holds no run under way; write"):
        write_state(path, a_run(), "npz")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("ending", [".safetensors", ".msgpack"])
def test_a_failed_write_leaves_the_target_and_no_litter(tmp_path, monkeypatch, ending):
    path = tmp_path / f"run{ending}"
    path.write_bytes(b"old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_state(path, a_run())
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", [path.name])


# What users save has no words of ours. A form is known by its names, so that any container will do.

Change = Callable[[dict, dict], None]
SAID = {"architecture": SMALL.to_dict()}


def users(form, name: str) -> tuple[dict, dict]:
    """The arrays and facts that users of a form save of a run."""
    state = a_run(name)
    own = form.contents(form.CONVENTION.from_canonical(state))
    return dict(own.arrays), dict(own.facts)


def saved(path, arrays: dict, facts: dict):
    """The file of a dict whose facts may be dicts and lists, which a tree has as names."""
    flat: dict = {}

    def walk(name, value):
        if isinstance(value, (dict, list)):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, one in pairs:
                walk(f"{name}/{key}", one)
        else:
            flat[name] = value

    for name, value in facts.items():
        walk(name, value)
    containers.write(path, Contents(arrays, flat), CONTAINERS["npz"])
    return path


def unnamed(arrays: dict, facts: dict) -> None:
    """One group in the model's order, as SGD(model.parameters()) has it."""
    groups = facts["optimizer/param_groups"]
    names = [name for group in groups for name in group.pop("param_names")]
    model = [name.removeprefix("model/") for name in arrays if name.startswith("model/")]
    order = {names.index(name): n for n, name in enumerate(n for n in model if n in names)}
    slots = {name: arrays.pop(name) for name in list(arrays) if name.startswith("optimizer/")}
    for name, array in slots.items():
        *path, number, kind = name.split("/")
        arrays["/".join([*path, str(order[int(number)]), kind])] = array
    facts["optimizer/param_groups"] = [{**groups[0], "params": list(range(len(names)))}]


def test_parameters_without_names_are_in_the_order_of_the_model(tmp_path):
    arrays, facts = users(torch, "nesterov")
    unnamed(arrays, facts)
    same(read_state(saved(tmp_path / "run.npz", arrays, facts), SAID), a_run())


def test_what_is_around_the_names_is_taken_off(tmp_path):
    arrays, facts = users(torch, "sgd")
    arrays = {n.replace("model/", "state_dict/module."): array for n, array in arrays.items()}
    for group in facts["optimizer/param_groups"]:
        group["param_names"] = [f"module.{name}" for name in group["param_names"]]
    facts["epoch"] = 90
    state = read_state(saved(tmp_path / "run.npz", arrays, facts), SAID | {"steps": 20})
    same(state, a_run("sgd"))


def group_with(**fields) -> Change:
    def change(arrays, facts):
        for group in facts["optimizer/param_groups"]:
            group.update(fields)

    return change


def slots_called(old: str, new: str) -> Change:
    def change(arrays, facts):
        for name in [name for name in arrays if name.startswith("opt")]:
            arrays[name.replace(old, new)] = arrays.pop(name)

    return change


def scheduler(**fields) -> Change:
    return lambda arrays, facts: facts["scheduler"].update(fields)


def put(**added) -> Change:
    return lambda arrays, facts: arrays.update(added)


def without(*starts: str) -> Change:
    def change(arrays, facts):
        for names in (arrays, facts):
            for name in [name for name in names if name.startswith(starts)]:
                del names[name]

    return change


def no_names(arrays, facts):
    for group in facts["optimizer/param_groups"]:
        del group["param_names"]


def decayed_bias(arrays, facts):
    kernels, others = facts["optimizer/param_groups"]
    for name in ("params", "param_names"):
        kernels[name].append(others[name].pop())


def too_few(arrays, facts):
    unnamed(arrays, facts)
    facts["optimizer/param_groups"][0]["params"].pop()


def of_another_model(arrays, facts):
    facts["optimizer/param_groups"][0]["param_names"][0] = "aux.weight"


def turned(arrays, facts):
    first, second = "optimizer/vars/2", "optimizer/vars/3"
    arrays[first], arrays[second] = arrays[second], arrays[first]


def not_finite(arrays, facts):
    arrays["optimizer/state/0/momentum_buffer"][0] = np.nan


# Why -> the form, the recipe, what is changed of what users save, and the words of the refusal.
REFUSED = {
    "torch's RMSprop": (
        torch, "nesterov", slots_called("momentum_buffer", "square_avg"),
        "its optimizer keeps 'square_avg' for the parameters, which has no counterpart in other "
        "frameworks' sgd, adam and adamw; of torch they keep momentum_buffer, exp_avg, exp_avg_sq",
    ),
    "torch's AMSGrad": (
        torch, "adam", slots_called("exp_avg_sq", "max_exp_avg_sq"),
        "its optimizer keeps 'max_exp_avg_sq' for the parameters",
    ),
    "amsgrad": (
        torch, "adam", group_with(amsgrad=True), "its optimizer has amsgrad=True, which no recipe",
    ),
    "dampening": (torch, "sgd", group_with(dampening=0.1), "its optimizer has dampening=0.1"),
    "no names in several groups": (
        torch, "sgd", no_names,
        "its 2 param_groups have no param_names, so no array tells whose slots are whose; build "
        "the optimizer with named parameters, (name, parameter), as PyTorch takes them since 2.6",
    ),
    "no names and another number": (
        torch, "nesterov", too_few,
        "its optimizer has 20 parameters without param_names, and the model 21; build it with",
    ),
    "a decay of one bias": (
        torch, "sgd", decayed_bias,
        "its optimizer has weight_decay=0.0005 for head.linear.bias, and the recipe's is 0: "
        "all parameters decay, or the kernels alone",
    ),
    "torch's NAdam": (
        torch, "adam", group_with(momentum_decay=0.004),
        "its optimizer has momentum_decay, which PyTorch's SGD, Adam and AdamW have not",
    ),
    "SGD's schedule by epochs": (
        torch, "nesterov", scheduler(last_epoch=1),
        "the file does not tell step; give what is missing",
    ),
    "rates of groups": (
        torch, "sgd", scheduler(base_lrs=[0.1, 0.2]), "with one rate for all groups",
    ),
    "another schedule": (
        torch, "nesterov", scheduler(gamma=0.1),
        "its scheduler is none of a recipe, which are CosineAnnealingLR to eta_min=0 and "
        "ConstantLR with factor=1, with one rate for all groups; it has {'T_max': 20, 'eta_min': "
        "0.0, 'gamma': 0.1}",
    ),
    "a schedule by epochs": (
        torch, "adam", scheduler(last_epoch=1),
        "it counts 1 and 5 steps, and a run has made one number of them; a recipe's schedule goes "
        "by steps, not by epochs",
    ),
    "another rate": (
        torch, "nesterov", group_with(lr=0.2), "its optimizer has lr=0.2, and the recipe's at",
    ),
    "several optimizers": (
        torch, "sgd", lambda arrays, facts: facts.update({"d/param_groups/0/params/0": 0}),
        "it holds 2 optimizers (d/, optimizer/), not one",
    ),
    "no schedule": (
        torch, "sgd", without("scheduler"),
        "the file does not tell learning_rate, steps, schedule, step; give what is missing: to "
        "cbam convert as --recipe FILE.json, in which it stands by these names",
    ),
    "a part of the slots": (
        torch, "sgd", without("optimizer/state/3/"), "missing: momentum_buffer:",
    ),
    "a slot of nothing": (
        torch, "sgd", put(**{"optimizer/state/99/momentum_buffer": np.ones(3)}),
        "it keeps 'optimizer/state/99/momentum_buffer', and no group has a parameter of this",
    ),
    "a slot of another model": (
        torch, "sgd", of_another_model,
        "slot 'momentum_buffer' is of 'aux.weight', which is no parameter of the network",
    ),
    "a slot that is not finite": (
        torch, "sgd", not_finite, "momentum_buffer:stem.conv.kernel has values that are not finite",
    ),
    "another network": (
        torch, "nesterov", put(**{"model/aux.weight": np.ones((2, 2))}), "unexpected: aux.weight",
    ),
    "no network": (torch, "nesterov", without("model/"), "missing: stem.conv.kernel"),
    "optax's rmsprop": (
        flax, "sgd", slots_called("trace", "ema"), "its optimizer keeps 'ema' for the parameters",
    ),
    "optax's second moment alone": (
        flax, "adam", without("opt_state/1/0/mu"), "missing: mu:stem.conv.kernel",
    ),
    "optax's injected hyperparameters": (
        flax, "sgd", put(**{"opt_state/hyperparams/learning_rate": np.ones(())}),
        "it keeps 'opt_state/hyperparams/learning_rate', of no parameter; go on with optax's sgd",
    ),
    "optax's counts": (
        flax, "adam", put(step=np.array(7)), "it counts 5 and 7 steps",
    ),
    "what optax does not tell": (
        flax, "sgd", without("none"),
        "the file does not tell learning_rate, steps, schedule, weight_decay, momentum, nesterov;",
    ),
    "Keras's other order": (
        keras, "nesterov", turned,
        "optimizer/vars/2 has shape (64,), and layers/stem/conv/vars/0 (3, 3, 3, 64): its "
        "optimizer was built for the parameters in another order; build it with make_optimizer",
    ),
    "Keras's other optimizer": (
        keras, "adam", without("optimizer/vars/9"),
        "its optimizer has 41 slots, and adam with momentum=0.0 42 for 21 parameters",
    ),
    "Keras's RMSprop": (
        keras, "nesterov", lambda arrays, facts: facts.update(optimizer="rm_sprop"),
        "its optimizer is called 'rm_sprop', and Keras calls those of a recipe sgd, adam, adam_w",
    ),
    "no run": (
        torch, "sgd", without("optimizer", "scheduler"),
        "holds no training run: none of its names are an optimizer's, as torch.save of state dicts",
    ),
}  # fmt: skip
# The rest of what is said of these runs, so that only what is refused is amiss.
UNTOLD = ("what optax does not tell", "no schedule")


@pytest.mark.parametrize("why", REFUSED)
def test_refuses_by_name(tmp_path, why):
    form, name, change, words = REFUSED[why]
    arrays, facts = users(form, name)
    change(arrays, facts)
    path = saved(tmp_path / "run.npz", arrays, facts)
    said = {"torch": {"steps": 20}}.get(form.__name__.rpartition(".")[2], RECIPES[name].to_dict())
    with pytest.raises(CheckpointError) as caught:
        read_state(path, SAID | ({} if why in UNTOLD else said))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("form", [torch, flax, keras], ids=["torch", "flax", "keras"])
@pytest.mark.parametrize("name", RECIPES)
def test_what_is_given_completes_what_users_save(tmp_path, form, name):
    arrays, facts = users(form, name)
    path = saved(tmp_path / "run.npz", arrays, {n: fact for n, fact in facts.items() if fact != {}})
    if find_run(containers.read(path)) is not None:
        same(read_state(path, SAID | RECIPES[name].to_dict() | {"step": STEP}), a_run(name))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"learning_rate": 0.2}, "says learning_rate=0.1, and what is given learning_rate=0.2"),
        ({"step": 6}, "says step=5, and what is given step=6; one of them is not of this run"),
        ({"optimizer": "adam"}, "says optimizer='sgd', and what is given optimizer='adam'"),
        ({"lr": 0.1}, "lr=0.1: no field of a recipe, nor step or architecture"),
        ({"architecture": {"kind": "basic", "depths": [2], "widths": [4]}}, "says architecture="),
        ({"architecture": {"depth": 3}}, "an Architecture has no field 'depth'"),
    ],
)
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_what_is_given_may_not_contradict_the_file(tmp_path, ending, given, words):
    path = tmp_path / f"run{ending}"
    write_state(path, a_run())
    with pytest.raises(CheckpointError) as caught:
        read_state(path, given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("cbam_format", "2", "has cbam_format='2' in its metadata, expected '1'"),
        ("recipe", "[]", "its recipe is no dict of fields; save what recipe.to_dict() gives"),
        ("recipe", "{", "holds no readable training run"),
        ("recipe", '{"optimizer": "sgd"}', "the file does not tell learning_rate, steps"),
        ("recipe", '{"optimizer": []}', "holds no readable training run"),
        ("step", '"x"', "invalid literal for int()"),
        ("step", "-1", "step=-1 is no number of steps; expected 0 or more"),
        ("step", "true", "step=True is no number of steps"),
        ("step", "1e400", "holds no readable training run (cannot convert float infinity"),
        ("architecture", "7", "its architecture is no dict of fields"),
        ("architecture", '{"kind": "basic", "depths": [1000000000], "widths": [4]}', "1 to 1000"),
    ],
)
def test_metadata_that_lie_are_an_error_of_the_file(tmp_path, field, text, words):
    own = canonical.contents(a_run())
    metadata = {**own.metadata, field: text}
    path = tmp_path / "run.safetensors"
    containers.write(path, Contents(own.arrays, {}, metadata), CONTAINERS["safetensors"])
    with pytest.raises(CheckpointError) as caught:
        read_state(path)
    assert words in str(caught.value)


ODD = (None, "", "x", True, -1, 0, 1e400, float("nan"), 1 << 70, "9" * 1000)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_facts_that_lie_are_read_or_refused(tmp_path, name):
    """Every fact of PyTorch's groups and schedule, and every number beside the arrays."""
    arrays, facts = users(torch, name)
    path = saved(tmp_path / "run.npz", arrays, facts)
    contents, chance = containers.read(path), Random(0)
    for fact in contents.facts:
        lie = {**contents.facts, fact: chance.choice(ODD)}
        if chance.random() < 0.2:
            del lie[fact]
        containers.write(path, Contents(contents.arrays, lie), CONTAINERS["npz"])
        read_or_refused(path, SAID | {"steps": 20})


@pytest.mark.parametrize("ending", [".safetensors", ".msgpack"])
def test_damaged_files_are_read_or_refused(tmp_path, ending):
    path = tmp_path / f"run{ending}"
    write_state(path, a_run("adam", dtype=np.float32))
    data, chance = path.read_bytes(), Random(0)
    # Where the names and the words stand.
    head = 8 + int.from_bytes(data[:8], "little") if ending == ".safetensors" else len(data)
    for _ in range(300):
        place = chance.random() * head / len(data)
        damage = (chance.choice(list(KINDS)), place, chance.randrange(1 << 32))
        path.write_bytes(damaged(data, [damage]))
        read_or_refused(path)


def read_or_refused(path, given=None) -> None:
    with contextlib.suppress(CheckpointError):
        state = read_state(path, given)
        state.check(state.recipe.slots)


def test_a_recipe_in_words_is_what_a_file_says(tmp_path):
    """Users may put the words into their own dict, as `to_dict` gives them."""
    arrays, facts = users(flax, "adamw")
    words = {"architecture": SMALL.to_dict(), "recipe": RECIPES["adamw"].to_dict()}
    facts = {name: fact for name, fact in facts.items() if fact != {}}
    path = saved(tmp_path / "run.npz", arrays, facts | json.loads(json.dumps(words)))
    same(read_state(path), a_run("adamw"))
