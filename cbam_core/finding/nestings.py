"""What people put around the weights of a model: nestings, prefixes, optimizers, averages."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Of the weights an average, taken only where the file has nothing else under the same names.
_AVERAGES = (
    "ema", "ema_model", "ema_params", "ema_state_dict", "model_ema", "params_ema",
    "state_dict_ema",
)  # fmt: skip
_NESTINGS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "net_state_dict",
    "network", "params", "batch_stats", "variables", "state", *_AVERAGES,
)  # fmt: skip
_OPTIMIZER = re.compile(r"(opt_state|optim|optimi[sz]er)s?(_.*)?")
# The last two are prefixes of DataParallel and torch.compile.
_WRAPPERS = re.compile(rf"(?:(?:{'|'.join(_NESTINGS)})/|module\.|_orig_mod\.)*")
# How TensorFlow 1 calls a variable's average, and the first output of its operation.
_SHADOW, _OUTPUT = "/ExponentialMovingAverage", ":0"
# A name that is longer is that of no layer, and taking it apart could take long.
_LONGEST = 1_000


def unwrap(names: Iterable[str]) -> dict[str, str]:
    """The name that a weight has in its model -> its name in the file.

    Nestings ("state_dict/") and the prefixes of DataParallel and torch.compile are taken off. What
    an optimizer keeps is left out, and averages of weights that the file holds as well. Where two
    nestings hold the same names, those of the second keep it.

    >>> unwrap(["state_dict/module.ca.fc1.weight", "optimizer/state/0/momentum_buffer"])
    {'ca.fc1.weight': 'state_dict/module.ca.fc1.weight'}
    """
    names = [name for name in names if len(name) <= _LONGEST]
    present = {name.removesuffix(_OUTPUT) for name in names}
    weights: dict[str, str] = {}
    averages: dict[str, str] = {}
    for name in names:
        nestings = name.split("/")[:-1]
        # TensorFlow keeps what an optimizer has for a variable below the variable's own name.
        if any(map(_OPTIMIZER.fullmatch, nestings)) or name.rpartition("/")[0] in present:
            continue
        bare, is_average = _bare(name)
        if is_average:
            averages.setdefault(bare, name)
        else:
            weights[name if bare in weights else bare] = name
    return weights | {bare: name for bare, name in averages.items() if bare not in weights}


def _bare(name: str) -> tuple[str, bool]:
    """A name without what is around it, and whether it is that of an average."""
    bare = name.removesuffix(_OUTPUT)
    around = _WRAPPERS.match(bare)
    wrappers = around[0] if around else ""
    is_average = bare.endswith(_SHADOW) or any(w in _AVERAGES for w in wrappers.split("/"))
    return bare[len(wrappers) :].removesuffix(_SHADOW), is_average
