"""What a dialect can say of a block: refusals with their reasons, offers, and names in a file."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

import cbam_core
from cbam_core import DIALECTS, CBAMSpec, CheckpointError, reference
from cbam_core.expression import express, fold_norm, spell
from tests import specs
from tests.compare import assert_equal
from tests.core.test_blocks import find

BIASED = CBAMSpec.preset("elbuco1", 8, hidden=2)
NORMED = CBAMSpec.preset("osmr", 8, hidden=2)
PAIR = CBAMSpec.preset("timm_se", 8, hidden=2)
PLAIN = CBAMSpec(8, hidden=2)

REFUSALS = {
    "norm": (NORMED, "seed_tf1", "spatial_norm=True: seed_tf1 has none; --fold folds it into the "
        "biased convolution, which is exact in evaluation"),
    "norm, and no bias to fold it into": (NORMED, "kobiso", "spatial_norm=True: kobiso has none"),
    "norm, whatever its momentum": (NORMED.replace(norm_momentum=0.01), "kobiso",
        "spatial_norm=True: kobiso has none"),
    "no norm": (PLAIN, "timm", "spatial_norm=False: timm always has one"),
    "bias of the MLP": (PAIR, "senet", "mlp_bias=True: senet has none"),
    "bias of the convolution": (PLAIN.replace(spatial_bias=True), "luuuyi",
        "spatial_bias=True: luuuyi has none"),
    "no bias": (PLAIN, "kobiso", "mlp_bias=False: kobiso always has one; --fill writes zeros, "
        "which is exact"),
    "gate": (PLAIN.replace(gate="hard_sigmoid"), "luuuyi",
        "gate='hard_sigmoid': luuuyi has 'sigmoid'"),
    "order": (PLAIN.replace(order="parallel"), "luuuyi",
        "order='parallel': luuuyi has 'channel_spatial'"),
    "a gate too much": (PLAIN, "senet", "order='channel_spatial': senet has the channel gate"),
    "a gate too few": (PAIR, "mmyolo",
        "order='channel': mmyolo has the channel and the spatial gate"),
    "pools": (PLAIN.replace(channel_pools=("avg",)), "luuuyi",
        "channel_pools=('avg',): luuuyi has ('avg', 'max')"),
    "residual": (PLAIN.replace(residual=True), "luuuyi", "residual=True: luuuyi has False"),
    "no residual": (BIASED.replace(mlp_bias=False), "xmu", "residual=False: xmu has True"),
    "one map": (PLAIN.replace(pooling="light"), "luuuyi",
        "pooling='light': luuuyi has 'separate'"),
    "another descriptor": (PLAIN.replace(spatial_descriptor="conv"), "luuuyi",
        "spatial_descriptor='conv': luuuyi has 'pool'"),
    "eps": (NORMED.replace(norm_eps=1e-3), "osmr", "norm_eps=0.001: osmr has 1e-05"),
    "momentum": (NORMED, "official", "norm_momentum=0.1: official has 0.01, which matters in "
        "training alone; pass norm_momentum=0.01 (--set norm_momentum=0.01) to read it so"),
    "layers without names": (CBAMSpec.preset("kobiso", 8, hidden=9), "kobiso_keras",
        "hidden=9: kobiso_keras has layers without names, and only one that narrows the 8 "
        "channels tells an MLP"),
    "look-alike": (PLAIN, "ultralytics", "it is not the paper's CBAM: its channel gate takes the "
        "average pool alone through one layer, without the maximum and without the hidden layer "
        "of the paper's"),
    "look-alike without names": (PLAIN, "unshared_mlp", "it is not the paper's CBAM: the average "
        "and the maximum go through MLPs of their own, and CBAM has one that they share"),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "target", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_what_a_dialect_can_t_express_is_refused_with_the_reason(spec, target, reason):
    with pytest.raises(ValueError, match="can't express it") as caught:
        express(spec, specs.weights(spec), DIALECTS[target])
    assert str(caught.value) == f"{target} can't express it:\n  {reason}"


def test_all_reasons_are_told_at_once(tmp_path):
    spec = CBAMSpec(8, hidden=2, spatial_norm=True, gate="hard_sigmoid", residual=True)
    cbam_core.write(tmp_path / "a.safetensors", specs.weights(spec), spec)
    with pytest.raises(CheckpointError) as caught:
        cbam_core.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="kobiso")
    assert str(caught.value) == (
        f"{tmp_path / 'a.safetensors'}: the block at '': kobiso can't express it:\n"
        "  spatial_norm=True: kobiso has none\n"
        "  mlp_bias=False: kobiso always has one; --fill writes zeros, which is exact\n"
        "  gate='hard_sigmoid': kobiso has 'sigmoid'\n"
        "  residual=True: kobiso has False"
    )
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_folded_norm_computes_the_same(bias, rank):
    lean = CBAMSpec(6, hidden=2, spatial_bias=True, kernel_size=3, rank=rank)
    spec = lean.replace(spatial_bias=bias, spatial_norm=True, norm_eps=0.1, norm_momentum=0.01)
    weights = specs.weights(spec)
    folded, fewer = fold_norm(spec, weights)
    assert folded == lean
    x = specs.feature_map(spec)
    outputs = [reference.run(*block, x).output for block in ((spec, weights), (folded, fewer))]
    assert_equal({"output": outputs[1]}, {"output": outputs[0]}, 1e-12)


def test_offers_make_a_refused_block_expressible():
    spec = CBAMSpec(8, hidden=2, spatial_norm=True)
    weights = specs.weights(spec)
    given, filled = express(spec, weights, DIALECTS["seed_tf1"], fold=True, fill=True)
    assert given == CBAMSpec(8, hidden=2, mlp_bias=True, spatial_bias=True)
    assert not filled["channel.reduce.bias"].any()
    assert filled["channel.reduce.bias"].dtype == weights["channel.reduce.kernel"].dtype
    x = specs.feature_map(spec)
    expected = reference.run(spec, weights, x).output
    assert_equal({"output": reference.run(given, filled, x).output}, {"output": expected}, 1e-12)


def test_an_offer_that_nothing_asks_for_changes_nothing():
    weights = specs.weights(NORMED)
    spec, same = express(NORMED, weights, DIALECTS["osmr"], fold=True, fill=True)
    assert (spec, same) == (NORMED, weights)


def blocks(spec: CBAMSpec, *paths: str):
    return {path: (spec, specs.weights(spec, seed)) for seed, path in enumerate(paths)}


@pytest.mark.parametrize(
    ("target", "path", "names"),
    [
        ("luuuyi", "", ["ca.fc.0.weight", "ca.fc.2.weight", "sa.conv1.weight"]),
        ("luuuyi", "#1", ["ca1.fc.0.weight", "ca1.fc.2.weight", "sa1.conv1.weight"]),
        (
            "luuuyi",
            "layer1.0#2",
            ["layer1.0.ca2.fc.0.weight", "layer1.0.ca2.fc.2.weight", "layer1.0.sa2.conv1.weight"],
        ),
        (
            "cbam_flax",
            "stage.block",
            [
                "stage/block/ca/mlp/Conv_0/kernel",
                "stage/block/ca/mlp/Conv_1/kernel",
                "stage/block/sa/Conv_0/kernel",
            ],
        ),
        (
            "canonical",
            "#1",
            ["#1.channel.reduce.kernel", "#1.channel.expand.kernel", "#1.spatial.conv.kernel"],
        ),
    ],
)
def test_a_path_stands_in_front_of_the_names(target, path, names):
    assert list(spell(blocks(PLAIN, path), DIALECTS[target])) == names


def test_layers_without_names_are_numbered_block_by_block():
    spec = CBAMSpec.preset("keras", 8, hidden=2)
    arrays = spell(blocks(spec, "layer1.0.cbam", "layer1.1.cbam"), DIALECTS["keras"])
    assert list(arrays) == [
        "dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias", "conv2d/kernel",
        "dense_2/kernel", "dense_2/bias", "dense_3/kernel", "dense_3/bias", "conv2d_1/kernel",
    ]  # fmt: skip
    spec = CBAMSpec.preset("seed_tf1", 8, hidden=2)
    assert list(spell(blocks(spec, "a.b", "c"), DIALECTS["seed_tf1"]))[4:7] == [
        "a/b/conv2d/kernel",
        "a/b/conv2d/bias",
        "c/CA1/kernel",
    ]


@pytest.mark.parametrize("target", ["official", "keras", "seed_tf1", "canonical", "cbam_torch"])
def test_each_of_many_blocks_keeps_its_own_weights(tmp_path, target):
    """Through a safetensors file, which sorts its names, with dtypes that sort them further."""
    fields = {f: v for f, v in DIALECTS[target].fields.items() if f != "reduction"}
    dtypes = (np.float32, np.float64, np.float16)
    written = {}
    for index in range(13):
        spec = CBAMSpec(8 + index, hidden=2, **fields)
        weights = specs.weights(spec, index)
        dtype = {n: dtypes[(index + len(n)) % 3] for n in weights}
        written[f"layer{index}.cbam"] = (spec, {n: w.astype(dtype[n]) for n, w in weights.items()})
    path = tmp_path / "many.safetensors"
    safetensors.numpy.save_file(
        {n: np.ascontiguousarray(a) for n, a in spell(written, DIALECTS[target]).items()}, path
    )
    found = cbam_core.read(path, target)
    assert not found.rest
    by_channels = {block.spec.channels: block for block in found.blocks.values()}
    assert len(by_channels) == 13
    for spec, weights in written.values():
        block = by_channels[spec.channels]
        assert all(block.weights[n].tobytes() == weights[n].tobytes() for n in weights)


def test_numbered_gates_survive_a_way_round(tmp_path):
    arrays = spell(blocks(PLAIN, "#0", "#1"), DIALECTS["luuuyi"])
    path, there, back = (tmp_path / f"{name}.safetensors" for name in ("a", "b", "c"))
    safetensors.numpy.save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, path)
    for target, dialect, result in ((there, "canonical", "#0, #1"), (back, "luuuyi", "#0, #1")):
        done = cbam_core.convert(path, target, to=dialect)
        assert ", ".join(done.blocks) == result
        path = target
    again = safetensors.numpy.load_file(back)
    assert set(again) == set(arrays)
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


def test_the_rest_goes_along_where_it_is_asked_for(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    arrays = spell(blocks(PLAIN, "layer1.0"), DIALECTS["luuuyi"])
    other = {"conv1.weight": np.ones((8, 3, 3, 3)), "optimizer/state/0/step": np.ones(())}
    save = {n: np.ascontiguousarray(a) for n, a in (arrays | other).items()}
    safetensors.numpy.save_file(save, source)
    done = cbam_core.convert(source, target, to="seed_torch")
    assert (sorted(done.dropped), done.carried) == (sorted(other), [])
    done = cbam_core.convert(source, target, to="seed_torch", keep_rest=True)
    assert (sorted(done.carried), done.dropped) == (sorted(other), [])
    kept = safetensors.numpy.load_file(target)
    assert set(kept) == {
        "layer1.0.ca.mlp.0.weight", "layer1.0.ca.mlp.2.weight", "layer1.0.sa.conv1.weight", *other,
    }  # fmt: skip
    assert list(find(kept)[0]) == ["layer1.0"]


def test_what_goes_along_with_a_network_is_loaded_as_before(tmp_path):
    """Blocks stay in the nesting, and behind the prefix, in which the rest of the network is."""
    around, rest = "state_dict/module.", {"optimizer/state/0/step": np.ones(())}
    arrays = spell(blocks(PLAIN, "layer1.0", "layer1.1"), DIALECTS["luuuyi"])
    arrays |= {"conv1.weight": np.ones((8, 3, 3, 3))}
    old = rest | {around + name: np.ascontiguousarray(a) for name, a in arrays.items()}
    paths = [tmp_path / f"{name}.safetensors" for name in "abcd"]
    safetensors.numpy.save_file(old, paths[0])
    for number, to in enumerate(("seed_torch", "canonical", "luuuyi"), 1):
        cbam_core.convert(paths[number - 1], paths[number], to=to, keep_rest=True)
        found = cbam_core.read(paths[number])
        assert list(found.blocks) == ["layer1.0", "layer1.1"]
        assert set(found.rest) == {*rest, "state_dict/module.conv1.weight"}
    assert f"{around}layer1.0.ca.mlp.0.weight" in safetensors.numpy.load_file(paths[1])
    again = safetensors.numpy.load_file(paths[3])
    assert set(again) == set(old)
    assert all(np.array_equal(again[name], old[name]) for name in old)
    cbam_core.convert(paths[0], tmp_path / "alone.safetensors", to="seed_torch")
    alone = safetensors.numpy.load_file(tmp_path / "alone.safetensors")
    assert not any(name.startswith(around) for name in alone)


def test_the_batches_that_a_norm_has_seen_are_carried(tmp_path):
    arrays = spell(blocks(NORMED, "cbam"), DIALECTS["osmr"])
    arrays |= {"cbam.sp_gate.conv.bn.num_batches_tracked": np.array(7)}
    save = {n: np.ascontiguousarray(a) for n, a in arrays.items()}
    safetensors.numpy.save_file(save, tmp_path / "a.safetensors")
    cbam_core.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="osmr")
    again = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    assert set(again) == set(save)
    assert all(again[name].tobytes() == save[name].tobytes() for name in save)


def test_a_target_is_one_dialect():
    with pytest.raises(ValueError, match="to='official, timm' is several dialects; pass one"):
        cbam_core.convert("a", "b.safetensors", to="official, timm")
    with pytest.raises(ValueError, match="to='x' is unknown; choose from canonical, nested, "):
        cbam_core.convert("a", "b.safetensors", to="x")
