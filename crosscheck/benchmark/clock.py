"""Times of several candidates, taken in turn, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

Key = TypeVar("Key", bound=Hashable)
Run = Callable[[], Any]

# A sample lasts at least so long, in seconds: a shorter call is repeated within it.
SHORTEST = 1e-3
# Calls before the first sample: the first compiles, the second may still set things up.
WARM_UP = 3


def warm_up(run: Run, wait: Callable[[Any], None]) -> int:
    """Call `run` a few times; how many calls a sample needs."""
    for _ in range(WARM_UP):
        wait(run())
    return max(1, math.ceil(SHORTEST / _seconds(run, 1, wait)))


def samples(
    runs: Mapping[Key, tuple[Run, int]],
    rounds: int,
    wait: Callable[[Any], None],
    on_round: Callable[[], None] = lambda: None,
) -> dict[Key, list[float]]:
    """Seconds of a call, one sample of each run in each round.

    Args:
        runs: key -> what to call, and how many times for one sample.
        wait: returns when the result of a call is there.
        on_round: called after each round, for progress.
    """
    taken: dict[Key, list[float]] = {key: [] for key in runs}
    order = list(runs)
    # Each round has another order, or each would always find what the same other left in the cache.
    rng = random.Random(0)
    for _ in range(rounds):
        rng.shuffle(order)
        for key in order:
            taken[key].append(_seconds(*runs[key], wait))
        on_round()
    return taken


def _seconds(run: Run, repeats: int, wait: Callable[[Any], None]) -> float:
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(repeats):
            result = run()
        wait(result)
        return (time.perf_counter() - start) / repeats
    finally:
        if collecting:
            gc.enable()
