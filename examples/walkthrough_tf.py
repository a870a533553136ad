# %% [markdown]
# # CBAM in TensorFlow, from a block to a trained network
#
# The cells run from top to bottom, in an editor that knows `# %%` or as a script. They need
# `pip install "cbam[tf,h5,examples]"` and no other file. What they write goes
# into a new folder.

# %%
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

import cbam_core
import cbam_tf
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
block = cbam_tf.CBAM(64, reduction=8)
x = tf.random.normal([2, 16, 16, 64])
print(block.spec, "→", tuple(block(x).shape))
assert block(x).shape == x.shape
timm_light = cbam_core.CBAMSpec.preset("timm_light", channels=64)
print(cbam_tf.CBAM.from_spec(timm_light).spec)

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
class Network(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal([3, 3, 3, 32], stddev=0.2))
        self.cbam = cbam_tf.CBAM(32)
        self.head = tf.Variable(tf.random.normal([32, 10], stddev=0.2))

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        y = tf.nn.relu(tf.nn.conv2d(x, self.kernel, 1, "SAME"))
        return tf.reduce_mean(self.cbam(y, training=training), [1, 2]) @ self.head


print(Network()(tf.random.normal([4, 32, 32, 3])).shape)


class Plain(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal([3, 3, 3, 32]))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(tf.nn.conv2d(x, self.kernel, 1, "SAME"))


plain, x = Plain(), tf.random.normal([2, 32, 32, 3])
before = plain(x)
cbam_tf.insert_cbam(plain, Plain, example=x)
assert np.array_equal(plain(x), before)
print(len(cbam_tf.new_parameters(plain)), "new parameters")

# %% [markdown]
# The networks of the paper are there: `cbam_tf.resnet50(attention="cbam")`, with `"se"` or None
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
block = cbam_tf.CBAM.from_spec(found.spec)
cbam_tf.load_canonical(block, found.weights)

# %% [markdown]
# A whole network brings its architecture. This one, which comes with the package, reads digits.

# %%
found = cbam_core.read(trained.PATH)
network = cbam_tf.Backbone(found.architecture)
cbam_tf.load_canonical(network, found.weights)
data = digits()
pictures, labels = tf.constant(data.pictures, tf.float32), tf.constant(data.targets)


def read_right() -> int:
    return int((np.argmax(network(pictures), 1) == data.targets).sum())


print(read_right(), "of", len(labels), "digits read right")

# %% [markdown]
# ## Training
#
# With a new head it has to learn to read again; what it sees it knows already.

# %%
network.head.linear.kernel.assign(tf.zeros_like(network.head.linear.kernel))
print(read_right(), "with a new head")
optimizer = tf.keras.optimizers.SGD(0.02, momentum=0.9)
optimizer.build(network.trainable_variables)


@tf.function
def train(x: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        logits = network(x, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, network.trainable_variables)
    optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
    return loss


for step in range(20):
    chosen = slice(32 * step, 32 * step + 32)
    loss = train(pictures[chosen], labels[chosen])
    if step % 5 == 4:
        print(f"step {step + 1}: loss {float(loss):.3f}")
print(read_right(), "after 20 steps")
assert read_right() > 1200

# %% [markdown]
# ## What it looks at
#
# `attention_maps` gives the gates of every block, by its path.

# %%
maps = cbam_tf.attention_maps(network, pictures[:8])
for name, gate in maps.items():
    print(name, tuple(gate.shape), f"{np.min(gate):.2f} to {np.max(gate):.2f}")

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
# A canonical file is for all of them: `cbam_tf.load_canonical` and its like take what is in it.
# The reference in NumPy says what they compute.

# %%
network_file = folder / "digits.safetensors"
cbam_core.write(network_file, cbam_tf.to_canonical(network), network.architecture)
found = cbam_core.read(network_file)
expected = reference_network.run(found.architecture, found.weights, data.pictures[:8]).output
logits = np.asarray(network(pictures[:8]))
print("from the reference:", abs(logits - expected).max())
assert abs(logits - expected).max() < 1e-3

# %% [markdown]
# `cbam_core.convert`, on the command line `cbam convert`, makes of a file what another framework's
# users load by their own means: of the authors' block here one for Keras's `load_weights`.

# %%
conversion = cbam_core.convert(folder / "theirs.pth", folder / "block.weights.h5")
print(conversion.source_dialect, "→", conversion.dialect, conversion.container)
