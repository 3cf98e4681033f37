import torch

import contrastasc
from contrastasc.train import cosine_warmup, ramp_hold_decay


def same(values, expected): torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), expected, atol=1e-12, rtol=0)


def test_cosine(fixture):
    d = fixture("lr_schedules")
    same([cosine_warmup(e, 75, 7) for e in range(76)], d["cosine_warmup_epochs"])
    same([cosine_warmup(s, 75 * 11, 7 * 11) for s in range(826)], d["cosine_warmup_steps"])


def test_original_schedules(fixture):
    d = fixture("lr_schedules")
    same([ramp_hold_decay(e) for e in range(150)], d["cpjku_student_epoch_factor"])
    same([ramp_hold_decay(e, 3, 3, 10, 0.01) for e in range(25)], d["cpjku_passt_epoch_factor"])
