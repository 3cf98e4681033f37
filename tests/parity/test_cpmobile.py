import pytest
import torch
import torch.nn.functional as F

import contrastasc
from contrastasc.cpmobile import VARIANTS, CPMobile, count_macs, count_parameters


@pytest.fixture(params=VARIANTS)
def case(request, fixture):
    d = fixture(f"cpmobile_{request.param}")
    model = CPMobile(request.param, head="conv")
    model.load_state_dict(d.under("weights/"))
    return model, d


def close(a, b, tol=1e-5): torch.testing.assert_close(a, b, atol=tol, rtol=1e-5)


def test_evaluation(case):
    model, d = case
    model.eval()
    with torch.no_grad():
        body = model.body(d["inputs/spec"])
        close(body, d["eval/body"]); close(model.embed(d["inputs/spec"]), d["eval/pooled"]); close(model(d["inputs/spec"]), d["eval/logits"])
        x = model.in_c(d["inputs/spec"])
        close(x.mean((2, 3)), d["eval/in_c_mean_chw"])
        for s, stage in enumerate(model.stages, 1):
            x = stage(x)
            close(x.mean((2, 3)), d[f"eval/stage{s}_chan_mean"]); close(x.std((2, 3)), d[f"eval/stage{s}_chan_std"])


def test_training(case):
    model, d = case
    x = d["inputs/spec"].clone().requires_grad_()
    logits = model.train()(x)
    close(logits, d["train/logits"])
    loss = F.cross_entropy(logits, d["inputs/labels"])
    close(loss, d["train/ce_loss"].reshape(()))
    loss.backward()
    torch.testing.assert_close(x.grad.abs().mean(), d["train/grad_input_absmean"].reshape(()), atol=1e-8, rtol=1e-4)
    grads = {k: p.grad for k, p in model.named_parameters()}
    for k, norm in d.under("train/gradnorm/").items(): torch.testing.assert_close(grads[k].norm(), norm.reshape(()), atol=1e-6, rtol=2e-4)
    for k, grad in d.under("train/grad/").items(): torch.testing.assert_close(grads[k], grad, atol=1e-5, rtol=1e-3)
    buffers = dict(model.named_buffers())
    for k, after in d.under("train/buffers_after/").items(): torch.testing.assert_close(buffers[k], after, atol=1e-5, rtol=1e-5)


# name: (parameters, multiply-adds) of the original, (parameters, multiply-adds, embedding) with the paper's head
COUNTS = {
    "cpm6k": (6_086, 1_460_224, 6_130, 1_419_584, 32),
    "cpm12k": (12_892, 4_128_768, 12_952, 4_077_968, 40),
    "cpm30k": (31_058, 9_289_728, 31_150, 9_218_608, 56),
    "cpm54k": (55_464, 16_336_896, 55_636, 16_214_976, 96),
    "cpm126k": (126_952, 28_889_088, 127_268, 28_675_728, 168),
}
# fused: each convolution takes the bias of its batch normalisation; the original's published size
FUSED = {"cpm6k": 5_722, "cpm12k": 12_310, "cpm30k": 30_106, "cpm54k": 54_182, "cpm126k": 124_862}


@pytest.mark.parametrize("name", VARIANTS)
def test_counts(name, fixture):
    spec = torch.randn(1, 1, 256, 64)
    original, ours = CPMobile(name, head="conv"), CPMobile(name)
    counted = (count_parameters(original), sum(count_macs(original, spec).values()), count_parameters(ours), sum(count_macs(ours, spec).values()), ours.embed_dim)
    assert counted == COUNTS[name]
    norms = sum(m.num_features for m in original.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert count_parameters(original) - norms == FUSED[name]
    assert set(original.state_dict()) == set(fixture(f"cpmobile_{name}").under("weights/"))


# multiply-adds as torchinfo counts them (it adds the parameters of batch normalisation once), by picture, and with biases after fusion
TORCHINFO = {
    (256, 64): dict(cpm6k=1_460_952, cpm12k=4_129_932, cpm30k=9_291_632, cpm54k=16_339_460, cpm126k=28_893_268),
    (256, 65): dict(cpm6k=1_593_560, cpm12k=4_478_604, cpm30k=10_100_336, cpm54k=17_776_388, cpm126k=31_684_180),
    (128, 64): dict(cpm6k=730_840, cpm12k=2_065_548, cpm30k=4_646_768, cpm54k=8_171_012, cpm126k=14_448_724),
}
FUSED_MACS = dict(cpm6k=1_582_336, cpm12k=4_354_304, cpm30k=9_638_144, cpm54k=16_803_072, cpm126k=29_561_088)


@pytest.mark.parametrize("name", VARIANTS)
def test_published_multiply_adds(name):
    model = CPMobile(name, head="conv").eval()
    norms = sum(m.num_features for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    for size, published in TORCHINFO.items():
        assert sum(count_macs(model, torch.randn(1, 1, *size)).values()) + 2 * norms == published[name]
    outputs = []
    for m in model.modules():
        if isinstance(m, torch.nn.Conv2d): m.register_forward_hook(lambda m, x, y: outputs.append(y.numel()))
    assert sum(count_macs(model, torch.randn(1, 1, 256, 64)).values()) + sum(outputs) == FUSED_MACS[name]
