"""The measurements of one framework, in its process: `python -m crosscheck.benchmark.worker`.

Standard input has the plan; each line of standard output is one JSON object: a row under "row",
under "at" what is done now and under "done" how many rounds are, or under "refused" why this
framework can't run so.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from crosscheck.benchmark import clock
from crosscheck.benchmark.candidate import Candidate
from crosscheck.benchmark.plan import Plan, label
from crosscheck.benchmark.report import Row

Say = Callable[..., None]


def main() -> None:
    # What a library prints goes to standard error; the protocol has standard output for itself.
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**facts: Any) -> None:
        print(json.dumps(facts), file=protocol, flush=True)

    plan = Plan.from_dict(json.load(sys.stdin))
    name = plan.framework.partition("-")[0]
    maker = importlib.import_module(f"crosscheck.benchmark.makers.{name}")
    try:
        maker.library().prepare(plan)
    except RuntimeError as error:
        say(refused=str(error))
        return
    for number, shape in enumerate(plan.shapes):
        for row in measured(shape, plan, maker, say, number * plan.rounds):
            say(row=dataclasses.asdict(row))


def measured(
    shape: tuple[int, ...], plan: Plan, maker: ModuleType, say: Say, done: int
) -> Iterator[Row]:
    """A row for each candidate and pass on maps or pictures of `shape`."""
    library, place = maker.library(), plan.network or label(shape)
    found = list(_candidates(shape, plan, maker))
    keys = [(one, kind) for one in found for kind in plan.passes if kind in one.runs]
    runs, counts = {}, {}
    for number, key in enumerate(keys):
        one, kind = key
        say(at=f"{place}: {one.name} {one.mode} {kind}", done=done)
        run = one.runs[kind]
        runs[number] = (run, clock.warm_up(run, library.wait))
        counts[number] = one.counts[kind]() if kind in one.counts else None

    def next_round() -> None:
        nonlocal done
        done += 1
        say(at=place, done=done)

    taken = clock.samples(runs, plan.rounds, library.wait, next_round)
    for number, (one, kind) in enumerate(keys):
        fields = (one.name, one.mode, one.path, kind)
        yield Row(place, shape, *fields, tuple(taken[number]), counts[number])


def _candidates(shape: tuple[int, ...], plan: Plan, maker: ModuleType) -> Iterator[Candidate]:
    library = maker.library()
    x = library.array(shape, plan)
    outputs = (shape[0], plan.architecture(None).num_classes) if plan.network else shape
    cotangent = library.array(outputs, plan, seed=1)
    build = maker.networks if plan.network else maker.blocks
    for entry in build(x, plan):
        for mode in plan.modes if entry.name in plan.candidates else ():
            arguments = (entry.build, x, cotangent)
            passes = library.Passes(*arguments, mode=mode, by_input=plan.network is None)
            runs = {"forward": passes.forward, "training": passes.training}
            counts = {"forward": passes.allocated, "training": passes.kept}
            named = (entry.name, mode, entry.path)
            yield Candidate(*named, runs, {} if plan.network else counts)
    for floor in ("copy", "scale"):
        if floor in plan.candidates:
            yield Candidate(floor, "", "", {"forward": getattr(library, floor)(x)})


if __name__ == "__main__":
    main()
