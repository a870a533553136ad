"""Which CBAM a live module is, whatever its framework and however it is written."""

from __future__ import annotations

from typing import Any

import numpy as np

from crosscheck.identifying import conduct
from crosscheck.identifying.bench import Bench
from crosscheck.identifying.calling import find
from crosscheck.identifying.departure import Departure, PartedError
from crosscheck.identifying.draws import GAINS
from crosscheck.identifying.gates import channel_gate, rest, spatial_gate
from crosscheck.identifying.identified import Identified
from crosscheck.identifying.labels import dialect, presets, ratio_notes
from crosscheck.identifying.matching import Match
from crosscheck.identifying.probes import probe_of
from crosscheck.identifying.solution import Solution, solution
from crosscheck.identifying.subject import Subject
from crosscheck.identifying.weights import take_apart


def identify(module: Any, *, channels: int | None = None) -> Identified:
    """Find the spec of `module` by probing it with weights and maps, and leave it as it was.

    Args:
        module: a torch.nn.Module, tf.Module, Keras layer or model, nnx.Module, or a linen module
            that is bound to its variables or the first of a pair with them; it takes one feature
            map. Its framework is the only one that is imported.
        channels: of the feature map, where no weight shows them: for a spatial gate alone, and for
            a module that is built by its first call, which it then gets.

    Raises:
        TypeError: the module is of no framework that is known.
        ValueError: it can't be called on a feature map, or `channels` are needed.

    Example:
        >>> from cbam_torch import CBAM
        >>> from crosscheck import identify
        >>> found = identify(CBAM(32, reduction=4, gate="hard_sigmoid", order="parallel"))
        >>> found.spec
        CBAMSpec(32, hidden=8, gate='hard_sigmoid', order='parallel')
        >>> found.ties
        {'space': 'even', 'channels': 'even'}
    """
    if channels is not None and channels < 2:
        raise ValueError(f"channels={channels} are too few to tell the gates apart; pass 2 or more")
    probe = probe_of(module)
    with probe.borrow(module) as borrowed:
        try:
            subjects = find(probe, borrowed, channels)
        except PartedError as parted:
            return Identified(None, parted.departures)
        own = probe.arrays(borrowed)
        try:
            return _best(subjects, own)
        finally:
            probe.assign(borrowed, own)


def _best(subjects: list[Subject], own: dict[str, np.ndarray]) -> Identified:
    """What it is, called in the first way in which it is a CBAM; else in the first way."""
    tried = []
    for subject in subjects:
        try:
            tried.append(_compare(subject, own))
        except PartedError as parted:
            tried.append(Identified(None, parted.departures))
        if tried[-1].is_cbam:
            return tried[-1]
    return tried[0]


def _compare(subject: Subject, own: dict[str, np.ndarray]) -> Identified:
    parts, departures, notes = take_apart(subject)
    bench = Bench(subject, parts, own)
    at_rest = rest(bench)
    channel, channel_departures = channel_gate(bench, at_rest) if parts.channel else (None, [])
    spatial, spatial_departures = spatial_gate(bench, at_rest) if parts.spatial else (None, [])
    departures += channel_departures + spatial_departures
    departures += _unlike(channel, spatial) if channel and spatial and not departures else []
    solved, difference = _ordered(solution(bench, channel, spatial), channel, spatial)
    if parts.copies:
        difference = _difference(solved, alike=False)
    elif difference > subject.limit and not departures:
        words = "both gates are a CBAM's, and what is made of them is not"
        departures = [Departure("refined map", words)]
    return _with_conduct(solved, difference, departures, notes)


def _unlike(channel: Match, spatial: Match) -> list[Departure]:
    """Two gates of a CBAM have the same function and the same pooling."""
    found = []
    ours, theirs = channel.reading, spatial.reading
    if ours.gate != theirs.gate:
        words = f"its channel gate is {ours.gate}, its spatial gate {theirs.gate}"
        found.append(Departure("spatial gate", words))
    elif not channel.is_consistent:
        rest = channel.factor * ours.at_rest
        words = (
            f"with all weights 0 it multiplies by {rest:.3g}, and two gates that are {ours.gate} "
            f"by {ours.at_rest**2:.3g}"
        )
        found.append(Departure("refined map", words))
    if len(ours.pools) > 1 and theirs.is_pooled and ours.is_light != theirs.is_light:
        words = "one of its gates has light pooling, the other has not"
        found.append(Departure("spatial descriptor", words))
    return found


def _ordered(
    solved: Solution, channel: Match | None, spatial: Match | None
) -> tuple[Solution, float]:
    """The order of the gates with the smallest difference for drawn weights, and that for all."""
    if channel is None or spatial is None:
        return solved, _difference(solved)
    orders = ["channel_spatial", "spatial_channel", "parallel"]
    tried = {order: solved.replace(order=order) for order in orders}
    differences = {order: _largest(one, _drawn(one)) for order, one in tried.items()}
    best = min(orders, key=lambda order: differences[order])
    if differences[best] > solved.bench.subject.limit:
        # No order fits; a gate that sees the map times the other gate is the second one.
        seen = {"channel_spatial": spatial.scale != 1, "spatial_channel": channel.scale != 1}
        best = next((order for order in seen if seen[order]), best)
    return tried[best], _difference(tried[best])


Passes = list[tuple[dict[str, np.ndarray], int]]


def _difference(solved: Solution, alike: bool = True) -> float:
    """The largest, of drawn weights and the module's own; `alike` as `Bench.drawn` has it."""
    bench, passes = solved.bench, _drawn(solved, alike)
    is_own_used = all(np.isfinite(array).all() for array in bench.own.values())
    if is_own_used and not (alike and bench.parts.copies):
        passes.append((bench.own, 12 + len(GAINS)))
    return _largest(solved, passes)


def _drawn(solved: Solution, alike: bool = True) -> Passes:
    """Weights, and the seeds of the maps that they are compared on."""
    return [(solved.bench.drawn(seed, gain, alike), seed) for seed, gain in enumerate(GAINS, 12)]


def _largest(solved: Solution, passes: Passes) -> float:
    feature_map = solved.bench.subject.feature_map
    return max(solved.difference(arrays, feature_map(seed)) for arrays, seed in passes)


def _with_conduct(
    solved: Solution, difference: float, departures: list[Departure], notes: list[str]
) -> Identified:
    """All that there is to say; the conduct only of what is a CBAM in evaluation."""
    subject, running_variance, tie_rules = solved.bench.subject, "", {}
    if not departures:
        departures = conduct.training(solved) + conduct.gradient(solved)
    if not departures:
        tie_rules = conduct.ties(solved)
        solved, running_variance, found = conduct.statistics(solved)
        notes += [*found, *(f"it has no {name}" for name in solved.lacking)]
    own = solved.bench.own
    wide = np.float64 if subject.dtype == "float64" else np.float32
    return Identified(
        solved.spec,
        tuple(departures),
        difference,
        subject.dtype,
        {n: w.astype(wide) for n, w in solved.weights(own).items()},
        {name: place.names for name, place in solved.roles.items()},
        conduct.returns(solved) if difference <= subject.limit else (),
        tie_rules,
        running_variance,
        () if departures else presets(solved.spec),
        dialect(own),
        (*notes, *ratio_notes(subject, solved.spec)),
    )
