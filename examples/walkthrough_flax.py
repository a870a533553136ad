# %% [markdown]
# # CBAM in Flax, from a block to a trained network
#
# The cells run from top to bottom, in an editor that knows `# %%` or as a script. They need
# `pip install "cbam[flax,h5,examples]"` and no other file. What they write goes
# into a new folder.

# %%
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

import cbam_core
import cbam_flax
from cbam_core import reference_network
from crosscheck import trained
from crosscheck.training.data import digits

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A block
#
# `CBAM(channels)` refines a map: x' = Mc(x) x, y = Ms(x') x'. The default is the paper's; a preset
# or an argument gives another. The spec says all of it.

# %%
block = cbam_flax.CBAM(64, reduction=8, rngs=nnx.Rngs(0))
x = jax.random.normal(jax.random.key(0), (2, 16, 16, 64))
print(block.spec, "→", tuple(block(x).shape))
assert block(x).shape == x.shape
timm_light = cbam_core.CBAMSpec.preset("timm_light", channels=64)
print(cbam_flax.CBAM.from_spec(timm_light, rngs=nnx.Rngs(0)).spec)

# %% [markdown]
# Its two gates can be had one by one.

# %%
channel = block.channel.gate(x)
spatial = block.spatial.gate(channel * x)
assert np.allclose(block(x), spatial * (channel * x), atol=1e-6)

# %% [markdown]
# ## In a network
#
# A block is a module like any other. Into a network that exists `insert_cbam` puts one behind each
# module of a kind, in such a way that its output stays as it was until training moves it.


# %%
class Network(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 32, (3, 3), rngs=rngs)
        self.cbam = cbam_flax.CBAM(32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.head(self.cbam(nnx.relu(self.conv(x))).mean((1, 2)))


x = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
print(Network(rngs=nnx.Rngs(0))(x).shape)

rngs = nnx.Rngs(0)
plain = nnx.Sequential(nnx.Conv(3, 32, (3, 3), rngs=rngs), nnx.BatchNorm(32, rngs=rngs))
plain.eval()
before = plain(x)
cbam_flax.insert_cbam(plain, nnx.BatchNorm, example=x)
assert np.array_equal(plain(x), before)
new = nnx.state(plain, cbam_flax.new_parameters(plain))
print(len(jax.tree.leaves(new)), "new parameters")

# %% [markdown]
# The networks of the paper are there: `cbam_flax.resnet50(attention="cbam")`, with `"se"` or None
# in place of `"cbam"`, and more.
#
# ## A public checkpoint
#
# `cbam_core.read` knows the names and layouts of the public implementations, and tells them by the
# file alone. Here is a block as the authors' code names its weights.

# %%
spec = cbam_core.CBAMSpec.preset("official", channels=64)
cbam_core.write(folder / "ours.safetensors", cbam_core.initial_weights(spec), spec)
cbam_core.convert(folder / "ours.safetensors", folder / "theirs.pth", to="official")
found = cbam_core.read(folder / "theirs.pth")
print(found.dialect, found.spec)
block = cbam_flax.CBAM.from_spec(found.spec, rngs=nnx.Rngs(0))
cbam_flax.load_canonical(block, found.weights)

# %% [markdown]
# A whole network brings its architecture. This one, which comes with the package, reads digits.

# %%
found = cbam_core.read(trained.PATH)
network = cbam_flax.Backbone(found.architecture, rngs=nnx.Rngs(0))
cbam_flax.load_canonical(network, found.weights)
data = digits()
pictures, labels = jnp.asarray(data.pictures, "float32"), jnp.asarray(data.targets)


@nnx.jit
def logits_of(network: Any, x: Array) -> Array:
    return network(x)


def read_right() -> int:
    network.eval()
    return int((logits_of(network, pictures).argmax(1) == labels).sum())


print(read_right(), "of", len(labels), "digits read right")

# %% [markdown]
# ## Training
#
# With a new head it has to learn to read again; what it sees it knows already.

# %%
kernel = network.head.linear.kernel
kernel.set_value(jnp.zeros_like(kernel.get_value()))
print(read_right(), "with a new head")
optimizer = nnx.Optimizer(network, optax.sgd(0.02, momentum=0.9), wrt=nnx.Param)


@nnx.jit
def train(network: Any, optimizer: nnx.Optimizer, x: Array, labels: Array) -> Array:
    def loss_of(network: Any) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(network(x), labels).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(network)
    optimizer.update(network, gradients)
    return loss


network.train()
for step in range(20):
    chosen = slice(32 * step, 32 * step + 32)
    loss = train(network, optimizer, pictures[chosen], labels[chosen])
    if step % 5 == 4:
        print(f"step {step + 1}: loss {loss:.3f}")
print(read_right(), "after 20 steps")
assert read_right() > 1200

# %% [markdown]
# ## What it looks at
#
# `attention_maps` gives the gates of every block, by its path.

# %%
maps = cbam_flax.attention_maps(network, pictures[:8])
for name, gate in maps.items():
    print(name, tuple(gate.shape), f"{gate.min():.2f} to {gate.max():.2f}")

# %%
from matplotlib import pyplot  # noqa: E402

name = next(name for name in maps if name.endswith("spatial"))
figure, axes = pyplot.subplots(2, 8, figsize=(8, 2.2), layout="constrained")
for number in range(8):
    axes[0, number].imshow(data.pictures[number, ..., 0], cmap="gray")
    axes[1, number].imshow(maps[name][number, ..., 0], cmap="viridis")
for place in axes.flat:
    place.axis("off")
figure.suptitle(f"Digits, and {name}")
figure.savefig(folder / "maps.png")

# %% [markdown]
# ## To the other frameworks
#
# A canonical file is for all of them: `cbam_flax.load_canonical` and its like take what is in it.
# The reference in NumPy says what they compute.

# %%
network_file = folder / "digits.safetensors"
cbam_core.write(network_file, cbam_flax.to_canonical(network), network.architecture)
found = cbam_core.read(network_file)
expected = reference_network.run(found.architecture, found.weights, data.pictures[:8]).output
network.eval()
logits = logits_of(network, pictures[:8])
print("from the reference:", abs(logits - expected).max())
assert abs(logits - expected).max() < 1e-3

# %% [markdown]
# `cbam_core.convert`, on the command line `cbam convert`, makes of a file what another framework's
# users load by their own means: of the authors' block here one for Keras's `load_weights`.

# %%
conversion = cbam_core.convert(folder / "theirs.pth", folder / "block.weights.h5")
print(conversion.source_dialect, "→", conversion.dialect, conversion.container)
