# %% [markdown]
# # CBAM in Keras, from a block to a trained network
#
# The cells run from top to bottom, in an editor that knows `# %%` or as a script. They need
# `pip install "cbam[keras,tf,h5,examples]"` and no other file. What they write goes
# into a new folder.

# %%
import tempfile
from pathlib import Path

import keras
import numpy as np

import cbam_core
import cbam_keras
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
block = cbam_keras.CBAM(64, reduction=8)
x = keras.random.normal((2, 16, 16, 64))
print(block.spec, "→", tuple(block(x).shape))
assert block(x).shape == x.shape
timm_light = cbam_core.CBAMSpec.preset("timm_light", channels=64)
print(cbam_keras.CBAM.from_spec(timm_light).spec)

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
inputs = keras.Input((32, 32, 3))
y = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
y = keras.layers.GlobalAveragePooling2D()(cbam_keras.CBAM(32)(y))
model = keras.Model(inputs, keras.layers.Dense(10)(y))
print(model(keras.random.normal((4, 32, 32, 3))).shape)

plain = keras.Sequential(
    [
        keras.Input((32, 32, 3)),
        keras.layers.Conv2D(32, 3, use_bias=False),
        keras.layers.BatchNormalization(name="norm"),
    ]
)
attended = cbam_keras.insert_cbam(plain, "norm")
x = keras.random.normal((2, 32, 32, 3))
assert np.array_equal(attended(x), plain(x))
print(len(cbam_keras.new_parameters(attended)), "new parameters")

# %% [markdown]
# The networks of the paper are there: `cbam_keras.resnet50(attention="cbam")`, with `"se"` or None
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
block = cbam_keras.CBAM.from_spec(found.spec)
cbam_keras.load_canonical(block, found.weights)

# %% [markdown]
# A whole network brings its architecture. This one, which comes with the package, reads digits.

# %%
found = cbam_core.read(trained.PATH)
network = cbam_keras.Backbone(found.architecture)
cbam_keras.load_canonical(network, found.weights)
data = digits()
pictures, labels = data.pictures.astype("float32"), data.targets


def read_right() -> int:
    return int((network.predict(pictures, verbose=0).argmax(1) == labels).sum())


print(read_right(), "of", len(labels), "digits read right")

# %% [markdown]
# ## Training
#
# With a new head it has to learn to read again; what it sees it knows already.

# %%
network.head.linear.kernel.assign(np.zeros_like(network.head.linear.kernel))
network.compile(
    keras.optimizers.SGD(0.02, momentum=0.9),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
print(read_right(), "with a new head")
history = network.fit(
    pictures[: 32 * 20], labels[: 32 * 20], batch_size=32, shuffle=False, verbose=0
)
print(f"mean loss {history.history['loss'][0]:.3f}")
print(read_right(), "after 20 steps")
assert read_right() > 1200

# %% [markdown]
# ## What it looks at
#
# `attention_maps` gives the gates of every block, by its path.

# %%
maps = cbam_keras.attention_maps(network, pictures[:8])
maps = {name: keras.ops.convert_to_numpy(gate) for name, gate in maps.items()}
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
# A canonical file is for all of them: `cbam_keras.load_canonical` and its like take what is in it.
# The reference in NumPy says what they compute.

# %%
network_file = folder / "digits.safetensors"
cbam_core.write(network_file, cbam_keras.to_canonical(network), network.architecture)
found = cbam_core.read(network_file)
expected = reference_network.run(found.architecture, found.weights, data.pictures[:8]).output
logits = network.predict(pictures[:8], verbose=0)
print("from the reference:", abs(logits - expected).max())
assert abs(logits - expected).max() < 1e-3

# %% [markdown]
# `cbam_core.convert`, on the command line `cbam convert`, makes of a file what another framework's
# users load by their own means: of the authors' block here one for Keras's `load_weights`.

# %%
conversion = cbam_core.convert(folder / "theirs.pth", folder / "block.weights.h5")
print(conversion.source_dialect, "→", conversion.dialect, conversion.container)
