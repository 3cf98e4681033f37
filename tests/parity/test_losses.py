import pytest
import torch
import torch.nn.functional as F

import contrastasc
from contrastasc.crd import crd_loss, kd_loss, student_loss
from contrastasc.softsupcon import CosineHead, soft_supcon_loss, teacher_loss


@pytest.fixture(scope="module")
def d(fixture): return fixture("losses_float64")


def same(value, expected, tol=1e-9): torch.testing.assert_close(value.detach().reshape(-1), expected.double().reshape(-1), atol=tol, rtol=0)


CASES = {"onehot": ("z", "onehot"), "mix": ("z", "ymix"), "lonely": ("zlonely", "ylonely")}


def inputs(d, case):
    "Projections and label vectors of a Soft-SupCon case."
    z, y = (d[f"softsupcon/{name}"] for name in CASES[case])
    return z.clone().requires_grad_(), y


@pytest.mark.parametrize("case", ["onehot", "mix", "lonely"])
def test_soft_supcon(d, case):
    z, y = inputs(d, case)
    loss = soft_supcon_loss(z, y)
    same(loss, d[f"softsupcon/{case}/eq1/mean_over_valid"])
    loss.backward()
    torch.testing.assert_close(z.grad, d[f"softsupcon/{case}/eq1/grad_z_of_mean_over_valid"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_row_normalisation_does_not_change_the_gradient(d, case):
    "Scaling a row of weights moves the loss by a constant: the row-normalised reference has our gradient."
    z, y = inputs(d, case)
    soft_supcon_loss(z, y).backward()
    torch.testing.assert_close(z.grad, d[f"softsupcon/{case}/norm/grad_z_of_mean_over_valid"], atol=1e-6, rtol=0)


def test_heads(d):
    z = d["softsupcon/z"]
    head = CosineHead(8, 5).double()
    head.weight.data = d["heads/W"]
    same(head(z), d["heads/cosine_logits_gamma56"])
    same(F.cross_entropy(d["heads/logits"], d["softsupcon/labels"]), d["heads/ce_hard_mean"])
    same(F.cross_entropy(d["heads/logits"], d["softsupcon/ymix"]), d["heads/ce_mix_mean"])


@pytest.mark.parametrize("temperature", [2, 4])
def test_kd(d, temperature):
    student, teacher = d["heads/logits"], d["heads/teacher_logits"]
    same(kd_loss(student, teacher, temperature), d[f"kd/T{temperature}/batchmean_T2"])
    same(kd_loss(student, teacher, temperature), d[f"kd/T{temperature}/repdistiller"])
    same(kd_loss(student, teacher, temperature, "mean"), d[f"kd/T{temperature}/elementmean_T2_cpjku"])
    same(kd_loss(student, teacher, temperature, "mean"), d[f"kd/T{temperature}/cpjku_torch"])


@pytest.mark.parametrize("temperature", ["0.07", "0.5"])
def test_crd(d, temperature):
    k, q = d["crd/student_proj"].clone().requires_grad_(), d["crd/teacher_proj"].clone().requires_grad_()
    loss = crd_loss(k, q, float(temperature))
    same(loss, d[f"crd/tau{temperature}/mean"])
    loss.backward()
    torch.testing.assert_close(k.grad, d[f"crd/tau{temperature}/grad_student_proj"], atol=1e-6, rtol=0)
    assert q.grad is None


def test_equation_2(d):
    z, y = d["softsupcon/z"], d["softsupcon/ymix"]
    same(teacher_loss(d["heads/logits"], z, y)["loss"], d["eq2/lambda0.25"])


@pytest.mark.parametrize("reduction, key", [("batchmean", "batchmean_T2"), ("mean", "elementmean_T2_cpjku")])
def test_equation_4(d, reduction, key):
    student, teacher, labels = d["heads/logits"], d["heads/teacher_logits"], d["softsupcon/labels"]
    parts = student_loss(student, labels, teacher, d["crd/student_proj"], d["crd/teacher_proj"], reduction=reduction)
    same(parts["loss"], d[f"eq4/alpha0.02_beta0.1/{key}"])


def test_in_batch_crd_is_not_the_memory_bank(fixture):
    "RepDistiller's CRD is a binary NCE against a memory bank: on the same features it has another value, as chapter 09 says."
    d = fixture("repdistiller_crd")
    student = F.linear(d["f_s"], d["init/embed_s.linear.weight"], d["init/embed_s.linear.bias"])
    teacher = F.linear(d["f_t"], d["init/embed_t.linear.weight"], d["init/embed_t.linear.bias"])
    assert abs(crd_loss(student, teacher) - d["loss"]) > 1
