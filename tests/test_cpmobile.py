import pytest
import torch

import contrastasc
from contrastasc.cpmobile import CPMobile, Student, count_parameters
from contrastasc.frontend import LogMel


@pytest.mark.parametrize("norm, extra", [("layer", 64), ("batch", 64), ("none", 0)])
def test_norms(norm, extra):
    model = CPMobile("cpm6k", norm=norm)
    assert count_parameters(model) == 5746 + extra + 320
    x = torch.randn(3, 1, 256, 64)
    pooled, normed = model.embed(x), model.embed(x, normed=True)
    assert torch.equal(pooled, normed) == (norm == "none")
    torch.testing.assert_close(model.head(normed), model.train()(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kwargs, word", [(dict(variant="cpm7k"), "cpm6k"), (dict(head="linear"), "head"), (dict(norm="group"), "norm")])
def test_wrong_arguments(kwargs, word):
    with pytest.raises(ValueError, match=word): CPMobile(**kwargs)


def test_free_sizes_and_small_multiplier():
    "When stages do not widen, transition blocks keep a shortcut and the net still runs."
    model = CPMobile(dict(base_channels=8, channels_multiplier=1.0, expansion_rate=2.0), n_classes=3)
    assert all(b.residual for stage in model.stages for b in stage) and model(torch.randn(2, 1, 256, 64)).shape == (2, 3)


def test_student_at_32_khz_and_longer_clips():
    student = Student(LogMel(32000), "cpm6k").eval()
    assert student.sample_rate == 32000 and student.embed(torch.randn(1, 64000)).shape == (1, 32)


def test_bfloat16_is_finite():
    model = CPMobile("cpm12k")
    with torch.autocast("cpu", torch.bfloat16): assert model(torch.randn(4, 1, 256, 64)).isfinite().all()
