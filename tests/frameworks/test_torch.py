"""cbam_torch at home in PyTorch: memory formats, autocast, compile, export, determinism."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from cbam_core import CBAMSpec, parameters, reference
from cbam_torch import CBAM, SpatialAttention, load_canonical, to_canonical
from cbam_torch.ops import GATES, POOLS
from tests import specs
from tests.compare import assert_equal

EVERYTHING = CBAMSpec(
    8,
    hidden=2,
    mlp_bias=True,
    channel_pools=("avg", "max", "lp", "lse"),
    spatial_bias=True,
    spatial_norm=True,
)


def block_of(spec: CBAMSpec, dtype: torch.dtype = torch.float64) -> CBAM:
    block = CBAM.from_spec(spec, dtype=dtype)
    load_canonical(block, specs.weights(spec))
    return block


def first(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def expect(y: torch.Tensor, spec: CBAMSpec, x: np.ndarray, limit: float, **mode: bool) -> None:
    output = reference.run(spec, specs.weights(spec), x, **mode).output
    found = np.moveaxis(y.detach().double().numpy(), 1, -1)
    assert_equal({"output": found}, {"output": output}, limit)


def test_channels_last_memory_gives_the_same_and_keeps_its_format():
    x = specs.feature_map(EVERYTHING)
    block = block_of(EVERYTHING).eval().to(memory_format=torch.channels_last)
    y = block(first(x).to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    expect(y, EVERYTHING, x, 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_gates_in_float32(dtype):
    x = np.round(specs.feature_map(EVERYTHING) * 16) / 16
    block = block_of(EVERYTHING, torch.float32).eval()
    with torch.autocast("cpu", dtype):
        exact = block(first(x).float())
        rounded = block(first(x).to(dtype))
    assert (exact.dtype, rounded.dtype) == (torch.float32, dtype)
    expect(exact, EVERYTHING, x, 2e-6)
    expect(rounded, EVERYTHING, x, torch.finfo(dtype).eps)


def test_autocast_in_a_training_step_gives_finite_float32_gradients():
    block = block_of(EVERYTHING, torch.float32)
    stem = nn.Conv2d(3, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = block(stem(torch.randn(2, 3, 9, 9))).square().mean()
    loss.backward()
    for parameter in [*stem.parameters(), *block.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.compiler
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_compiles_into_one_graph(dynamic, training):
    torch.compiler.reset()
    block = block_of(EVERYTHING).train(training)
    compiled = torch.compile(block, fullgraph=True, dynamic=dynamic)
    sizes = [(2, 6, 9), (3, 7, 5)] if dynamic else [(2, 6, 9)]
    for size in sizes:
        twin = copy.deepcopy(block)
        x = torch.randn(size[0], 8, *size[1:], dtype=torch.float64)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, eager = compiled(ours), twin(theirs)
        torch.testing.assert_close(y, eager, rtol=1e-12, atol=1e-12)
        (y * x).sum().backward()
        (eager * x).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-11)
        if training:
            norms = block.spatial.norm, twin.spatial.norm
            torch.testing.assert_close(
                norms[0].running_var, norms[1].running_var, rtol=1e-12, atol=0
            )
        block.zero_grad()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_exports_with_any_batch_and_size(rank):
    spec = EVERYTHING.replace(rank=rank, kernel_size=3)
    block = block_of(spec).eval()
    dynamic = dict.fromkeys((0, *range(2, rank + 2)), torch.export.Dim.DYNAMIC)
    example = torch.randn(2, 8, *[6] * rank, dtype=torch.float64)
    exported = torch.export.export(block, (example,), dynamic_shapes=(dynamic,))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for batch, size in ((3, 5), (5, 9)):
        x = np.random.default_rng(0).standard_normal((batch, *[size] * rank, 8))
        expect(loaded(first(x)), spec, x, 1e-12)


def test_runs_under_deterministic_algorithms():
    block = block_of(EVERYTHING)
    x = first(specs.feature_map(EVERYTHING))
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(2):
            leaf = x.clone().requires_grad_()
            copy.deepcopy(block)(leaf).square().sum().backward()
            gradients.append(leaf.grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "parallel"])
def test_first_and_second_derivatives(order, training):
    spec = EVERYTHING.replace(channels=3, kernel_size=3, order=order, residual=True)
    block = block_of(spec).train(training)
    x = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    parameters = dict(block.named_parameters())

    def run(x, *values):
        values = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(block, values, (x,), strict=False)

    inputs = (x, *(p.detach().requires_grad_() for p in parameters.values()))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("pool", POOLS)
def test_ties_are_split_evenly(pool):
    x = torch.zeros(1, 4, requires_grad=True, dtype=torch.float64)
    POOLS[pool](x, (1,)).sum().backward()
    expected = 0.0 if pool == "lp" else 0.25
    assert x.grad.tolist() == [[expected] * 4]


@pytest.mark.parametrize(("gate", "kink"), [("hard_sigmoid", 3.0), ("hard_sigmoid_keras2", 2.5)])
def test_kinks_have_no_slope(gate, kink):
    x = torch.tensor([-kink, kink, 0.0], requires_grad=True)
    y = GATES[gate](x)
    y.sum().backward()
    assert y.tolist() == [0.0, 1.0, 0.5]
    assert x.grad[:2].tolist() == [0.0, 0.0]
    assert x.grad[2] > 0.1


def test_sync_batch_norm_takes_the_norm_over():
    block = block_of(EVERYTHING).eval()
    x = specs.feature_map(EVERYTHING)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(block)
    assert isinstance(converted.spatial.norm, nn.SyncBatchNorm)
    assert converted.spatial.norm.momentum == EVERYTHING.norm_momentum
    expect(converted(first(x)), EVERYTHING, x, 1e-12)
    expect(converted.train()(first(x)), EVERYTHING, x, 1e-12, training=True)
    assert set(to_canonical(converted)) == set(specs.weights(EVERYTHING))


def test_a_synchronized_norm_alone_in_the_world_is_one_like_any_other():
    block = CBAM.from_spec(EVERYTHING, dtype=torch.float64, synchronized=True).train()
    load_canonical(block, specs.weights(EVERYTHING))
    x = specs.feature_map(EVERYTHING)
    expect(block(first(x)), EVERYTHING, x, 1e-12, training=True)


def test_a_synchronized_norm_leaves_the_number_of_positions_to_all_processes():
    x = torch.ones(1, 8, 1, 1)
    with pytest.raises(ValueError, match="batch statistics need at least 2"):
        CBAM(8, spatial_norm=True)(x)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        CBAM(8, spatial_norm=True, synchronized=True)(x)


def test_state_dict_round_trip():
    block = block_of(EVERYTHING)
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    other = CBAM.from_spec(EVERYTHING, dtype=torch.float64)
    other.load_state_dict(torch.load(file, weights_only=True))
    for name, array in to_canonical(block).items():
        assert to_canonical(other)[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_norm_stays_in_float32_when_its_module_is_cast(dtype):
    built = CBAM.from_spec(EVERYTHING, dtype=dtype)
    cast = block_of(EVERYTHING, torch.float32).to(dtype)
    for block in (built, cast):
        kinds = {name: tensor.dtype for name, tensor in block.state_dict().items()}
        assert kinds["channel.reduce.weight"] == kinds["spatial.conv.weight"] == dtype
        assert kinds["spatial.norm.running_var"] == kinds["spatial.norm.weight"] == torch.float32
        assert block(torch.randn(2, 8, 5, 5, dtype=dtype)).dtype == dtype
    before = specs.weights(EVERYTHING)["spatial.norm.var"].astype(np.float32)
    again = block_of(EVERYTHING, torch.float32).to(dtype).to(torch.float32)
    assert to_canonical(again)["spatial.norm.var"].tobytes() == before.tobytes()
    assert again.double().spatial.norm.running_var.dtype == torch.float64


def test_device_and_dtype_arguments():
    block = CBAM(8, spatial_norm=True, device="meta", dtype=torch.float64)
    assert {p.device.type for p in block.parameters()} == {"meta"}
    assert {p.dtype for p in block.parameters()} == {torch.float64}
    assert block(torch.empty(2, 8, 5, 5, device="meta", dtype=torch.float64)).shape == (2, 8, 5, 5)


def test_the_seed_of_torch_decides_the_initial_values():
    def drawn(seed):
        torch.manual_seed(seed)
        return to_canonical(CBAM(8, mlp_bias=True))

    assert all(np.array_equal(array, drawn(0)[name]) for name, array in drawn(0).items())
    assert not np.array_equal(drawn(0)["spatial.conv.kernel"], drawn(1)["spatial.conv.kernel"])


def test_only_parameters_train():
    block = CBAM.from_spec(EVERYTHING)
    assert sum(p.numel() for p in block.parameters()) == parameters(EVERYTHING)


def test_vmap_over_an_ensemble_of_inputs():
    block = block_of(EVERYTHING).eval()
    x = torch.randn(3, 2, 8, 5, 5, dtype=torch.float64)
    mapped = torch.func.vmap(block)(x)
    torch.testing.assert_close(mapped, torch.stack([block(one) for one in x]))


def test_it_trains():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        CBAM(8, spatial_norm=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    x = torch.randn(32, 1, 8, 8)
    labels = (x.mean((1, 2, 3)) > 0).long()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(model(x), labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_gate_without_a_norm_has_no_mode():
    attention = SpatialAttention(8)
    x = torch.randn(1, 8, 1, 1)
    assert torch.equal(attention.train()(x), attention.eval()(x))
