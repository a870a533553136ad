"""CBAM into torch models that know nothing of it."""

from __future__ import annotations

import copy
import io
import pickle
import re

import numpy as np
import pytest
import torch
from pytorchcv.models.cbamresnet import cbam_resnet18
from pytorchcv.models.resnet import resnet18
from torch import nn

import cbam_core
import cbam_torch
from cbam_core import Architecture, CBAMSpec, reference_network
from cbam_core.initial import initial_at
from cbam_torch import insert_cbam, new_parameters
from tests import networks
from tests.compare import assert_equal
from tests.frameworks.models.torch_resnets import RESNETS, BasicBlock, ResNet

X = torch.from_numpy(np.moveaxis(networks.picture(32, 33), -1, 1).astype(np.float32))
WITH_NORM = CBAMSpec.preset("official", 1, gate="double_sigmoid", kernel_size=3)
LAST = {"torchvision-basic": "bn2", "torchvision-bottleneck": "bn3", "timm-basic": "bn2"}


def build(name="torchvision-basic", training=False):
    torch.manual_seed(0)
    model = RESNETS[name]()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.normal_()
    return model.train(training)


def bits(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def places(model):
    """Paths behind which there is a CBAM."""
    blocks = (name for name, m in model.named_modules() if isinstance(m, cbam_torch.CBAM))
    return [name.removesuffix(".cbam") for name in blocks]


@pytest.mark.parametrize(
    ("where", "spec"),
    [("block", None), ("stem_and_tail", WITH_NORM), ("layer?", "identity"), (nn.Conv2d, WITH_NORM)],
    ids=str,
)
@pytest.mark.parametrize("name", RESNETS)
def test_identity_leaves_the_output_bit_for_bit(name, where, spec):
    model, other = build(name, training=True), build(name, training=True)
    assert insert_cbam(other, where, spec) is other
    for training in (True, True, False):
        found, right = other.train(training)(X), model.train(training)(X)
        assert found.detach().numpy().tobytes() == right.detach().numpy().tobytes()
    assert bits(model).items() <= bits(other).items()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_cbam_has_the_dtype_of_the_parameters(dtype):
    model, other = build().to(dtype), insert_cbam(build().to(dtype), "block", WITH_NORM)
    assert other.layer1[0].bn2.cbam.channel.reduce.weight.dtype == dtype
    assert torch.equal(other(X.to(dtype)), model(X.to(dtype)))


@pytest.mark.parametrize("name", RESNETS)
def test_block_is_the_last_norm_of_each_block(name):
    found = places(insert_cbam(build(name), "block"))
    assert found == [f"{block}.{LAST[name]}" for block in ("layer1.0", "layer1.1", "layer2.0")]


@pytest.mark.parametrize("name", RESNETS)
def test_stem_and_tail_are_the_first_activation_and_the_last_stage(name):
    model = build(name)
    assert places(insert_cbam(model, "stem_and_tail")) == [model.activation, "layer2"]


def test_training_starts_from_the_identity():
    model = insert_cbam(build(training=True), "block")
    before = model(X)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (before**2).sum().backward()
    for path in places(model):
        block = model.get_submodule(f"{path}.cbam")
        assert block.channel.expand.weight.grad.any()
        assert block.spatial.conv.weight.grad.any()
    optimizer.step()
    assert not torch.equal(model(X), before)


@pytest.mark.parametrize("placement", ["block", "stem_and_tail"])
def test_an_inserted_cbam_is_that_of_the_architecture(placement):
    plain = Architecture("basic", (1, 1), (4, 6), stem="cifar", num_classes=3)
    attended = Architecture(
        "basic", (1, 1), (4, 6), stem="cifar", num_classes=3, attention="cbam", placement=placement
    )
    weights = networks.weights(attended)
    network = cbam_torch.Backbone(plain, dtype=torch.float64)
    own = {name: array for name, array in weights.items() if name in networks.weights(plain)}
    cbam_torch.load_canonical(network, own)
    where = {"stage1.block0.norm2": "stage1.block0.attention"}
    where["stage2.block0.norm2"] = "stage2.block0.attention"
    if placement == "stem_and_tail":
        # Without a max pool the stem ends with the attention.
        where = {"stem": "stem.attention", "stage2": "tail"}
    insert_cbam(network, list(where), "official", init="authors")
    for path, attention in where.items():
        prefix = f"{attention}."
        inside = {n.removeprefix(prefix): a for n, a in weights.items() if n.startswith(prefix)}
        cbam_torch.load_canonical(network.get_submodule(path).cbam, inside)
    x = networks.picture(8, 9)
    found = network.eval()(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
    right = reference_network.run(attended, weights, x).output
    assert_equal({"": found.detach().numpy()}, {"": right}, 1e-12)


def test_pytorchcvs_resnet_becomes_its_cbam_resnet(tmp_path):
    """Behind each unit's body, which has other names than torchvision's, and with its weights."""
    torch.manual_seed(0)
    peer, model = cbam_resnet18().eval(), resnet18().eval()
    model.load_state_dict(peer.state_dict(), strict=False)
    insert_cbam(model, "features.stage*.unit*.body", "osmr", init="authors")
    torch.save(peer.state_dict(), tmp_path / "peer.pth")
    blocks = cbam_core.read(tmp_path / "peer.pth").blocks
    for path, block in blocks.items():
        inserted = model.get_submodule(f"{path.removesuffix('.cbam')}.body.cbam")
        cbam_torch.load_canonical(inserted, block.weights)
    assert len(blocks) == 8
    x = torch.randn(1, 3, 224, 224)
    right = peer(x).detach().numpy().astype(np.float64)
    assert_equal({"": model(x).detach().numpy()}, {"": right}, 2e-6)


def test_old_state_dicts_still_load():
    model, trained = insert_cbam(build(), "block"), build(training=True)
    trained(X)
    found = model.load_state_dict(trained.state_dict(), strict=False)
    assert not found.unexpected_keys
    new = {id(parameter) for parameter in new_parameters(model)}
    assert set(found.missing_keys) == {n for n, p in model.named_parameters() if id(p) in new}
    assert torch.equal(model(X), trained.eval()(X))


def test_an_optimizer_can_move_the_new_parameters_alone():
    model = insert_cbam(build(training=True), "block", WITH_NORM)
    before = bits(model)
    optimizer = torch.optim.SGD(new_parameters(model), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (model(X) ** 2).sum().backward()
        optimizer.step()
    after = bits(model)
    moved = {name for name, _ in model.named_parameters() if after[name] != before[name]}
    assert moved
    assert all(".cbam." in name for name in moved)


def test_the_initial_values_are_those_of_the_core():
    model = insert_cbam(build(), "layer?", "official", init="authors", seed=5)
    for path, channels in {"layer1": 4, "layer2": 8}.items():
        weights = cbam_torch.to_canonical(model.get_submodule(path).cbam)
        drawn = initial_at(path, CBAMSpec.preset("official", channels), "authors", seed=5)
        assert all(weights[name].tobytes() == drawn[name].tobytes() for name in drawn)


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        _saved,
        lambda model: torch.compile(model, backend="eager", fullgraph=True),
    ],
    ids=["deepcopy", "pickle", "save", "compile"],
)
def test_a_model_with_cbam_is_a_model_like_any_other(copied):
    """Also a copy's CBAMs are its own, as a change of them shows."""
    model = insert_cbam(build(), ["block", "stem_and_tail"], WITH_NORM)
    with torch.no_grad():
        for weight in new_parameters(model):
            weight.normal_()
        y, other = model(X), copied(model)
        assert torch.equal(other(X), y)
        for weight in new_parameters(other):
            weight.zero_()
        assert not torch.equal(other(X), y)


def test_the_cbam_is_in_the_mode_of_its_module():
    model = build(training=True)
    model.layer1.eval()
    insert_cbam(model, "block", WITH_NORM)
    assert not model.layer1[0].bn2.cbam.spatial.norm.training
    assert model.layer2[0].bn2.cbam.spatial.norm.training


def test_a_norm_in_the_cbam_is_synchronized_on_demand():
    model = insert_cbam(build(), "layer1.0.bn2", WITH_NORM, synchronized=True)
    assert model.layer1[0].bn2.cbam.spatial.norm.synchronized


def test_a_second_insertion_leaves_the_first():
    model = insert_cbam(build(), "block")
    insert_cbam(model, nn.Conv2d)
    convs = [name for name, module in build().named_modules() if isinstance(module, nn.Conv2d)]
    norms = ["layer1.0.bn2", "layer1.1.bn2", "layer2.0.bn2"]
    assert sorted(places(model)) == sorted(convs + norms)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_signals_and_volumes(rank):
    model = [nn.Conv1d, nn.Conv2d, nn.Conv3d][rank - 1](2, 4, 3)
    x = torch.ones((2, 2, *[6] * rank))
    y = model(x)
    insert_cbam(model, type(model), CBAMSpec.preset("identity", 1, kernel_size=3))
    assert model.cbam.spec.rank == rank
    assert torch.equal(model(x), y)


class Odd(nn.Module):
    """Modules that give no map, an integer one, or two of different widths."""

    class Split(nn.Module):
        def forward(self, x):
            return x, x

    class Round(nn.Module):
        def forward(self, x):
            return x.int()

    class Chain(nn.Sequential):
        def forward(self, x):
            for module in self:
                x = module(x)
            return x

    def __init__(self):
        super().__init__()
        self.split, self.round, self.act = self.Split(), self.Round(), nn.ReLU()
        self.conv, self.rest = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1)
        self.norm, self.chain = nn.BatchNorm2d(5), self.Chain(nn.Identity())

    def forward(self, x, scale=1.0):
        x, _ = self.split(x * scale)
        y = self.norm(self.chain(self.act(self.conv(self.act(x)))))
        return y + self.round(y)


@pytest.mark.parametrize(
    ("where", "options", "error", "message"),
    [
        ("bn*", {}, ValueError, "where='bn*' names no module of the model; choose from "),
        ("block", {}, ValueError, "where='block' names no module of the model; choose from "),
        (["conv", "rest"], {}, ValueError, "where='rest' is not called when the model runs"),
        (["conv", "split"], {}, ValueError, "where='split' gives tuple, and a CBAM refines"),
        (["conv", "round"], {}, TypeError, "where='round' gives a map of dtype int32"),
        (["conv", "act"], {}, ValueError, "where='act' gives maps of several widths or ranks"),
        (["conv", "chain"], {}, ValueError, "where='chain' is a container with a forward of its"),
        ("conv", {"spec": "eca"}, ValueError, "preset='eca' is unknown; choose from"),
        ("conv", {"spec": "official"}, ValueError, "'identity' needs gate='double_sigmoid'"),
        ("conv", {"init": "zeros"}, ValueError, "scheme='zeros' is unknown; choose from"),
        (
            "conv",
            {"call": {"scale": torch.ones(7)}},
            ValueError,
            "example=None, and the model takes no pictures of shape (2, 3, 224, 224) or "
            "(2, 3, 32, 32) (",
        ),
    ],
)
def test_a_wrong_place_is_named_and_the_model_is_as_it_was(where, options, error, message):
    model = Odd()
    names, before = repr(model), bits(model)
    with pytest.raises(error, match=re.escape(message)):
        insert_cbam(model, where, **options)
    assert repr(model) == names
    assert bits(model) == before
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_without_convolutions_needs_an_example():
    model = nn.Sequential(nn.Unflatten(1, (4, 3, 3)), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="has no convolution to make pictures for; pass an input"):
        insert_cbam(model, "1")
    insert_cbam(model, "1", example=torch.ones(2, 36))
    assert model[1].cbam.spec.channels == 4


def test_a_place_takes_one_cbam():
    model = insert_cbam(build(), "block")
    with pytest.raises(ValueError, match=r"where='layer1\.0\.bn2' has an attribute cbam already"):
        insert_cbam(model, "block")


def test_the_trace_computes_nothing_and_takes_further_arguments():
    model = Odd()
    before = bits(model)
    state = torch.get_rng_state()
    insert_cbam(model, "norm", example=(X,), call={"scale": 0.5})
    found = bits(model)
    assert {name: found[name] for name in before} == before
    assert torch.equal(torch.get_rng_state(), state)


def test_only_the_names_of_a_resnet_are_read():
    """Stages of any number of blocks, in any depth of another model."""

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.ModuleDict({"body": ResNet(BasicBlock, depths=(1, 12))})

        def forward(self, x):
            return self.backbone["body"](x)

    model = insert_cbam(Detector(), ["block", "stem_and_tail"])
    body = [path.removeprefix("backbone.body.") for path in places(model)]
    blocks = ["layer1.0.bn2", *[f"layer2.{number}.bn2" for number in range(12)]]
    assert body == ["relu", *blocks, "layer2"]
