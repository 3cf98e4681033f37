import numpy as np
import pytest
import soundfile as sf
import torch
import torch.nn.functional as F

import contrastasc
from contrastasc.audio import AudioError
from contrastasc.augment import (DeviceImpulseResponse, FreqMask, FreqMixStyle, Mixup, TimeRoll, apply_impulse_response,
                                 freq_mixstyle, load_impulse_responses, make_impulse_response)


def test_measured_responses_from_a_folder(tmp_path):
    for name, rate, n in (("a&b.wav", 44100, 4000), ("c.flac", 48000, 2400)):
        sf.write(tmp_path / name, np.r_[1.0, np.zeros(n - 1)], rate, subtype="PCM_24")
    bank = load_impulse_responses(tmp_path)
    assert bank.shape[0] == 2 and bank.shape[1] == pytest.approx(4000 * 16000 / 44100, abs=2)
    heard = DeviceImpulseResponse(1.0, tmp_path).train()(torch.randn(3, 8000))
    assert heard.shape == (3, 8000) and heard.isfinite().all()


def test_folder_without_responses(tmp_path):
    with pytest.raises(AudioError, match=str(tmp_path)): load_impulse_responses(tmp_path)


def test_shipped_responses_are_the_made_ones():
    bank = load_impulse_responses()
    for s in (0, 17, 31): torch.testing.assert_close(bank[s], make_impulse_response(s), atol=2e-3, rtol=2e-3)


def test_unit_energy_keeps_the_level_of_noise():
    torch.manual_seed(0)
    wave = torch.randn(8, 16000)
    out = DeviceImpulseResponse(1.0, unit_energy=True).train()(wave)
    assert (10 * (out.square().mean(1) / wave.square().mean(1)).log10()).abs().max() < 0.7


def test_probability_zero_and_nobody_concerned():
    wave = torch.randn(4, 1000)
    assert torch.equal(DeviceImpulseResponse(0.0).train()(wave), wave)
    assert torch.equal(DeviceImpulseResponse(1.0).train()(wave, torch.zeros(4, dtype=torch.bool)), wave)


@pytest.mark.parametrize("length", [1, 5, 100])
def test_responses_longer_than_the_clip(length):
    wave, ir = torch.randn(2, length), torch.randn(40)
    expected = torch.stack([torch.from_numpy(np.convolve(w, ir))[:length] for w in wave])
    torch.testing.assert_close(apply_impulse_response(wave, ir), expected, atol=1e-4, rtol=0)


def test_every_augmentation_is_the_identity_in_evaluation():
    wave, spec, target = torch.randn(3, 1000), torch.randn(3, 1, 32, 10), F.one_hot(torch.arange(3), 3).float()
    for m, x in ((TimeRoll(), wave), (DeviceImpulseResponse(1.0), wave), (FreqMask(), spec), (FreqMixStyle(1.0), spec)): assert torch.equal(m.eval()(x), x)
    assert torch.equal(Mixup(1.0).eval()(spec, target)[0], spec)


def test_every_augmentation_is_drawn_from_torchs_seed():
    wave, spec, target = torch.randn(4, 1000), torch.randn(4, 1, 32, 10), F.one_hot(torch.arange(4), 4).float()
    for m, args in ((TimeRoll(), (wave,)), (DeviceImpulseResponse(), (wave,)), (FreqMask(16), (spec,)), (FreqMixStyle(1.0), (spec,)), (Mixup(1.0), (spec, target))):
        outs = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            out = m.train()(*args)
            outs.append(out[0] if isinstance(out, tuple) else out)
        assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2]), m


def test_masks_are_as_wide_as_the_picture_allows():
    torch.manual_seed(0)
    widths = (FreqMask(48, fill=9.0)(torch.zeros(500, 1, 20, 3))[:, 0, :, 0] == 9).sum(1)
    assert widths.max() < 20 and widths.min() == 0
    changed = FreqMask(8, fill=9.0)(torch.zeros(50, 30, 20)) == 9
    assert (changed.all(1) | ~changed.any(1)).all()  # whole bands of [B, T, F]


def test_freq_mixstyle_of_constant_bands_and_one_clip():
    x = torch.ones(2, 1, 4, 6)
    assert freq_mixstyle(x, torch.tensor([0.5, 0.5]), torch.tensor([1, 0])).isfinite().all()
    one = torch.randn(1, 1, 4, 6)
    torch.testing.assert_close(FreqMixStyle(1.0)(one), one, atol=1e-5, rtol=1e-5)


def test_freq_mixstyle_on_fbank_is_per_mel():
    torch.manual_seed(3)
    x = torch.randn(4, 50, 8)
    torch.manual_seed(4); a = FreqMixStyle(1.0)(x)
    torch.manual_seed(4); b = FreqMixStyle(1.0)(x.transpose(1, 2)[:, None])
    torch.testing.assert_close(a, b[:, 0].transpose(1, 2))


def test_mixup_mixes_labels_as_it_mixes_sound():
    torch.manual_seed(0)
    y = torch.eye(64)
    x, mixed = Mixup(0.5)(y.clone(), y)
    torch.testing.assert_close(x, mixed)
    untouched = (mixed.max(1).values == 1).float().mean()
    assert 0.3 < untouched < 0.75 and (mixed.sum(1) - 1).abs().max() < 1e-6
