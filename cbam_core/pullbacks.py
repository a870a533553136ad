"""Functions and their pullbacks in float64 NumPy: what the references are made of.

Each returns its value and its pullback, the function that takes the gradient of a loss by the
value to that by x; of a function with weights, to (gradient by x, gradients by name). Arrays are
float64, layout (N, *S, C), with S the spatial axes. Where a derivative does not exist, the rule of
the project is:

    max       a gradient at ties is split evenly among all positions that attain the maximum
    max_pool  of a tie in a window the first position in row-major order gets all, as in all
              frameworks
    relu      0 at 0; so for the hard sigmoids at both kinks; NaN passes
    lp        0 for a map of zeros
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def avg(x, axes):
    count, shape = math.prod(x.shape[axis] for axis in axes), x.shape
    return x.mean(axes, keepdims=True), lambda dy: np.broadcast_to(dy / count, shape)


def max(x, axes):
    maximum = x.max(axes, keepdims=True)
    attained = x == maximum
    return maximum, lambda dy: dy * (attained / attained.sum(axes, keepdims=True))


def lp(x, axes):
    norm = np.sqrt((x * x).sum(axes, keepdims=True))
    return norm, lambda dy: dy * (x / np.where(norm == 0, 1.0, norm))


def lse(x, axes):
    shift = x.max(axes, keepdims=True)
    exponentials = np.exp(x - shift)
    total = exponentials.sum(axes, keepdims=True)
    return shift + np.log(total), lambda dy: dy * (exponentials / total)


def avg_and_max(x, axes):
    """[avg ; max] over `axes`, one behind the other in the last axis."""
    average, avg_pullback = avg(x, axes)
    maximum, max_pullback = max(x, axes)
    half = average.shape[-1]
    return np.concatenate(
        [average, maximum], -1
    ), lambda dy: avg_pullback(dy[..., :half]) + max_pullback(dy[..., half:])


def relu(x):
    stopped = x <= 0
    return np.maximum(x, 0.0), lambda dy: np.where(stopped, 0.0, dy)


def sigmoid(x):
    # exp of a negative number never overflows.
    small = np.exp(-np.abs(x))
    gate = np.where(x >= 0, 1.0, small) / (1 + small)
    return gate, lambda dy: dy * (small / (1 + small) ** 2)


def double_sigmoid(x):
    gate, pullback = sigmoid(x)
    return 2 * gate, lambda dy: pullback(2 * dy)


def hard_sigmoid(slope):
    def gate(x):
        line = slope * x + 0.5
        return np.clip(line, 0.0, 1.0), lambda dy: np.where(
            (line <= 0) | (line >= 1), 0.0, slope * dy
        )

    return gate


def under(path, arrays):
    """Those arrays whose names stand under `path`, by what is left of their names."""
    prefix = f"{path}."
    return {n.removeprefix(prefix): array for n, array in arrays.items() if n.startswith(prefix)}


def named(path, arrays):
    """The inverse of `under`."""
    return {f"{path}.{name}": array for name, array in arrays.items()}


def at(path, function, x, weights, **options):
    """A function with weights, which stand under `path`, as then its gradients do."""
    y, pullback = function(x, under(path, weights), **options)

    def named_pullback(dy):
        dx, gradients = pullback(dy)
        return dx, named(path, gradients)

    return y, named_pullback


def linear(x, weights):
    """x W + b at every position, with the weights "kernel" and, where there is one, "bias"."""
    kernel = weights["kernel"]

    def pullback(dy):
        gradients = {"kernel": _rows(x).T @ _rows(dy), "bias": _rows(dy).sum(0)}
        return dy @ kernel.T, {name: gradients[name] for name in weights}

    return x @ kernel + weights.get("bias", 0.0), pullback


def convolve(x, weights, *, stride=1, groups=1):
    """Cross-correlation, padded with size // 2 zeros on each side; the weights are as for `linear`.

    (N, *S, in) with a kernel (*K, in / groups, out) -> (N, *S', out), S' = ceil(S / stride). It is
    the sum over the taps of the kernel of what that tap sees, times its matrix.
    """
    kernel = weights["kernel"]
    size = len(kernel)
    taps = list(itertools.product(range(size), repeat=x.ndim - 2))
    shape = (len(x), *((side - 1) // stride + 1 for side in x.shape[1:-1]), kernel.shape[-1])

    def by_group(array):  # (groups, positions, channels / groups)
        return array.reshape(-1, groups, array.shape[-1] // groups).swapaxes(0, 1)

    def matrices(tap):  # (groups, in / groups, out / groups)
        return kernel[tap].reshape(len(kernel[tap]), groups, -1).swapaxes(0, 1)

    def pullback(dy):
        rows, padded = by_group(dy), _pad(x, size, 0.0)
        dpadded, dkernel = np.zeros_like(padded), np.empty_like(kernel)
        for tap in taps:
            by_matrices = by_group(_seen(padded, tap, size, stride)).swapaxes(1, 2) @ rows
            dkernel[tap] = by_matrices.swapaxes(0, 1).reshape(dkernel[tap].shape)
            dseen = _seen(dpadded, tap, size, stride)
            dseen += (rows @ matrices(tap).swapaxes(1, 2)).swapaxes(0, 1).reshape(dseen.shape)
        gradients = {"kernel": dkernel, "bias": _rows(dy).sum(0)}
        return _crop(dpadded, size), {name: gradients[name] for name in weights}

    padded = _pad(x, size, 0.0)
    y = sum(by_group(_seen(padded, tap, size, stride)) @ matrices(tap) for tap in taps)
    return y.swapaxes(0, 1).reshape(shape) + weights.get("bias", 0.0), pullback


def max_pool(x, size=3, stride=2):
    """The maximum of each window of a map (N, H, W, C), padded with size // 2 times -inf."""
    padded = _pad(x, size, -np.inf)
    taps = list(itertools.product(range(size), repeat=2))
    windows = np.stack([_seen(padded, tap, size, stride) for tap in taps])
    first, shape = windows.argmax(0), padded.shape

    def pullback(dy):
        dpadded = np.zeros(shape)
        for number, tap in enumerate(taps):
            dseen = _seen(dpadded, tap, size, stride)
            dseen += np.where(first == number, dy, 0.0)
        return _crop(dpadded, size)

    return windows.max(0), pullback


def batch_norm(x, weights, *, eps, training):
    """(x - mean) / sqrt(var + eps) * scale + bias; mean and biased variance of x if training."""
    scale, bias, mean, var = (weights[leaf] for leaf in ("scale", "bias", "mean", "var"))
    batch_statistics = training and x.size > 0
    if batch_statistics:
        mean, var = _rows(x).mean(0), _rows(x).var(0)
    deviation = np.sqrt(var + eps)
    normal = (x - mean) / deviation

    def pullback(dy):
        gradients = {"scale": _rows(dy * normal).sum(0), "bias": _rows(dy).sum(0)}
        dnormal = dy * scale
        if batch_statistics:
            dnormal = dnormal - _rows(dnormal).mean(0) - normal * _rows(dnormal * normal).mean(0)
        return dnormal / deviation, gradients

    return normal * scale + bias, pullback


def running_statistics(x, weights, *, momentum):
    """ "mean" and "var" after a training pass over x, whose unbiased variance goes into the latter.

    An empty batch keeps them.
    """
    if x.size == 0:
        return {leaf: weights[leaf] for leaf in ("mean", "var")}
    new = {"mean": _rows(x).mean(0), "var": _rows(x).var(0, ddof=1)}
    return {leaf: (1 - momentum) * weights[leaf] + momentum * new[leaf] for leaf in new}


def _rows(array):
    return array.reshape(-1, array.shape[-1])


def _seen(padded, tap, size, stride):
    """The view of a padded map that one tap of the windows sees."""
    ends = (side - size + 1 for side in padded.shape[1:-1])
    spans = (slice(at, at + end, stride) for at, end in zip(tap, ends, strict=True))
    return padded[(slice(None), *spans)]


def _pad(x, size, value):
    half = size // 2
    return np.pad(x, [(0, 0), *[(half, half)] * (x.ndim - 2), (0, 0)], constant_values=value)


def _crop(padded, size):
    half = size // 2
    inner = (slice(half, side - half) for side in padded.shape[1:-1])
    return padded[(slice(None), *inner)]


POOLS = {"avg": avg, "max": max, "lp": lp, "lse": lse}
GATES = {
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid(1 / 6),
    "hard_sigmoid_keras2": hard_sigmoid(0.2),
    "double_sigmoid": double_sigmoid,
}
