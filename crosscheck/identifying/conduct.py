"""What a module does besides its output in evaluation: gradients, ties, statistics."""

from __future__ import annotations

import numpy as np

from crosscheck.identifying.departure import Departure
from crosscheck.identifying.solution import Solution

Array = np.ndarray

# Gradients and statistics are sums, whose terms cancel in part.
SUMS = 10.0
# Breaks a tie in the reference, and changes nothing else.
NUDGE = 1e-7
OTHER = "something else"


def gradient(solution: Solution) -> list[Departure]:
    """Whether the gradient by a map without ties is the reference's."""
    bench, subject = solution.bench, solution.bench.subject
    arrays, x = bench.drawn(8, 0.3), subject.feature_map(8)
    off = _gradient_off(solution, arrays, x, x)
    if off <= SUMS * subject.limit:
        return []
    words = f"its gradient by x is off by {off:.1g} where nothing ties"
    if _passes_no_gradient(solution, arrays, x):
        words = "its gates pass no gradient to x"
    return [Departure("gradient", words)]


def _gradient_off(solution: Solution, arrays: dict[str, Array], x: Array, nudged: Array) -> float:
    """The module's gradient at x from the reference's at `nudged`, relative to the largest."""
    found, cotangent = _gradient(solution, arrays, x)
    step = solution.run(arrays, nudged)
    if solution.bench.subject.is_gate:
        # The gate G itself: of G * x the pullback gives dy * G besides, and dy = cotangent / x.
        dy = np.broadcast_to(cotangent, x.shape) / x / (x.size / cotangent.size)
        expected = step.pullback(dy)[0] - dy * step.output / nudged
    else:
        expected = step.pullback(cotangent)[0]
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _passes_no_gradient(solution: Solution, arrays: dict[str, Array], x: Array) -> bool:
    """Whether the gradient is the one that constants in the place of the gates would give."""
    subject = solution.bench.subject
    found, cotangent = _gradient(solution, arrays, x)
    if subject.is_gate:
        return not found.any()
    return subject.is_same(found, cotangent * solution.run(arrays, x).output / x)


def _gradient(solution: Solution, arrays: dict[str, Array], x: Array) -> tuple[Array, Array]:
    """The module's gradient of sum(output * cotangent) by x, and that cotangent."""
    subject = solution.bench.subject
    y = subject.output(arrays, x)
    cotangent = np.random.default_rng(29).standard_normal(y.shape)
    return subject.gradient(arrays, x, cotangent), cotangent


def ties(solution: Solution) -> dict[str, str]:
    """By "space" and "channels", where the gradient of a maximum goes that two values attain."""
    found, spec, parts = {}, solution.spec, solution.bench.parts
    if spec.has_channel_gate and "max" in spec.channel_pools:
        found["space"] = _tie(solution, parts.channel, over_space=True)
    has_maximum = spec.has_spatial_gate and spec.spatial_descriptor == "pool"
    if has_maximum and spec.channels > 1:
        found["channels"] = _tie(solution, parts.spatial, over_space=False)
    return found


def _tie(solution: Solution, names: tuple[str, ...], *, over_space: bool) -> str:
    """The rule by which the first and the last of what is pooled over share the gradient."""
    bench, subject = solution.bench, solution.bench.subject
    arrays = bench.only(bench.drawn(9, 0.3), names)
    first: tuple = (slice(None), *[0] * subject.rank) if over_space else (..., 0)
    last: tuple = (slice(None), *[-1] * subject.rank) if over_space else (..., -1)
    axes = tuple(range(1, subject.rank + 1)) if over_space else -1
    x = subject.feature_map(9)
    x[first] = x[last] = x.max(axes) + 1
    nudged = {"even": x, "first": x.copy(), "last": x.copy()}
    nudged["first"][first] += NUDGE
    nudged["last"][last] += NUDGE
    for rule, other in nudged.items():
        if _gradient_off(solution, arrays, x, other) <= SUMS * max(subject.limit, 10 * NUDGE):
            return rule
    return "other"


def training(solution: Solution) -> list[Departure]:
    """Whether the output in training is the reference's."""
    subject = solution.bench.subject
    arrays, x = _training_pass(solution)
    off = solution.difference(arrays, x, training=True)
    if off <= SUMS * subject.limit:
        return []
    words = f"in training its output is off by {off:.1g}"
    first, second = (subject.output(arrays, x, training=True) for _ in range(2))
    if not subject.is_same(first, second):
        words = "in training two passes over the same map differ"
    elif subject.is_same(first, subject.output(arrays, x)):
        words = "in training its norm does not take the batch's statistics"
    return [Departure("training pass", words)]


def statistics(solution: Solution) -> tuple[Solution, str, list[str]]:
    """The solution with its norm's momentum, the kind of running variance, and notes."""
    if "spatial.norm.mean" not in solution.roles:
        return solution, "", []
    (momentum, kind), (again, _) = _update(solution), _update(solution)
    if not 0 <= momentum <= 1:
        return solution, "", ["its running mean is not updated as a running mean is"]
    if again != momentum:
        return solution, "", ["the momentum of its norm changes from pass to pass"]
    return solution.replace(norm_momentum=momentum), kind, []


def _training_pass(solution: Solution) -> tuple[dict[str, Array], Array]:
    return solution.bench.drawn(10, 0.3), solution.bench.subject.feature_map(10)


def _update(solution: Solution) -> tuple[float, str]:
    """The momentum that a training pass has, and the kind of variance that it stores."""
    subject = solution.bench.subject
    arrays, x = _training_pass(solution)
    subject.output(arrays, x, training=True)
    before, after = solution.weights(arrays), solution.weights(subject.probe.arrays(subject.module))
    batch = solution.replace(norm_momentum=1.0).run(arrays, x, training=True).statistics
    count = x[..., 0].size

    def share(name: str, factor: float = 1.0) -> float:
        return float(((after[name] - before[name]) / (batch[name] * factor - before[name]))[0])

    momentum = share("spatial.norm.mean")
    shares = {
        "unbiased": share("spatial.norm.var"),
        "biased": share("spatial.norm.var", (count - 1) / count),
    }
    near, far = sorted(shares, key=lambda name: abs(shares[name] - momentum))
    is_clear = abs(shares[far] - momentum) > 3 * abs(shares[near] - momentum)
    return float(f"{momentum:.{subject.digits}g}"), near if is_clear else ""


def returns(solution: Solution) -> tuple[str, ...]:
    """What each array is that the module returns."""
    bench = solution.bench
    subject = bench.subject
    arrays, x = bench.drawn(11, 0.3), subject.feature_map(11)
    step = solution.run(arrays, x)
    known = {"the refined map": step.output}
    known |= {f"the {name} gate": gate for name, gate in step.gates.items()}
    known["the product of both gates"] = step.output / x - solution.spec.residual
    return tuple(
        next(
            (name for name in known if own is not None and subject.is_same(own, known[name])), OTHER
        )
        for own in subject.outputs(arrays, x)
    )
