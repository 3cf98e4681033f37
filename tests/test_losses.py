import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

import contrastasc
from contrastasc.crd import crd_loss, kd_loss, student_loss
from contrastasc.softsupcon import soft_supcon_loss, teacher_loss


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 10_000), st.booleans(), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_soft_supcon_is_finite_for_any_batch(b, c, seed, mix, dtype):
    g = torch.Generator().manual_seed(seed)
    z = (torch.randn(b, 5, generator=g) * 10).to(dtype).requires_grad_()
    y = F.one_hot(torch.randint(c, (b,), generator=g), c).float()
    if mix: y = 0.6 * y + 0.4 * y[torch.randperm(b, generator=g)]
    loss = soft_supcon_loss(z, y)
    loss.backward()
    assert loss.isfinite() and loss >= -1e-4 and z.grad.isfinite().all()


@pytest.mark.parametrize("z", [torch.zeros(4, 3), torch.ones(4, 3) * 1e6, torch.ones(4, 3) * 1e-30])
def test_soft_supcon_of_degenerate_projections(z):
    z = z.requires_grad_()
    loss = soft_supcon_loss(z, F.one_hot(torch.tensor([0, 0, 1, 1]), 2).float())
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.01, 1e-3])
def test_sharp_temperatures(temperature):
    z = torch.randn(16, 8).requires_grad_()
    loss = soft_supcon_loss(z, F.one_hot(torch.arange(16) % 4, 4).float(), temperature) + crd_loss(z, torch.randn(16, 8), temperature)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()


def test_mixed_weights_floor_the_loss():
    "A row's loss cannot fall below -log of its largest weight."
    y = torch.tensor([[0.6, 0.4], [0.6, 0.4]])
    z = torch.ones(2, 3)
    assert torch.allclose(soft_supcon_loss(z, y), -torch.log(torch.tensor(0.52)))


@pytest.mark.parametrize("b", [1, 2, 7])
def test_crd_and_kd_for_small_batches(b):
    k = torch.randn(b, 4, requires_grad=True)
    logits = torch.randn(b, 3, requires_grad=True)
    parts = student_loss(logits, torch.zeros(b, dtype=torch.long), torch.randn(b, 3), k, torch.randn(b, 4))
    parts["loss"].backward()
    assert parts["loss"].isfinite() and k.grad.isfinite().all() and logits.grad.isfinite().all()


def test_autocast_keeps_losses_wide():
    z, y = torch.randn(8, 16), F.one_hot(torch.arange(8) % 2, 2).float()
    with torch.autocast("cpu", torch.bfloat16):
        low = (z @ z.T)
        assert low.dtype == torch.bfloat16
        assert soft_supcon_loss(z, y).dtype == crd_loss(z, z).dtype == kd_loss(low, low).dtype == torch.float32


@pytest.mark.parametrize("call, word", [
    (lambda: soft_supcon_loss(torch.randn(3, 2), torch.randn(4, 2)), "one B"),
    (lambda: soft_supcon_loss(torch.randn(3, 2), torch.eye(3), 0), "temperature"),
    (lambda: crd_loss(torch.randn(3, 2), torch.randn(4, 2)), "two projections"),
    (lambda: kd_loss(torch.randn(3, 2), torch.randn(3, 3)), "two logits"),
    (lambda: kd_loss(torch.randn(3, 2), torch.randn(3, 2), reduction="sum"), "reduction"),
])
def test_wrong_shapes_are_named(call, word):
    with pytest.raises(ValueError, match=word): call()


def test_teacher_loss_ends(): 
    logits, z, y = torch.randn(6, 3), torch.randn(6, 4), F.one_hot(torch.arange(6) % 3, 3).float()
    only = teacher_loss(logits, z, y, weight=1.0)
    assert torch.allclose(only["loss"], F.cross_entropy(logits, y))
