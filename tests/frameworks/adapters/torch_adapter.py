"""How the conformance test drives cbam_torch; arrays are NumPy, in canonical layout."""

import contextlib

import numpy as np
import torch

import cbam_torch as package
from cbam_core.costs import is_statistic
from cbam_core.slots import TORCH as CONVENTION
from cbam_torch import ops, train
from cbam_torch.evaluate import evaluate
from cbam_torch.weights import canonical_array, named_weights

__all__ = [
    "CONVENTION", "LOADS", "PLACE", "RUNS", "Mixed", "around", "build", "call", "differentiate",
    "evaluate", "explain", "gate", "insert", "kept", "package", "path", "save", "save_run",
    "surface", "train", "train_from_seed",
]  # fmt: skip


def build(name, *arguments, dtype="float32", **keywords):
    """What the package's `name` makes: a class, "CBAM.from_spec" or a network's factory."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, dtype=getattr(torch, dtype), **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C); a list of arrays where the module gives several maps."""
    y = module.train(training)(_first(x))
    return [_last(part) for part in y] if isinstance(y, list) else _last(y)


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    return _last(module.eval().gate(_first(x)))


def differentiate(network, x, cotangent, training=False):
    """What `evaluate` returns of a block, of a network that is there: the arrays alone."""
    leaf, state = _first(x).requires_grad_(), named_weights(network)
    y = network.train(training)(leaf)
    sources = {"input": leaf} | {n: w for n, w in state.items() if not is_statistic(n)}
    gradients = torch.autograd.grad(y, list(sources.values()), _first(cotangent))
    shapes = {name: array.shape for name, array in package.to_canonical(network).items()}
    arrays = {"output": _last(y), "grad:input": _last(gradients[0])}
    for name, gradient in list(zip(sources, gradients, strict=True))[1:]:
        arrays[f"grad:{name}"] = canonical_array(gradient, shapes[name])
    for name in state.keys() - sources:
        arrays[f"state:{name}"] = canonical_array(state[name], shapes[name])
    return arrays


def path(x):
    """What the primitives run on for x (N, *S, C)."""
    return ops.path(_first(x))


def kept(module, x):
    """The shapes of the arrays that a pass over x keeps for the backward pass, weights included."""
    arrays = {}

    def pack(tensor):
        arrays[tensor.untyped_storage().data_ptr()] = tuple(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module.train()(_first(x).requires_grad_())
    return list(arrays.values())


def _first(x):
    # A wrong number of axes or of channels has to arrive at the module as it is.
    array = np.moveaxis(x, -1, 1) if x.ndim > 1 else x
    return torch.from_numpy(np.ascontiguousarray(array))


def _last(y):
    return np.moveaxis(y.detach().numpy(), 1, -1)


def explain(module, x, asked, compiled=False):
    """The attention maps for x (N, *S, C), and the Grad-CAM of each (target, at) that is asked."""

    def run(x):
        cams = [package.grad_cam(module, x, *one) for one in asked]
        return package.attention_maps(module, x), cams

    whole = {"trace_autograd_ops": True}
    with torch._dynamo.config.patch(whole) if compiled else contextlib.nullcontext():
        run = torch.compile(run, backend="eager", fullgraph=True) if compiled else run
        maps, cams = run(_first(x))
    return {name: _last(gate) for name, gate in maps.items()}, [cam.numpy() for cam in cams]


def around(block):
    """A model that passes its input to the block `inner` by its name."""

    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = block

        def forward(self, x):
            return self.inner(x=x)

    return Around()


# The last norm of a network of one block, and the CBAM that `insert` puts behind it.
PLACE = ("stage1.block0.norm2", "stage1.block0.norm2.cbam")


def insert(network, where, spec, x, **options):
    """The network with a CBAM behind each module that is meant."""
    return package.insert_cbam(network, where, spec, example=_first(x), **options)


def surface(network):
    """What of its modules a function that looks on may leave changed, beside weights."""
    gradients = [parameter.grad for parameter in network.parameters()]
    modules = list(network.modules())
    return gradients, [(m.training, id(m._forward_hooks), dict(m._forward_hooks)) for m in modules]


def save(module, folder):
    """The files in which its users save a module."""
    torch.save(module.state_dict(), folder / "module.pth")
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, folder / "training.pth.tar")
    return [folder / "module.pth", folder / "training.pth.tar"]


def _load(module, path):
    module.load_state_dict(torch.load(path, weights_only=True))


# Ending, dialect, and how its users load such a file into a module.
LOADS = [(".pth", None, _load)]


class Mixed:
    """A float32 module under autocast to a half precision, float16 with a GradScaler."""

    def __init__(self, name, *arguments, dtype, weights):
        self.module, self.dtype = build(name, *arguments), getattr(torch, dtype)
        package.load_canonical(self.module, weights)
        self.optimizer = torch.optim.SGD(self.module.parameters(), 0.01)
        self.scaler = torch.amp.GradScaler("cpu", enabled=dtype == "float16")

    def call(self, x, training=False):
        """The output for x (N, *S, C), as float32."""
        with torch.autocast("cpu", self.dtype):
            y = self.module.train(training)(_first(x.astype(np.float32)))
        return _last(y.float())

    def step(self, x, target):
        """A step by the mean squared error."""
        self.optimizer.zero_grad()
        with torch.autocast("cpu", self.dtype):
            y = self.module.train()(_first(x.astype(np.float32)))
            loss = torch.nn.functional.mse_loss(y, _first(target.astype(np.float32)))
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def weights(self):
        return package.to_canonical(self.module)

    def kinds(self):
        """The dtypes of weights and statistics."""
        return {str(w.dtype).removeprefix("torch.") for w in named_weights(self.module).values()}


def train_from_seed(architecture, seed, x, labels, steps):
    """The weights of a new network after steps of SGD, by a seed alone; for a fresh process."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    network = build("Backbone", architecture, dtype=x.dtype.name).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = network(_first(x))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
        optimizer.step()
    return package.to_canonical(network)


def save_run(trainer, folder):
    """The files in which its users save a run, and what else has to be said of each."""
    saved = {
        "model": trainer.network.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
    }
    torch.save(saved, folder / "run.pth")
    others = {f"{name}_state_dict": state for name, state in saved.items()}
    described = {"architecture": trainer.network.architecture.to_dict()}
    torch.save(others | described, folder / "described.pth.tar")
    steps = {"steps": trainer.recipe.steps}
    return {folder / "run.pth": steps | described, folder / "described.pth.tar": steps}


def _load_run(trainer, path):
    saved = torch.load(path, weights_only=True)
    trainer.network.load_state_dict(saved["model"])
    trainer.optimizer.load_state_dict(saved["optimizer"])
    trainer.scheduler.load_state_dict(saved["scheduler"])


# Ending, and how its users go on with a run from such a file.
RUNS = [(".pth", _load_run)]
