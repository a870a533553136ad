# %% [markdown]
# # CBAM in PyTorch, from a block to a trained network
#
# The cells run from top to bottom, in an editor that knows `# %%` or as a script. They need
# `pip install "cbam[torch,h5,examples]"` and no other file. What they write goes
# into a new folder.

# %%
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import cbam_core
import cbam_torch
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
block = cbam_torch.CBAM(64, reduction=8)
x = torch.randn(2, 64, 16, 16)
print(block.spec, "→", tuple(block(x).shape))
assert block(x).shape == x.shape
light = cbam_torch.CBAM.from_spec(cbam_core.CBAMSpec.preset("timm_light", channels=64))
print(light.spec)

# %% [markdown]
# Its two gates can be had one by one.

# %%
channel = block.channel.gate(x)
spatial = block.spatial.gate(channel * x)
assert torch.allclose(block(x), spatial * (channel * x))

# %% [markdown]
# ## In a network
#
# A block is a module like any other. Into a network that exists `insert_cbam` puts one behind each
# module of a kind, in such a way that its output stays as it was until training moves it.


# %%
class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.cbam = cbam_torch.CBAM(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cbam(F.relu(self.conv(x))).mean((2, 3)))


print(Network()(torch.randn(4, 3, 32, 32)).shape)

plain = nn.Sequential(nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU()).eval()
x = torch.randn(2, 3, 32, 32)
before = plain(x)
cbam_torch.insert_cbam(plain, nn.BatchNorm2d)
assert torch.equal(plain(x), before)
print(len(cbam_torch.new_parameters(plain)), "new parameters")

# %% [markdown]
# The networks of the paper are there: `cbam_torch.resnet50(attention="cbam")`, with `"se"` or None
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
block = cbam_torch.CBAM.from_spec(found.spec)
cbam_torch.load_canonical(block, found.weights)

# %% [markdown]
# A whole network brings its architecture. This one, which comes with the package, reads digits.

# %%
found = cbam_core.read(trained.PATH)
network = cbam_torch.Backbone(found.architecture)
cbam_torch.load_canonical(network, found.weights)
data = digits()
pictures = torch.from_numpy(data.pictures).float().permute(0, 3, 1, 2)
labels = torch.from_numpy(data.targets)


def read_right() -> int:
    with torch.no_grad():
        return int((network.eval()(pictures).argmax(1) == labels).sum())


print(read_right(), "of", len(labels), "digits read right")

# %% [markdown]
# ## Training
#
# With a new head it has to learn to read again; what it sees it knows already.

# %%
nn.init.zeros_(network.head.linear.weight)
print(read_right(), "with a new head")
optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
network.train()
for step, chosen in enumerate(torch.arange(len(labels) // 32 * 32).view(-1, 32)[:20]):
    loss = F.cross_entropy(network(pictures[chosen]), labels[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 4:
        print(f"step {step + 1}: loss {loss.item():.3f}")
print(read_right(), "after 20 steps")
assert read_right() > 1200

# %% [markdown]
# ## What it looks at
#
# `attention_maps` gives the gates of every block, by its path.

# %%
maps = cbam_torch.attention_maps(network.eval(), pictures[:8])
for name, gate in maps.items():
    print(name, tuple(gate.shape), f"{gate.min():.2f} to {gate.max():.2f}")

# %%
from matplotlib import pyplot  # noqa: E402

name = next(name for name in maps if name.endswith("spatial"))
figure, axes = pyplot.subplots(2, 8, figsize=(8, 2.2), layout="constrained")
for number in range(8):
    axes[0, number].imshow(pictures[number, 0], cmap="gray")
    axes[1, number].imshow(maps[name][number, 0].detach(), cmap="viridis")
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
cbam_core.write(network_file, cbam_torch.to_canonical(network), network.architecture)
found = cbam_core.read(network_file)
expected = reference_network.run(found.architecture, found.weights, data.pictures[:8]).output
with torch.no_grad():
    logits = network(pictures[:8]).numpy()
print("from the reference:", abs(logits - expected).max())
assert abs(logits - expected).max() < 1e-3

# %% [markdown]
# `cbam_core.convert`, on the command line `cbam convert`, makes of a file what another framework's
# users load by their own means: of the authors' block here one for Keras's `load_weights`.

# %%
conversion = cbam_core.convert(folder / "theirs.pth", folder / "block.weights.h5")
print(conversion.source_dialect, "→", conversion.dialect, conversion.container)
