"The enrolment store: all or nothing, back and forth, by several hands, and through kills."
import os
import random
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch

from contrastasc.store import EnrollmentStore, Shots, StoreError
from contrastasc.train import model_fingerprint


class Ear:
    sample_rate = 16000
    def __init__(self, name="ear", width=4): self.name, self.width = name, width
    def embed(self, x): return torch.log(x[:, :16000].unflatten(1, (self.width, -1)).square().mean(2) + 1e-6)


def wave(seconds=2.5, seed=0, gain=0.1): return (gain * np.random.default_rng(seed).normal(size=int(16000 * seconds))).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    with EnrollmentStore(tmp_path / "e.sqlite", Ear()) as made: yield made


def test_a_clip_comes_back_with_all_it_came_with(store):
    settings = dict(device="mic", rate=44100, echoCancellation=False)
    assert store.add([wave(), wave(5, 1)], ["bus", "home"], "file a.wav", ["Oslo", None], settings) == [1, 2]
    row = store.frame.iloc[0]
    assert (row.scene, row.place, row.source, row.seconds, row.shots, row.settings) == ("bus", "Oslo", "file a.wav", 2.5, 3, settings)
    assert str(row.time.tz) == "UTC" and abs(row.time.timestamp() - time.time()) < 60
    assert np.abs(store.waveform(1) - wave()).max() < 2 / 32768
    loud = wave(1, gain=3)
    store.add([loud], "loud")
    assert np.abs(store.waveform(3) - loud).max() < np.abs(loud).max() / 30000, "what exceeds full scale is not cut off"


def test_shots_are_the_seconds_of_clips_with_places_as_groups(store):
    store.add([wave(2.5, s) for s in range(4)], ["bus", "bus", "home", "home"], places=["Oslo", "Oslo", None, None])
    shots = store.shots()
    assert isinstance(shots, Shots) and shots.x.shape == (12, 4) and shots.x.dtype == np.float32 and shots.clips.tolist() == np.repeat([1, 2, 3, 4], 3).tolist()
    assert shots.groups.tolist() == ["bus at Oslo"] * 6 + ["clip 3"] * 3 + ["clip 4"] * 3
    want = Ear().embed(torch.tensor(store.waveform(1))[None, -16000:])
    assert np.allclose(shots.x[2], want, atol=1e-5), "the last second ends where the clip ends"


def everything(store): return store.frame[["id", "scene"]].to_numpy().tolist(), store.shots().x.tobytes()


@pytest.mark.parametrize("change, words", [
    (lambda s: s.add([wave(1, 9)] * 2, ["tram", "bus"]), "added 2 clips of tram, bus"), (lambda s: s.relabel([1, 2], "tram"), "called 2 clips tram instead of bus, home"),
    (lambda s: s.rename("bus", "tram"), "renamed bus to tram"), (lambda s: s.rename("bus", "home"), "renamed bus to home"), (lambda s: s.delete([1, 3]), "deleted 2 clips of bus"),
])
def test_every_change_can_be_taken_back(store, change, words):
    store.add([wave(1, s) for s in range(3)], ["bus", "home", "bus"])
    before, version = everything(store), store.version
    change(store)
    assert everything(store) != before and store.undoable == words and store.version > version
    path = store.path
    store.close()
    with EnrollmentStore(path, Ear()) as again:
        assert again.undo() == words and everything(again) == before
        assert again.undo() == "added 3 clips of bus, home" and again.undo() is None and len(again.frame) == 0 and again.undoable is None


def test_embeddings_of_another_model_are_refused_and_made_anew(store):
    store.add([wave(2, s) for s in range(3)], "bus")
    with EnrollmentStore(store.path, Ear("other", 8)) as other:
        with pytest.raises(StoreError, match="3 clips in e.sqlite have embeddings of ear, not of this other: call recompute"): other.shots()
        assert other.stale == 3 and other.frame.shots.tolist() == [0, 0, 0]
        assert other.recompute(progress=False) == 3 and other.recompute(progress=False) == 0 and other.shots().x.shape == (6, 8)
    assert store.stale == 0 and store.shots().x.shape == (6, 4), "the first model's are still there"
    with EnrollmentStore(store.path, Ear("ear", 2)) as narrower: assert narrower.stale == 3, "the same name and weights, read in another width"
    assert store.model.startswith(model_fingerprint(Ear()))


@pytest.mark.parametrize("waves, labels, words", [
    ([np.full(16000, np.nan)], "bus", "clip 0 holds NaN"), ([wave(), wave(0.5)], "bus", "clip 1 has 0.50 s"), ([np.zeros((2, 16000))], "bus", "one waveform"),
    ([wave()], "  ", "needs a name"), ([wave()], [None], "needs a name"), ([wave(), wave()], ["bus"], "2 clips but 1 labels"), ([np.zeros(0)], "bus", "0.00 s"),
])
def test_what_cannot_be_learnt_from_is_refused_whole(store, waves, labels, words):
    with pytest.raises(StoreError, match=words): store.add(waves, labels)
    assert len(store.frame) == 0 and store.version == 0


def test_strange_ids_names_and_encoders(store, tmp_path):
    store.add([wave()], "bus")
    for call in (lambda: store.relabel([1, 7], "x"), lambda: store.delete([7]), lambda: store.waveform(7)):
        with pytest.raises(StoreError, match="no clip 7"): call()
    with pytest.raises(StoreError, match="no scene is called 'tram'"): store.rename("tram", "x")
    assert store.frame.scene.tolist() == ["bus"], "half a relabelling is none"
    with EnrollmentStore(store.path) as plain:
        assert len(plain.frame) == 1
        for call in (plain.shots, plain.recompute, lambda: plain.add([wave()], "x")):
            with pytest.raises(StoreError, match="without an encoder"): call()
    class Broken(Ear):
        def embed(self, x): return super().embed(x) / 0 * 0
    with pytest.raises(StoreError, match="not finite"): EnrollmentStore(tmp_path / "b.sqlite", Broken())


def test_other_files_are_left_alone(tmp_path):
    text, foreign, newer = tmp_path / "a.txt", tmp_path / "b.sqlite", tmp_path / "c.sqlite"
    text.write_bytes(b"nothing of the kind " * 300)
    with sqlite3.connect(foreign) as db: db.execute("CREATE TABLE t(x)")
    with EnrollmentStore(newer) as s: s.db.execute("PRAGMA user_version = 9")
    for p in (text, foreign): p.chmod(0o644)
    before = {p: p.read_bytes() for p in (text, foreign)}
    for path, words in ((text, "is not a store"), (foreign, "of another program"), (newer, "newer version")):
        with pytest.raises(StoreError, match=words) as e: EnrollmentStore(path)
        assert str(path) in str(e.value)
    assert all(p.read_bytes() == b and stat.S_IMODE(p.stat().st_mode) == 0o644 for p, b in before.items())
    with pytest.raises(StoreError, match="cannot|may not|failed"): EnrollmentStore(text / "x.sqlite")


def test_only_the_owner_can_read_it(tmp_path):
    with EnrollmentStore(tmp_path / "new" / "e.sqlite", Ear()) as store:
        store.add([wave()], "bus")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in store.path.parent.iterdir()}
        assert set(modes) >= {"e.sqlite", "e.sqlite-wal"} and set(modes.values()) == {0o600}
        assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(store.export(tmp_path / "x.sqlite").stat().st_mode) == 0o600


def test_export_and_taking_in(store, tmp_path):
    store.add([wave(2, s) for s in range(4)], ["bus", "home", "bus", "tram"], places="Oslo"); store.delete([4])
    handed = store.export(tmp_path / "handed.sqlite")
    assert sorted(p.name for p in tmp_path.iterdir() if "handed" in p.name) == ["handed.sqlite"], "one file"
    assert wave(2, 3).tobytes()[:64] not in handed.read_bytes()
    with EnrollmentStore(handed) as plain: assert plain.db.execute("SELECT count(*) FROM clip").fetchone()[0] == 3, "what was deleted does not go along"
    with EnrollmentStore(tmp_path / "class.sqlite", Ear()) as ours:
        assert ours.take_in(handed) == 3 and ours.take_in(handed) == 0 and ours.check() == [] and ours.stale == 0
        assert np.array_equal(ours.shots().x, store.shots().x) and (ours.waveform(1) == store.waveform(1)).all() and ours.frame.place.tolist() == ["Oslo"] * 3
        assert ours.undo() == "took in 3 clips from handed.sqlite" and len(ours.frame) == 0 and ours.take_in(handed) == 3 and len(ours.frame) == 3
    with pytest.raises(StoreError, match="store itself"): store.export(store.path)
    with pytest.raises(StoreError, match="is not there"): store.take_in(tmp_path / "none.sqlite")
    with pytest.raises(StoreError): store.export(tmp_path / "no" / "folder.sqlite")
    assert not list(tmp_path.glob(".*part*"))


def test_what_is_forgotten_is_gone(store):
    store.add([wave(1, s) for s in range(3)], "bus"); store.delete([1])
    sound = store.db.execute("SELECT sound FROM clip WHERE id = 1").fetchone()[0][200:260]
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert sound in store.path.read_bytes()
    store.forget_deleted()
    assert sound not in b"".join(p.read_bytes() for p in store.path.parent.iterdir()) and store.undo() is None and len(store.frame) == 2 and store.check() == []


def test_damage_is_found(store):
    store.add([wave(1, s) for s in range(3)], "bus")
    with store._writing() as db:
        db.execute("UPDATE clip SET sound = substr(sound, 1, 300) WHERE id = 1"); db.execute("UPDATE embedding SET x = x'00' WHERE clip = 2")
    assert store.check() == ["the sound of clip 1 is damaged", "an embedding of clip 2 is damaged"]


def test_a_full_disk_leaves_what_was_there(store):
    store.add([wave()], "bus")
    store.db.execute(f"PRAGMA max_page_count = {store.db.execute('PRAGMA page_count').fetchone()[0] + 2}")
    with pytest.raises(StoreError, match="the disk is full"): store.add([wave(20)], "home")
    assert store.frame.scene.tolist() == ["bus"] and store.check() == [] and store.undoable == "added 1 clip of bus"


ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HAND = """
import os, sys
sys.path.insert(0, {root!r})
import torch; torch.set_num_threads(1)
from tests.test_store import *
def hand(path, n, name):
    "A process of its own that adds pairs of clips, and tells each pair once it is confirmed."
    mine, its = os.pipe()
    if pid := os.fork(): os.close(its); return pid, os.fdopen(mine)
    store = EnrollmentStore(path, Ear())
    os.write(its, b"ready\\n")
    for i in range(n): os.write(its, (" ".join(map(str, store.add([wave(2.5, i), wave(1, i)], name))) + "\\n").encode())
    os._exit(0)
""".format(root=ROOT)


def run(script, *arguments):
    "What a script prints that may use `hand`; imports are paid for once."
    done = subprocess.run([sys.executable, "-c", HAND + textwrap.dedent(script), *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_nothing_confirmed_is_lost_by_kills(tmp_path):
    "Fifteen kills at any moment, three programs at a time on one file; each change is two clips."
    said = run("""
        path, promised, dice = sys.argv[1], [], random.Random(0)
        for _ in range(5):
            hands = [hand(path, 10**6, f"p{k}") for k in range(3)]
            for _, out in hands: assert out.readline() == "ready\\n"
            for pid, _ in hands: time.sleep(0.15 * dice.random()); os.kill(pid, 9); os.waitpid(pid, 0)
            for _, out in hands: promised += [tuple(map(int, line.split())) for line in out.read().split("\\n")[:-1]]
            with EnrollmentStore(path, Ear()) as store:
                there = set(store.frame.id)
                assert all(set(pair) <= there for pair in promised) and store.check() == [] and store.stale == 0
                assert len(there) % 2 == 0, "half a change"
        print(len(promised))
    """, tmp_path / "e.sqlite")
    assert int(said) > 10


def test_a_store_may_be_begun_by_several_at_once(tmp_path):
    def work(path):
        start.wait()
        try:
            with EnrollmentStore(path, Ear()) as mine: mine.add([wave(1)], "bus")
        except Exception as e: wrong.append(e)
    wrong, start = [], threading.Barrier(8)
    for k in range(12):
        threads = [threading.Thread(target=work, args=(tmp_path / f"{k}.sqlite",)) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert wrong == []
        with EnrollmentStore(tmp_path / f"{k}.sqlite") as store: assert len(store.frame) == 8 and store.check() == []


def test_opening_a_store_leaves_the_locks_of_another_in_the_same_program(store, tmp_path):
    "POSIX drops a program's locks on a file as soon as any of its descriptors of that file is closed."
    with store._writing() as db:
        db.execute("UPDATE counter SET n = n + 1")
        EnrollmentStore(store.path).close()
        other = subprocess.run([sys.executable, "-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')", str(store.path)], capture_output=True, text=True)
        assert "database is locked" in other.stderr
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    with EnrollmentStore(empty, Ear()) as made: assert made.add([wave()], "bus") == [1]


def test_an_interrupt_at_any_point_leaves_no_transaction_open(store):
    with pytest.raises(KeyboardInterrupt):
        with store._writing() as db:
            db.execute("UPDATE counter SET n = 99")
            raise KeyboardInterrupt
    assert store.version == 0 and store.add([wave()], "bus") == [1]


def test_several_notebooks_write_at_once(store):
    "Two programs, two threads with a store each, and two threads that share one."
    programs = subprocess.Popen([sys.executable, "-c", HAND + "for pid, _ in [hand(sys.argv[1], 15, f'p{k}') for k in range(2)]: assert os.waitpid(pid, 0)[1] == 0", str(store.path)])
    def work(name):
        with EnrollmentStore(store.path, Ear()) as mine:
            for i in range(15): mine.add([wave(1, i)], name)
    threads = [threading.Thread(target=work, args=(f"t{k}",)) for k in range(2)] + [threading.Thread(target=lambda: [store.add([wave(1, 5)], "same") for _ in range(15)]) for _ in range(2)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert programs.wait(60) == 0
    assert store.frame.scene.value_counts().to_dict() == {"p0": 30, "p1": 30, "t0": 15, "t1": 15, "same": 30} and store.version == 90 and store.check() == []
    while store.undo(): pass
    assert len(store.frame) == 0
