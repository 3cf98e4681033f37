"Sound out of packages."
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from contrastasc import sounds
from contrastasc.scenes import SceneError, load_scenes
from contrastasc.sounds import FAMILIES, PLACES, family, fetch_sounds, sound_packages, unpack_sounds

TONE = 0.3 * np.sin(np.arange(24000) / 9)


def audio(wave, rate=16000, kind="FLAC"):
    out = io.BytesIO(); soundfile.write(out, wave, rate, format=kind)
    return out.getvalue()


def archive(contents, mode="r"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name); info.size = len(data); tar.addfile(info, io.BytesIO(data))
    return tarfile.open(fileobj=io.BytesIO(out.getvalue()), mode=mode)


@pytest.mark.parametrize("path, wanted", [
    ("x/sounds/Rain_Loop.ogg", "rain"), ("x/sounds/terrain.wav", "other"), ("x/sfx/window_open.wav", "other"),
    ("x/music/bird.ogg", "music"), ("x/snd/catapult1.wav", "gun"), ("x/sounds/TraficLow2.wav", "vehicle"),
    ("x/Sounds/FootStepGrass1.ogg", "footsteps"), ("x/actor/fauna/animal/horse_11.ogg", "animals"),
    ("tuxpaint-stamps-default/usr/share/tuxpaint/stamps/animals/frog-1_desc_be.ogg", "speech"), ("x/a.wav", "other")])
def test_families_by_name(path, wanted): assert family(path) == wanted


def test_no_word_belongs_to_two_families():
    words = [w for line in FAMILIES.values() for w in line.split()]
    assert len(words) == len(set(words)) and not set(FAMILIES) & set(PLACES)


def test_the_list_of_packages():
    table = sound_packages()
    assert table.package.is_unique and (table[["package", "version", "licences", "holder"]] != "").all().all()
    assert not table.licences.str.contains("-NC|-ND|[Ss]ampling").any()


def test_what_is_no_sound_is_left_out(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as z: z.writestr("deep/../../gull.flac", audio(TONE)); z.writestr("notes.txt", "x")
    tar = archive({"a/dog.flac": audio(TONE), "a/short.flac": audio(TONE[:800]), "a/silent.flac": audio(0 * TONE), "a/bad.ogg": b"OggS" + b"0" * 99,
                   "a/text.txt": b"hello", "a/data.zip": inner.getvalue(), "/etc/cat.wav": audio(TONE, kind="WAV"), "a/no.zip": b"no zip"})
    found = unpack_sounds(tar, tmp_path / "p")
    assert found.family.tolist() == ["animals", "birds", "animals"] and found.source[1] == "a/data.zip/deep/../../gull.flac"
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [f"p/0000{i}.flac" for i in range(3)]


def test_links_are_not_followed(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (("a.flac", tarfile.SYMTYPE), ("b.flac", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name); info.type, info.linkname = kind, "/etc/passwd"; tar.addfile(info)
    assert unpack_sounds(tarfile.open(fileobj=io.BytesIO(out.getvalue())), tmp_path).empty


def test_the_middle_minute_at_16_khz(tmp_path):
    long = np.concatenate([np.full(8000 * 40, 0.1), np.full(8000 * 60, 0.5), np.full(8000 * 40, 0.1)])
    found = unpack_sounds(archive({"wind.wav": audio(long, 8000, "WAV")}), tmp_path)
    wave, rate = soundfile.read(tmp_path / found.path[0])
    assert rate == 16000 and len(wave) == 60 * 16000 and np.abs(wave[16000:-16000] - 0.5).max() < 0.02 and found.seconds[0] == 60


def test_left_out_by_pattern(tmp_path):
    tar = archive({"usr/x/apoc/dog.flac": audio(TONE), "usr/x/dog.flac": audio(TONE)}, "r|")
    assert unpack_sounds(tar, tmp_path, ["usr/x/apoc/*"]).source.tolist() == ["usr/x/dog.flac"]


def test_unknown_packages(tmp_path):
    with pytest.raises(SceneError, match="'frobnicate' is not in the list"): fetch_sounds(tmp_path, ["frobnicate"])


def test_without_apt(tmp_path, monkeypatch):
    monkeypatch.setattr(sounds.shutil, "which", lambda name: None)
    with pytest.raises(SceneError, match="apt-get is not on this machine"): fetch_sounds(tmp_path, ["7kaa-data"], progress=False)
    assert not any(tmp_path.iterdir())


@pytest.fixture
def fake_apt(monkeypatch):
    "An apt-get and a dpkg-deb that know every package, and a list of the packages asked for."
    asked, real = [], sounds.subprocess.Popen
    def run(command, cwd):
        asked.append(command[-1])
        if command[-1] == "gnome-audio": raise SceneError("apt-get download gnome-audio failed (no network)")
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name in ("usr/share/x/rain.flac", "usr/share/x/dog.flac"):
                data = audio(TONE); info = tarfile.TarInfo(name); info.size = len(data); tar.addfile(info, io.BytesIO(data))
        (Path(cwd) / f"{command[-1]}_1%3a2_all.deb").write_bytes(out.getvalue())
    monkeypatch.setattr(sounds, "_run", run)
    monkeypatch.setattr(sounds.subprocess, "Popen", lambda command, cwd, stdout: real(["cat", command[-1]], cwd=cwd, stdout=stdout))
    return asked


def test_fetching_goes_on_where_it_stopped(tmp_path, fake_apt):
    with pytest.raises(SceneError, match="no network"), pytest.warns(UserWarning, match="7kaa-data came in version 1:2, and its licences were read in 2"):
        fetch_sounds(tmp_path, ["7kaa-data", "gnome-audio"], progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["7kaa-data"]
    with pytest.warns(UserWarning, match="acm came in"): fetch_sounds(tmp_path, ["7kaa-data", "acm"], progress=False)
    assert fake_apt == ["7kaa-data", "gnome-audio", "acm"]
    scenes = load_scenes(tmp_path)
    assert scenes.classes == ["animals", "rain"] and set(scenes.frame.group) == {"7kaa-data", "acm"} and set(scenes.frame.version) == {"1:2"}
    assert load_scenes(fetch_sounds(tmp_path, "acm", progress=False)).frame.group.unique().tolist() == ["acm"] and len(fake_apt) == 3


def test_a_package_that_cannot_be_unpacked(tmp_path, fake_apt, monkeypatch):
    monkeypatch.setattr(sounds, "_run", lambda command, cwd: (Path(cwd) / "acm_1_all.deb").write_bytes(b""))
    with pytest.raises(SceneError, match="acm could not be unpacked .*; fetch it again"): fetch_sounds(tmp_path, ["acm"], progress=False)
    assert not any(tmp_path.iterdir())
