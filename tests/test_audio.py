"""Edge cases of `contrastasc.audio`: every container, every kind of damage, window arithmetic, atomic writing."""
import errno
import math
import os
import struct
from pathlib import Path

import contrastasc
import numpy as np
import pytest
import soundfile as sf
import torch
from contrastasc.audio import AudioError, AudioInfo, audio_info, cut_windows, read_audio, resample, write_audio
from hypothesis import given, settings, strategies as st

LOSSLESS = [
    ("wav", "WAV", "PCM_U8", 2e-2), ("wav", "WAV", "PCM_16", 1e-4), ("wav", "WAV", "PCM_24", 1e-6), ("wav", "WAV", "PCM_32", 1e-6),
    ("wav", "WAV", "FLOAT", 1e-6), ("wav", "WAV", "DOUBLE", 1e-6), ("wav", "WAV", "ULAW", 3e-2), ("wav", "WAVEX", "PCM_16", 1e-4),
    ("flac", "FLAC", "PCM_S8", 2e-2), ("flac", "FLAC", "PCM_16", 1e-4), ("flac", "FLAC", "PCM_24", 1e-6),
    ("aiff", "AIFF", "PCM_S8", 2e-2), ("aiff", "AIFF", "PCM_16", 1e-4), ("aif", "AIFF", "PCM_24", 1e-6), ("aiff", "AIFF", "FLOAT", 1e-6), ("aiff", "AIFF", "DOUBLE", 1e-6),
]
LOSSY = [("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS"), ("mp3", "MP3", "MPEG_LAYER_III")]


def tone(rate=16000, seconds=1.0, hertz=440.0, peak=0.5):
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def writable(suffix, container, subtype):
    return container in sf.available_formats() and subtype in sf.available_subtypes(container)


@pytest.mark.parametrize("suffix,container,subtype,tolerance", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_lossless_formats(tmp_path, suffix, container, subtype, tolerance, channels):
    wave = np.stack([tone() * (c + 1) / channels for c in range(channels)], 1)
    path = tmp_path / f"a.{suffix}"
    sf.write(path, wave, 16000, format=container, subtype=subtype)
    got = read_audio(path)
    assert got.dtype == torch.float32 and got.shape == (16000,) and got.is_contiguous()
    assert np.abs(got.numpy() - wave.mean(1)).max() < tolerance
    info = audio_info(path)
    assert isinstance(info, AudioInfo) and info == (16000, channels, 16000, 1.0, f"{container} {subtype}")


@pytest.mark.parametrize("suffix,container,subtype", LOSSY)
@pytest.mark.parametrize("rate", [16000, 48000])
def test_lossy_formats(tmp_path, suffix, container, subtype, rate):
    if not writable(suffix, container, subtype): pytest.skip(f"this libsndfile writes no {subtype}")
    path = tmp_path / f"a.{suffix}"
    sf.write(path, tone(rate, 2.0), rate, format=container, subtype=subtype)
    got = read_audio(path).numpy()
    assert abs(len(got) - 32000) <= 2
    middle = slice(4000, 28000)
    assert np.corrcoef(got[middle], tone(16000, 2.0)[middle])[0, 1] > 0.99


@pytest.mark.parametrize("rate", [1000, 8000, 11025, 11127, 22050, 22255, 32000, 44099, 44100, 47999, 48000, 96000, 192000, 768000])
def test_any_rate(tmp_path, rate):
    hertz = 200.0
    sf.write(tmp_path / "a.wav", tone(rate, 1.5, hertz), rate, subtype="FLOAT")
    got = read_audio(tmp_path / "a.wav").numpy()
    assert abs(len(got) - 24000) <= 2
    middle = slice(3000, 21000)
    assert np.abs(got[middle] - tone(16000, 1.5, hertz)[middle]).max() < 0.02


def test_no_aliasing():
    for hertz in (8600, 10000, 15000, 20000):
        wave = torch.from_numpy(tone(44100, 1.0, hertz, 1.0)).float()
        assert resample(wave, 44100)[1000:-1000].std() < 1e-2 * wave.std()


def test_passband_is_flat():
    for hertz in (50, 1000, 5000, 7400):
        got = resample(torch.from_numpy(tone(44100, 1.0, hertz, 1.0)).float(), 44100)[1000:-1000]
        assert abs(got.std().item() * math.sqrt(2) - 1) < 0.02


def test_resample_keeps_batches_and_gradients():
    wave = torch.randn(2, 3, 4410, requires_grad=True)
    got = resample(wave, 44100)
    assert got.shape == (2, 3, 1600)
    got.sum().backward()
    assert torch.isfinite(wave.grad).all()


@pytest.mark.parametrize("rates", [(0, 16000), (-1, 16000), (16000, 0), (10**9, 16000), (16000, 10)])
def test_resample_refuses_absurd_rates(rates):
    with pytest.raises(ValueError, match="between 1000 and 768000"): resample(torch.zeros(10), *rates)


def test_other_target_rate(tmp_path):
    sf.write(tmp_path / "a.wav", tone(16000), 16000)
    assert len(read_audio(tmp_path / "a.wav", 32000)) == 32000
    assert len(read_audio(str(tmp_path / "a.wav"), sample_rate=8000)) == 8000


def test_channels_are_averaged(tmp_path):
    sf.write(tmp_path / "a.wav", np.array([[0.5, -0.5], [0.25, 0.75]]), 16000, subtype="DOUBLE")
    assert read_audio(tmp_path / "a.wav").tolist() == [0.0, 0.5]


def test_one_sample(tmp_path):
    sf.write(tmp_path / "a.wav", np.array([0.25]), 16000, subtype="FLOAT")
    assert read_audio(tmp_path / "a.wav").tolist() == [0.25]


def test_odd_number_of_bytes(tmp_path):
    for suffix, subtype in (("wav", "PCM_U8"), ("aiff", "PCM_S8"), ("wav", "PCM_24")):
        sf.write(tmp_path / f"a.{suffix}", tone(8000, 0.1)[:799], 8000, subtype=subtype)
        frames = audio_info(tmp_path / f"a.{suffix}").frames
        assert frames == 799 or suffix == "aiff" and frames == 800  # libsndfile counts aiff's padding byte
        assert len(read_audio(tmp_path / f"a.{suffix}", 8000)) == frames


def test_names_with_spaces_and_other_scripts(tmp_path):
    path = tmp_path / "Straße 東京 №1 (copy).wav"
    sf.write(path, tone(), 16000)
    assert len(read_audio(path)) == 16000


def test_suffix_does_not_matter(tmp_path):
    sf.write(tmp_path / "a.flac", tone(), 16000)
    (tmp_path / "a.flac").rename(tmp_path / "a.WAV")
    assert len(read_audio(tmp_path / "a.WAV")) == 16000


def fails(path, match):
    for call in (read_audio, audio_info):
        with pytest.raises(AudioError, match=match) as e: call(path)
        message = str(e.value)
        assert Path(path).name in message and "\n" not in message and len(message) < 400
        assert e.value.__cause__ is None
    assert issubclass(AudioError, ValueError)


def test_missing(tmp_path):
    fails(tmp_path / "a.wav", "does not exist")
    (tmp_path / "b.wav").write_bytes(b"x")
    fails(tmp_path / "b.wav" / "a.wav", "does not exist")


def test_folder(tmp_path): fails(tmp_path, "is a folder")


def test_empty(tmp_path):
    (tmp_path / "a.wav").touch()
    fails(tmp_path / "a.wav", "empty")


def test_pipe(tmp_path):
    if not hasattr(os, "mkfifo"): pytest.skip("no pipes here")
    os.mkfifo(tmp_path / "a.wav")
    fails(tmp_path / "a.wav", "not a regular file")


def test_null_character():
    with pytest.raises(ValueError): read_audio("a\0b.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("content", [b"hello, this is a text " * 40, b"\x89PNG\r\n\x1a\n" + bytes(3000), bytes(5000), b"RIFF", b"fLaC", b"OggS", b"FORM\0\0",
                                     b"RIFF\x24\0\0\0WAVEfmt ", b"\0\0\0\x18ftypM4A " + bytes(2000)])
def test_not_audio(tmp_path, suffix, content):
    (tmp_path / f"a.{suffix}").write_bytes(content)
    fails(tmp_path / f"a.{suffix}", "not audio|cut short")


def test_random_bytes(tmp_path):
    for seed in range(20):
        (tmp_path / "a.wav").write_bytes(np.random.default_rng(seed).bytes(5000))
        fails(tmp_path / "a.wav", "not audio|cut short")


@pytest.fixture
def ordinary_user(tmp_path):
    "Permissions mean nothing to root; become somebody else for the test."
    if not hasattr(os, "geteuid"): pytest.skip("no users here")
    root = os.geteuid() == 0
    for folder in (tmp_path, *list(tmp_path.parents)[:3]): folder.chmod(0o755)
    if root: os.chown(tmp_path, 65534, 65534); os.seteuid(65534)
    yield
    if root: os.seteuid(0)


def test_no_read_permission(tmp_path, ordinary_user):
    path = tmp_path / "a.wav"
    sf.write(path, tone(), 16000)
    path.chmod(0)
    fails(path, "may not be read")


def test_no_samples(tmp_path):
    for suffix in ("wav", "aiff"):
        sf.write(tmp_path / f"a.{suffix}", np.zeros(0), 16000)
        fails(tmp_path / f"a.{suffix}", "no samples")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_not_finite(tmp_path, bad, subtype):
    wave = tone()
    wave[123] = bad
    sf.write(tmp_path / "a.wav", np.stack([tone(), wave], 1), 16000, subtype=subtype)
    with pytest.raises(AudioError, match="a.wav holds NaN or infinite samples, the first at 0.008 s"): read_audio(tmp_path / "a.wav")


def test_beyond_float32(tmp_path):
    sf.write(tmp_path / "a.wav", np.array([1e300]), 16000, subtype="DOUBLE")
    with pytest.raises(AudioError, match="NaN or infinite"): read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [1, 100, 999, 768001, 10_000_000])
def test_absurd_rate(tmp_path, rate):
    sf.write(tmp_path / "a.wav", tone(), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[24:28] = struct.pack("<I", rate)
    (tmp_path / "a.wav").write_bytes(data)
    fails(tmp_path / "a.wav", f"{rate} Hz")


def noise(rate=44100, seconds=3): return np.random.default_rng(0).normal(0, 0.1, rate * seconds)


CUTTABLE = [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_U8"), ("wav", "DOUBLE"), ("wav", "IMA_ADPCM"), ("aiff", "PCM_16"), ("aiff", "FLOAT"),
            ("flac", "PCM_16"), ("flac", "PCM_24"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")]


@pytest.mark.parametrize("suffix,subtype", CUTTABLE)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_cut_short(tmp_path, suffix, subtype, share):
    rate = 48000 if subtype == "OPUS" else 44100
    sf.write(tmp_path / f"a.{suffix}", noise(rate), rate, subtype=subtype)
    data = (tmp_path / f"a.{suffix}").read_bytes()
    assert len(read_audio(tmp_path / f"a.{suffix}")) > 47000
    (tmp_path / f"b.{suffix}").write_bytes(data[: int(share * len(data))])
    with pytest.raises(AudioError, match=rf"b\.{suffix} is (cut short|not audio|damaged)"): read_audio(tmp_path / f"b.{suffix}")


@pytest.mark.parametrize("suffix", ["wav", "aiff", "ogg", "flac"])
@pytest.mark.parametrize("missing", [1, 2, 3, 5])
def test_last_bytes_missing(tmp_path, suffix, missing):
    sf.write(tmp_path / f"a.{suffix}", noise(), 44100)
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[:-missing])
    with pytest.raises(AudioError, match="cut short"): read_audio(tmp_path / f"a.{suffix}")


def test_cut_flac_at_every_frame(tmp_path):
    sf.write(tmp_path / "a.flac", noise(16000, 1), 16000)
    data = (tmp_path / "a.flac").read_bytes()
    starts = [i for i in range(100, len(data)) if data[i:i + 2] in (b"\xff\xf8", b"\xff\xf9")]
    assert starts
    for start in starts:
        (tmp_path / "b.flac").write_bytes(data[:start])
        with pytest.raises(AudioError, match="cut short"): read_audio(tmp_path / "b.flac")


def test_cut_ogg_between_pages(tmp_path):
    sf.write(tmp_path / "a.ogg", noise(), 44100)
    data = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "b.ogg").write_bytes(data[: data.rindex(b"OggS")])
    with pytest.raises(AudioError, match="cut short"): read_audio(tmp_path / "b.ogg")


def test_zeroed_middle_of_a_flac(tmp_path):
    sf.write(tmp_path / "a.flac", noise(), 44100)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[50000:90000] = bytes(40000)
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.raises(AudioError, match="cut short or damaged"): read_audio(tmp_path / "a.flac")


def test_header_that_claims_hours(tmp_path):
    sf.write(tmp_path / "a.flac", noise(), 44100)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.raises(AudioError, match="cut short"): read_audio(tmp_path / "a.flac")


def test_flac_of_unknown_length(tmp_path):
    sf.write(tmp_path / "a.flac", noise(), 44100)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    fails(tmp_path / "a.flac", "does not say how long")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_wav_written_into_a_pipe(tmp_path, size):
    sf.write(tmp_path / "a.wav", tone(), 16000, subtype="PCM_16")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    start = data.index(b"data")
    data[start + 4:start + 8] = struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "a.wav")) == 16000


def test_wav_with_many_chunks_before_the_sound(tmp_path):
    sf.write(tmp_path / "a.wav", tone(), 16000)
    data = (tmp_path / "a.wav").read_bytes()
    start = data.index(b"data")
    data = data[:start] + b"".join(b"xyz%d" % (k % 10) + struct.pack("<I", 11) + bytes(12) for k in range(300)) + data[start:]
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "a.wav")) == 16000
    (tmp_path / "b.wav").write_bytes(data[:-5000])
    fails(tmp_path / "b.wav", "cut short")


def test_chunks_after_the_sound(tmp_path):
    sf.write(tmp_path / "a.wav", tone(), 16000)
    with open(tmp_path / "a.wav", "ab") as f: f.write(b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert len(read_audio(tmp_path / "a.wav")) == 16000


def test_mp3_with_tags(tmp_path):
    if not writable("mp3", "MP3", "MPEG_LAYER_III"): pytest.skip("this libsndfile writes no mp3")
    sf.write(tmp_path / "a.mp3", tone(44100, 2.0), 44100)
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "b.mp3").write_bytes(b"ID3\x03\0\0\0\0\x02\0" + bytes(256) + data + b"TAG" + bytes(125))
    assert len(read_audio(tmp_path / "b.mp3")) == 32000


windows = dict(total=st.integers(0, 300), length=st.integers(1, 80), hop=st.integers(1, 120), tail=st.sampled_from(["drop", "pad", "shift"]))


@given(**windows)
@settings(max_examples=400, deadline=None)
def test_windows_follow_the_definition(total, length, hop, tail):
    wave = torch.arange(1.0, total + 1)
    starts = [s for s in range(0, total, hop) if s + length <= total]
    following = len(starts) * hop
    has_tail = following < total and (not starts or starts[-1] + length < total)
    if tail != "drop" and has_tail: starts.append(following if tail == "pad" else max(0, total - length))
    padded = torch.cat([wave, torch.zeros(length)])
    want = torch.stack([padded[s:s + length] for s in starts]) if starts else torch.zeros(0, length)
    got = cut_windows(wave, length, hop, tail)
    assert got.shape == want.shape and torch.equal(got, want) and got.dtype == wave.dtype


@given(total=st.integers(1, 300), length=st.integers(1, 80), share=st.floats(0.01, 1), tail=st.sampled_from(["pad", "shift"]))
@settings(max_examples=200, deadline=None)
def test_nothing_is_lost_when_windows_touch(total, length, share, tail):
    wave = torch.arange(1.0, total + 1)
    got = cut_windows(wave, length, max(1, int(share * length)), tail)
    assert set(wave.tolist()) <= set(got.flatten().tolist())
    assert (got.flatten() == 0).sum() == (0 if tail == "shift" and total >= length else got.numel() - (got != 0).sum())


@given(total=st.integers(0, 300), length=st.integers(1, 80))
@settings(max_examples=100, deadline=None)
def test_default_hop_tiles_the_sound(total, length):
    wave = torch.arange(1.0, total + 1)
    assert torch.equal(cut_windows(wave, length).flatten(), wave[: total // length * length])
    assert len(cut_windows(wave, length, tail="pad")) == len(cut_windows(wave, length, tail="shift")) == -(-total // length)


def test_windows_are_a_copy():
    wave = torch.zeros(10)
    for tail in ("drop", "pad", "shift"): cut_windows(wave, 4, 2, tail).fill_(1.0)
    assert wave.sum() == 0


def test_windows_of_other_things():
    assert cut_windows(np.arange(8, dtype=np.float32), 4).shape == (2, 4)
    assert cut_windows([1.0, 2.0, 3.0], 2, tail="pad").tolist() == [[1, 2], [3, 0]]
    assert cut_windows(torch.arange(5), 2).dtype == torch.int64


@pytest.mark.parametrize("arguments,match", [
    (dict(length=0), "positive length"), (dict(length=-3), "positive length"), (dict(length=2.5), "positive length"),
    (dict(length=4, hop=0), "positive hop"), (dict(length=4, hop=-1), "positive hop"), (dict(length=4, hop=0.5), "positive hop"),
    (dict(length=4, tail="cut"), "drop.*pad.*shift"),
])
def test_window_errors(arguments, match):
    with pytest.raises(ValueError, match=match): cut_windows(torch.zeros(10), **arguments)


def test_windows_need_one_waveform():
    with pytest.raises(ValueError, match="one waveform"): cut_windows(torch.zeros(2, 10), 4)


@pytest.mark.parametrize("name,tolerance", [("a.wav", 0.0), ("a.WAV", 0.0), ("a.flac", 1e-6)])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_write_and_read_back(tmp_path, name, tolerance, rate):
    wave = torch.from_numpy(tone(rate, 0.5, 440, 1.0)).float()
    assert write_audio(tmp_path / name, wave, rate) == tmp_path / name
    assert audio_info(tmp_path / name)[:3] == (rate, 1, rate // 2)
    assert (read_audio(tmp_path / name, rate) - wave).abs().max() <= tolerance


def test_wav_keeps_what_is_beyond_full_scale(tmp_path):
    write_audio(tmp_path / "a.wav", torch.tensor([3.5, -7.0]))
    assert read_audio(tmp_path / "a.wav").tolist() == [3.5, -7.0]


def test_write_takes_numpy_and_gradients(tmp_path):
    write_audio(str(tmp_path / "a.wav"), np.zeros(10))
    write_audio(tmp_path / "b.wav", torch.zeros(10, requires_grad=True))


@pytest.mark.parametrize("name,wave,match", [
    ("a.mp3", torch.zeros(10), r"\.wav or \.flac"), ("a", torch.zeros(10), r"\.wav or \.flac"), ("a.wav", torch.zeros(0), "one waveform"),
    ("a.wav", torch.zeros(2, 10), "one waveform"), ("a.wav", torch.tensor([float("nan")]), "NaN"), ("a.flac", torch.tensor([1.5]), "scale it down"),
])
def test_write_refuses(tmp_path, name, wave, match):
    with pytest.raises(AudioError, match=match): write_audio(tmp_path / name, wave)
    assert not list(tmp_path.iterdir())


def test_write_absurd_rate(tmp_path):
    with pytest.raises(AudioError, match="Hz"): write_audio(tmp_path / "a.flac", torch.zeros(10), 10**7)
    with pytest.raises(AudioError, match="Hz"): write_audio(tmp_path / "a.wav", torch.zeros(10), 0)


def test_write_into_nowhere(tmp_path):
    with pytest.raises(AudioError, match="No such file"): write_audio(tmp_path / "x" / "a.wav", torch.zeros(10))


def test_write_without_permission(tmp_path, ordinary_user):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(AudioError, match="a.wav cannot be written .Permission denied"): write_audio(tmp_path / "a.wav", torch.zeros(10))
    finally: tmp_path.chmod(0o755)


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    write_audio(tmp_path / "a.wav", torch.ones(10) / 2)
    def full(self, data):
        with open(self, "wb") as f: f.write(data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(AudioError, match="No space left on device"): write_audio(tmp_path / "a.wav", torch.zeros(10))
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"] and read_audio(tmp_path / "a.wav")[0] == 0.5


def test_write_over_a_folder(tmp_path):
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(AudioError, match="cannot be written"): write_audio(tmp_path / "a.wav", torch.zeros(10))
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_fresh_interpreter_needs_no_preparation():
    import subprocess, sys
    run = subprocess.run([sys.executable, "-c", "from contrastasc.audio import read_audio"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
