"Masked acoustic-token prediction: tokens, masks, predictor, both rounds."
import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from contrastasc.beats import BEATs, BEATsConfig, load_beats
from contrastasc.pretrain import (DistilledTokenizer, MaskedObjective, Predictor, PretrainConfig, RandomTokenizer,
                                  TokenizerObjective, draw_patches, fit_codes, grid_positions, nearest_codes, patchify, pretrain,
                                  train_tokenizer)
from contrastasc.scenes import SceneSet, load_scenes
from contrastasc.train import TrainConfig


@pytest.fixture(scope="module")
def scenes(): return load_scenes("synth-tau22", split="train").subset(range(64))


@pytest.fixture
def fbank(scenes): return BEATs(BEATsConfig.nano()).fbank(scenes.batch(range(4))["wave"])


SHORT = replace(PretrainConfig(), train=TrainConfig(epochs=2, batch_size=16, lr=1e-3, warmup_epochs=0))


@pytest.mark.parametrize("frames, patches", [(16, 8), (31, 8), (98, 48), (998, 496)])
def test_patches_are_counted_as_beats_counts(frames, patches):
    x = torch.randn(2, frames, 128)
    model = BEATs(BEATsConfig.nano())
    weight = model.patch_embedding.weight.flatten(1)
    assert patchify(x).shape == (2, patches, 256)
    assert torch.allclose(patchify(x) @ weight.T, model.patch_embedding(x[:, None]).flatten(2).mT, atol=1e-4)


def test_tokens_are_the_nearest_arrows(fbank):
    t = RandomTokenizer(codes=32, dim=8, seed=3)
    z = torch.nn.functional.normalize(patchify(fbank - fbank.mean((1, 2), keepdim=True)) @ t.directions.T, dim=-1)
    assert torch.equal(t(fbank), torch.cdist(z.flatten(0, 1).double(), t.points.double()).argmin(1).view(4, 48))
    assert not torch.equal(t(fbank), RandomTokenizer(codes=32, dim=8, seed=4)(fbank))


def test_tokens_do_not_depend_on_the_level(fbank):
    assert (RandomTokenizer()(fbank) == RandomTokenizer()(fbank + 1.5)).float().mean() > 0.99


def test_tokens_do_not_touch_the_dice(fbank):
    torch.manual_seed(5); first = torch.rand(1)
    torch.manual_seed(5); RandomTokenizer()(fbank)
    assert torch.equal(first, torch.rand(1))


@pytest.mark.parametrize("keep", [0.0, 1.0, 0.001, 0.999])
def test_a_mask_needs_both_sides(keep):
    with pytest.raises(ValueError, match="nothing visible or nothing hidden"): draw_patches(2, 48, keep)


def test_masks_differ_between_clips_and_cover_everything():
    visible, hidden = draw_patches(100, 48)
    assert torch.equal(torch.cat([visible, hidden], 1).sort(1).values, torch.arange(48).expand(100, 48))
    assert len({tuple(v) for v in visible.tolist()}) > 90


def test_the_predictor_answers_by_place(fbank):
    "The order in which visible patches are told does not matter, the order in which hidden ones are asked is that of the answers."
    model, (visible, hidden) = BEATs(BEATsConfig.nano()).eval(), draw_patches(4, 48)
    p = Predictor(model.config, codes=50).eval()
    heard, turn, back = torch.randn(4, 12, 192), torch.randperm(12), torch.randperm(36)
    a, b = p(heard, visible, hidden), p(heard[:, turn], visible[:, turn], hidden[:, back])
    assert torch.allclose(a[:, back], b, atol=1e-5)


def test_positions_are_all_different():
    codes = grid_positions(62, 8, 96)
    assert torch.cdist(codes, codes).fill_diagonal_(1).min() > 0.01


def test_the_tokenizer_is_not_trained(scenes):
    model = BEATs(BEATsConfig.nano())
    objective = MaskedObjective(model, DistilledTokenizer(model.config), SHORT).train()
    objective(scenes.batch(range(8)))["loss"].backward()
    assert not objective.tokenizer.training and all(p.grad is None for p in objective.tokenizer.parameters())
    assert all(p.grad is not None for n, p in objective.encoder.named_parameters())


def test_codes_gather_where_the_rows_are():
    torch.manual_seed(0)
    heaps = torch.nn.functional.normalize(torch.eye(8).repeat_interleave(50, 0) + 0.05 * torch.randn(400, 8), dim=1)
    codes = fit_codes(heaps, 64)
    assert torch.allclose(codes.norm(dim=1), torch.ones(64), atol=1e-5)
    assert (heaps * codes[nearest_codes(heaps, codes)]).sum(1).min() > 0.9


def test_more_codes_than_rows():
    rows = torch.nn.functional.normalize(torch.randn(10, 4), dim=1)
    assert fit_codes(rows, 32).isfinite().all()


def test_the_estimator_sees_codes_alone(scenes):
    "Where the directions move without changing a code, the estimate stays."
    model = BEATs(BEATsConfig.nano())
    objective = TokenizerObjective(DistilledTokenizer(model.config, codes=16, dim=8), model).train()
    objective(scenes.batch(range(8)))
    z = objective.tokenizer.directions(model.fbank(scenes.batch(range(2))["wave"]))
    codes = objective.tokenizer.points[nearest_codes(z, objective.tokenizer.points)]
    assert torch.allclose(objective.estimate(codes), objective.estimate(z + (codes - z).detach()), atol=1e-5)


def test_a_teacher_is_left_as_it_was(scenes, tmp_path):
    teacher = BEATs(BEATsConfig.nano())
    before = copy.deepcopy(teacher.state_dict())
    train_tokenizer(scenes, teacher, SHORT, tmp_path, progress=False)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items()) and teacher.patch_embedding.weight.requires_grad


def test_a_stopped_round_goes_on(scenes, tmp_path):
    whole = pretrain(scenes, SHORT, tmp_path / "whole", progress=False)

    class Stops:
        calls, fingerprint = 0, scenes.fingerprint
        def __len__(self): return len(scenes)
        def batch(self, i):
            self.calls += 1
            if self.calls == 6: raise KeyboardInterrupt
            return scenes.batch(i)

    with pytest.raises(KeyboardInterrupt): pretrain(Stops(), SHORT, tmp_path / "parts", progress=False)
    parts = pretrain(scenes, SHORT, tmp_path / "parts", progress=False)
    for k, v in whole.encoder.state_dict().items(): assert torch.equal(v, parts.encoder.state_dict()[k]), k
    read = load_beats(tmp_path / "parts" / "encoder.safetensors")
    assert all(torch.equal(v, read.state_dict()[k]) for k, v in parts.encoder.state_dict().items())


def test_codes_that_nobody_chooses_go_where_somebody_is():
    model = BEATs(BEATsConfig.nano())
    objective = TokenizerObjective(DistilledTokenizer(model.config, codes=8, dim=2), model)
    objective.tokenizer.points.copy_(torch.tensor([[1.0, 0.0]] + [[-1.0, 0.0]] * 7))
    z = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1]]), dim=1).repeat(20, 1)
    for _ in range(400): objective.move_codes(z, nearest_codes(z, objective.tokenizer.points))
    assert objective.tokenizer.points[:, 0].min() > 0.9 and torch.allclose(objective.tokenizer.points.norm(dim=1), torch.ones(8), atol=1e-5)


def test_labels_and_recordings_are_not_asked_for(scenes):
    objective = MaskedObjective(BEATs(BEATsConfig.nano()), RandomTokenizer(), PretrainConfig())
    parts = objective(dict(wave=scenes.batch(range(4))["wave"]))
    assert set(parts) == {"loss", "right"}


def test_a_new_encoder_is_read_by_its_bands_and_a_given_one_as_it_was(scenes, tmp_path):
    new = pretrain(scenes, SHORT, tmp_path, progress=False).encoder
    assert new.config.readout == load_beats(tmp_path / "encoder.safetensors").config.readout == "bands"
    assert new.embed(torch.randn(2, 16000)).shape == (2, 2 * 8 * 192)
    given = pretrain(scenes, SHORT, encoder=BEATs(BEATsConfig.nano()), progress=False).encoder
    assert given.config.readout == "mean"
