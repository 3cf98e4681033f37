import pytest
import torch

import contrastasc
from contrastasc.augment import TimeRoll, apply_impulse_response, freq_mixstyle


@pytest.mark.parametrize("case", ["a", "b"])
def test_freq_mixstyle(fixture, case):
    d = fixture("freq_mixstyle").under(case + "/")
    x = d["x"].requires_grad_()
    y = freq_mixstyle(x, d["lam"].flatten(), d["perm"])
    torch.testing.assert_close(y, d["y"], atol=2e-6, rtol=0)
    (y * d["w"]).sum().backward()
    torch.testing.assert_close(x.grad, d["grad_x_of_sum_yw"], atol=2e-6, rtol=0)


def test_impulse_response(fixture):
    d = fixture("dir_roll")
    torch.testing.assert_close(apply_impulse_response(d["wave"], d["ir"][0]), d["out"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift, key", [(37, "rolled_p37"), (-912, "rolled_m912")])
def test_roll(fixture, monkeypatch, shift, key):
    d = fixture("dir_roll")
    monkeypatch.setattr(torch, "randint", lambda low, high, size, **kw: torch.full(size, shift))
    assert torch.equal(TimeRoll(1600)(d["wave"]), d[key])
