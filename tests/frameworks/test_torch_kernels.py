"""The native kernels within torch: when they run, and what autograd makes of them."""

from __future__ import annotations

import contextlib
import warnings

import pytest
import torch
from torch.func import grad, jvp, vmap
from torch.utils.checkpoint import checkpoint

from cbam_torch import CBAM, ops

ORDERS = ["channel_spatial", "spatial_channel", "parallel", "channel", "spatial"]


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    monkeypatch.setenv("CBAM_KERNELS", "always")


@pytest.fixture
def block():
    torch.manual_seed(0)
    return CBAM(6, reduction=2, kernel_size=3).double().eval()


@pytest.fixture
def x():
    return torch.randn(3, 6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------------------- which path runs


@pytest.mark.compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("space", [(7,), (4, 5), (2, 3, 4)])
def test_they_run_where_channels_come_first_or_last(dtype, space):
    x = torch.ones(2, 6, *space, dtype=dtype)
    assert ops.path(x) == "native"
    assert ops.path(x.movedim(1, -1).contiguous().movedim(-1, 1)) == "native"


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(2, 6, 4, 5, dtype=torch.float16),
        torch.ones(2, 6, 4, 5).transpose(2, 3),
        torch.ones(2, 6, 4, 10)[..., ::2],
        torch.ones(0, 6, 4, 5),
        torch.ones(2, 6, 4, 5, device="meta"),
    ],
    ids=["float16", "transposed", "strided", "empty", "meta"],
)
def test_the_composition_runs_on_what_they_do_not_know(x):
    assert ops.path(x) == "composition"
    assert CBAM(6, device=x.device)(x).shape == x.shape


@pytest.mark.compiler
def test_small_maps_are_left_to_the_composition(monkeypatch):
    monkeypatch.setenv("CBAM_KERNELS", "on")
    assert ops.path(torch.ones(1, 64, 7, 7)) == "composition"
    assert ops.path(torch.ones(8, 64, 16, 16)) == "native"


def test_an_unknown_setting_is_refused(monkeypatch, block, x):
    monkeypatch.setenv("CBAM_KERNELS", "no")
    with pytest.raises(ValueError, match="CBAM_KERNELS='no' is unknown; choose from 'on', 'off'"):
        block(x)


# ---------------------------------------------------------------------------------- what runs on it


@pytest.mark.compiler
@pytest.mark.parametrize("order", ORDERS)
def test_gradients_and_their_gradients_are_finite_differences(order):
    torch.manual_seed(0)
    block = CBAM(4, reduction=2, order=order, kernel_size=3, residual=order == "parallel").double()
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert ops.path(x) == "native"
    assert torch.autograd.gradcheck(block, x)
    assert torch.autograd.gradgradcheck(block, x)


def gradients(block, x, run=None):
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = block(leaf) if run is None else run(leaf)
    wanted = [leaf, *(p for p in block.parameters() if p.requires_grad)]
    return [y, *torch.autograd.grad(y.square().sum(), wanted)]


def assert_close(found, right):
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.compiler
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_block_keeps_them_as_nodes(block, x, dynamic):
    torch.compiler.reset()
    nodes = []

    def backend(graph, inputs):
        nodes.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    with torch.no_grad():
        torch.compile(block, backend=backend, fullgraph=True, dynamic=dynamic)(x)
    ours = [node.removesuffix(".default") for node in nodes if "cbam" in node]
    assert ours == ["cbam.pool", "cbam.pool", "cbam.scale"]
    compiled = torch.compile(block, fullgraph=True, dynamic=dynamic)
    assert_close(gradients(block, x, compiled), gradients(block, x))


@pytest.mark.compiler
def test_the_operations_are_registered_as_torch_wants_them(x):
    gate = torch.rand(3, 6, 1, 1, dtype=torch.float64)
    _, most, ties = torch.ops.cbam.pool(x, gate, False)
    small = torch.randn_like(most)
    calls = {
        torch.ops.cbam.pool: (x, gate, False),
        torch.ops.cbam.pool_backward: (
            x, gate, most, ties, small, small, x, False, True, True,
        ),
        torch.ops.cbam.scale: (x, gate, None, True),
        torch.ops.cbam.scale_backward: (x, gate, None, True, x, True, True, False),
    }  # fmt: skip
    for operation, arguments in calls.items():
        assert set(torch.library.opcheck(operation.default, arguments).values()) == {"SUCCESS"}


def test_export_and_tracing_see_plain_operations(block, x):
    exported = torch.export.export(block, (x,))
    assert not [node for node in exported.graph.nodes if "cbam" in str(node.target)]
    assert_close([exported.module()(x)], [block(x)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_close([torch.jit.trace(block, x)(x)], [block(x)])


def test_transforms_of_functions_see_plain_operations(block, x):
    assert_close([vmap(lambda one: block(one[None])[0])(x)], [block(x)])
    assert_close([grad(lambda x: block(x).square().sum())(x)], [gradients(block, x)[1]])
    _, slope = jvp(block, (x,), (torch.ones_like(x),))
    step = 1e-6 * torch.ones_like(x)
    difference = (block(x + step) - block(x - step)) / 2e-6
    torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "watch",
    [
        torch.autograd.graph.save_on_cpu,
        lambda: torch.autograd.detect_anomaly(check_nan=True),
        contextlib.nullcontext,
    ],
    ids=["saved tensor hooks", "anomaly mode", "twice"],
)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_a_backward_pass_can_be_watched_and_repeated(block, x, watch):
    right = gradients(block, x)
    with watch():
        leaf = x.clone().requires_grad_()
        y = block(leaf)
        loss = y.square().sum()
        wanted = [leaf, *block.parameters()]
        first = torch.autograd.grad(loss, wanted, retain_graph=True)
        again = torch.autograd.grad(loss, wanted)
    assert_close([y, *first], right)
    assert_close(again, first)


def test_checkpointing_computes_the_same(block, x):
    again = gradients(block, x, lambda leaf: checkpoint(block, leaf, use_reentrant=False))
    assert_close(again, gradients(block, x))


@pytest.mark.parametrize("frozen", [["channel"], ["spatial"], ["channel", "spatial"]])
def test_frozen_gates_leave_the_other_gradients(block, x, frozen):
    for name in frozen:
        block.get_submodule(name).requires_grad_(False)
    plain = CBAM.from_spec(block.spec, kernels=False).double().eval()
    plain.load_state_dict(block.state_dict())
    for name in frozen:
        plain.get_submodule(name).requires_grad_(False)
    assert_close(gradients(block, x), gradients(plain, x))


def test_an_input_without_gradient_leaves_those_of_the_weights(block, x):
    right = gradients(block, x)[2:]
    found = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    assert_close(found, right)


def test_a_gradient_that_somebody_else_holds_is_not_changed(x):
    leaf = x.clone().requires_grad_()
    handed_on, (avg, _) = ops.pool_space(leaf, ("avg", "max"))
    d_y = torch.ones_like(x)
    torch.autograd.backward([handed_on, avg], [d_y, torch.ones_like(avg)])
    assert torch.equal(d_y, torch.ones_like(x))
    torch.testing.assert_close(leaf.grad, torch.full_like(x, 1 + 1 / 20))
