"The enrolment store: all or nothing, back and forth, by several hands, and through kills."
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from contrastasc.store import RESERVED, EnrollmentStore, Shots, StoreError
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


# --- back and forth -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change", [lambda s: s.add([wave(1, 9)] * 2, ["tram", "bus"]), lambda s: s.relabel([1, 2], "tram"), lambda s: s.rename("bus", "home"), lambda s: s.delete([1, 3])])
def test_every_change_can_be_made_again(store, change):
    store.add([wave(1, s) for s in range(3)], ["bus", "home", "bus"])
    before = everything(store); change(store); after, words = everything(store), store.undoable
    assert store.redoable is None and store.redo() is None
    for _ in range(3):
        assert store.undo() == words and everything(store) == before and store.redoable == words
        assert store.redo() == words and everything(store) == after and store.undoable == words and store.redoable is None
    while store.undo(): pass
    assert len(store.frame) == 0 and store.redoable == "added 3 clips of bus, home"
    while store.redo(): pass
    assert everything(store) == after


def test_a_new_change_ends_redo_but_loses_no_sound(store):
    store.add([wave(1, 0)], "bus"); store.add([wave(1, 1)], "home"); store.undo()
    store.relabel([1], "tram")
    assert store.redoable is None and store.redo() is None and store.deleted[["id", "scene"]].to_numpy().tolist() == [[2, "home"]]
    store.restore([2])
    assert np.abs(store.waveform(2) - wave(1, 1)).max() < 2 / 32768 and store.undoable == "brought back 1 clip of home" and len(store.deleted) == 0
    store.undo(); assert store.frame.id.tolist() == [1] and store.redo() and store.frame.id.tolist() == [1, 2]
    with pytest.raises(StoreError, match="no clip 1"): store.restore([1])
    store.delete([2]); store.forget_deleted()
    assert store.undoable is None and store.redoable is None and len(store.deleted) == 0


def test_the_sentence_says_when_and_where(store, monkeypatch):
    store.add([wave()], "bus"); assert store.undoable == "added 1 clip of bus"
    def make(hours, maker):
        made = datetime.now(timezone.utc) - timedelta(hours=hours)
        store.db.execute("UPDATE change SET time = ?, maker = ?", (made.isoformat(), maker)); return made.astimezone()
    mine = store.db.execute("SELECT maker FROM change").fetchone()[0]
    made = make(72, mine); assert store.undoable == f"added 1 clip of bus, {made:%H:%M} on {made:%d %b %Y}"
    made = make(0, "other-1 lab.ipynb"); assert store.undoable == f"added 1 clip of bus, {made:%H:%M} in lab.ipynb"
    made = make(0, "other-1 "); assert store.undoable == f"added 1 clip of bus, {made:%H:%M} in another notebook" == store.undo() == store.redoable
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/b\udcffus\n.ipynb")
    store.add([wave()], "bus"); assert store.db.execute("SELECT maker FROM change").fetchone()[0].endswith(" b?us?.ipynb")


def test_another_program_is_named(store):
    run("with EnrollmentStore(sys.argv[1], Ear()) as s: s.add([wave()], 'bus')", store.path)
    assert store.undoable.startswith("added 1 clip of bus, ") and store.undoable.endswith(" in another notebook")


def test_changes_of_nothing_leave_no_step(store):
    store.add([wave()], "bus"); version = store.version
    for call in (lambda: store.relabel([], "x"), lambda: store.delete([]), lambda: store.restore([]), lambda: store.relabel([1], " bus "), lambda: store.rename("bus", "bus"), lambda: store.add([], []), store.redo): call()
    assert store.undoable == "added 1 clip of bus" and store.version == version
    store.undo(); version = store.version
    assert store.undo() is None and store.version == version, "others need not look"
    store.redo(); store.add([wave()], "home"); store.relabel([1, 1, 2], "home"); assert store.undoable == "called 1 clip home instead of bus"


def test_a_store_of_the_first_edition_opens_with_its_history(store):
    store.add([wave()], "bus"); store.add([wave(1, 1)], "home"); store.delete([1])
    path = store.path; store.db.execute("UPDATE clip SET scene = 'unknown' WHERE id = 2")
    for column in ("done", "time", "maker"): store.db.execute(f"ALTER TABLE change DROP COLUMN {column}")
    store.db.execute("PRAGMA user_version = 1"); store.close()
    old = path.with_name("old.sqlite"); shutil.copy(path, old)
    with EnrollmentStore(path.with_name("taker.sqlite"), Ear()) as taker:
        with pytest.raises(StoreError, match="clip 2 of old.sqlite: no scene can be called 'unknown'"): taker.take_in(old)
    assert sqlite3.connect(old).execute("PRAGMA user_version").fetchone() == (1,), "a source is only read"
    with EnrollmentStore(path, Ear()) as again:
        assert again.frame.scene.tolist() == ["unknown"] and again.undoable == "deleted 1 clip of bus" and again.check() == []
        assert again.undo() and again.frame.scene.tolist() == ["bus", "unknown"] and again.redo() and again.undo()
        again.rename("unknown", "kitchen"); assert set(again.shots().labels) == {"bus", "kitchen"}


def test_stores_of_the_first_edition_may_be_opened_by_several_at_once(store):
    for column in ("done", "time", "maker"): store.db.execute(f"ALTER TABLE change DROP COLUMN {column}")
    store.db.execute("PRAGMA user_version = 1"); store.close()
    def work():
        start.wait()
        try:
            with EnrollmentStore(store.path, Ear()) as mine: mine.add([wave(1)], "bus")
        except Exception as e: wrong.append(e)
    wrong, start = [], threading.Barrier(6)
    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert wrong == []
    with EnrollmentStore(store.path) as again: assert len(again.frame) == 6


# --- what comes in ------------------------------------------------------------------------------------------------------

def test_undoing_a_taking_in_gives_a_clip_its_name_back(store, tmp_path):
    store.add([wave()], "bus"); handed = store.export(tmp_path / "h.sqlite")
    store.relabel([1], "my bus"); store.delete([1])
    assert store.take_in(handed) == 1 and store.frame.scene.tolist() == ["bus"]
    store.undo(); store.undo()
    assert store.frame.scene.tolist() == ["my bus"]
    store.redo(); store.redo(); assert store.frame.scene.tolist() == ["bus"]


@pytest.fixture
def handed(store, tmp_path):
    "An exported file of three clips."
    store.add([wave(2, s) for s in range(3)], ["bus", "home", "bus"])
    return store.export(tmp_path / "handed.sqlite")


def spoil(path, *changes):
    with closing(sqlite3.connect(path)) as db, db:
        for change in changes: db.execute(change)


def test_an_embedding_of_a_wrong_size_counts_as_missing(handed, tmp_path):
    spoil(handed, "UPDATE embedding SET x = x'00' WHERE clip = 1", "UPDATE embedding SET shots = 1 WHERE clip = 2", f"UPDATE embedding SET x = x'{'0000c07f' * 8}' WHERE clip = 3")
    with EnrollmentStore(tmp_path / "o.sqlite", Ear()) as ours:
        assert ours.take_in(handed) == 3 and ours.stale == 3 and ours.check() == []
        with pytest.raises(StoreError, match="call recompute"): ours.shots()
        assert ours.recompute(progress=False) == 3 and ours.shots().x.shape == (6, 4)
        ours.db.execute("UPDATE embedding SET x = substr(x, 1, 9) WHERE clip = 2")
        assert ours.stale == 1 and ours.frame.shots.tolist() == [2, 0, 2] and ours.check() == ["an embedding of clip 2 is damaged"]
        with pytest.raises(StoreError, match="1 clip in o.sqlite has no whole embedding of this ear: call recompute"): ours.shots()
        assert ours.recompute(progress=False) == 1 and ours.check() == [] and ours.shots().x.shape == (6, 4)


@pytest.mark.parametrize("change, words", [
    ("UPDATE clip SET sound = substr(sound, 1, 300) WHERE id = 2", "clip 2 of handed.sqlite: its sound is damaged"), ("UPDATE clip SET sound = x'1234' WHERE id = 1", "clip 1 of handed.sqlite: its sound"),
    ("UPDATE clip SET samples = 5 WHERE id = 1", "its sound"), ("UPDATE clip SET scale = 'big' WHERE id = 1", "its sound"), ("UPDATE clip SET sound = 'text'", "its sound"),
    ("UPDATE clip SET time = 'noon'", "its time"), ("UPDATE clip SET time = ''", "its time"), ("UPDATE clip SET settings = '['", "its time or its settings"), ("UPDATE clip SET settings = '[1]'", "its time or its settings"),
    ("UPDATE clip SET uuid = NULL WHERE id = 3", "clip 3"), ("UPDATE clip SET scene = 'not sure' WHERE id = 3", "no scene can be called"), ("UPDATE clip SET scene = x'00'", "needs a name"),
    ("UPDATE clip SET place = 'a' || char(10) || 'x'", "which nobody can see"), ("ALTER TABLE clip DROP COLUMN source", "damaged"), ("DROP TABLE embedding", "damaged"), ("PRAGMA application_id = 0", "of another program"),
])
def test_what_comes_in_is_tested_like_what_is_added(handed, tmp_path, change, words):
    spoil(handed, change)
    with EnrollmentStore(tmp_path / "o.sqlite", Ear()) as ours:
        with pytest.raises(StoreError, match=words): ours.take_in(handed)
        assert len(ours.frame) == 0 and ours.undoable is None and ours.version == 0


def test_damaged_sound_is_a_store_error(store):
    store.add([wave(1, s) for s in range(3)], "bus")
    sound = bytearray(store.db.execute("SELECT sound FROM clip WHERE id = 2").fetchone()[0]); sound[30] ^= 1  # one bit of its checksum
    store.db.execute("UPDATE clip SET sound = substr(sound, 1, 300) WHERE id = 1"); store.db.execute("UPDATE clip SET sound = ? WHERE id = 2", (bytes(sound),))
    for i in (1, 2):
        with pytest.raises(StoreError, match=f"the sound of clip {i} is damaged: delete it, or"): store.waveform(i)
    assert store.check() == ["the sound of clip 1 is damaged", "the sound of clip 2 is damaged"] and len(store.waveform(3)) == 16000


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_random_pages_are_damage(handed, tmp_path, share):
    dice, raw = np.random.default_rng(int(10 * share)), bytearray(handed.read_bytes())
    for page in range(4096, len(raw), 4096):
        if dice.random() < share: raw[page:page + 4096] = dice.bytes(4096)
    handed.write_bytes(raw)
    with EnrollmentStore(tmp_path / "o.sqlite", Ear()) as ours:
        with pytest.raises(StoreError, match="damaged"): ours.take_in(handed)
        assert len(ours.frame) == 0
    with EnrollmentStore(handed) as broken: assert broken.check()


def test_taking_in_begins_no_store_and_changes_no_file(handed, tmp_path):
    empty = tmp_path / "empty.sqlite"; empty.touch(mode=0o644)
    with EnrollmentStore(tmp_path / "o.sqlite", Ear()) as ours:
        with pytest.raises(StoreError, match="is not there, or empty"): ours.take_in(empty)
        assert empty.stat().st_size == 0 and stat.S_IMODE(empty.stat().st_mode) == 0o644
        handed.chmod(0o644); before, names = handed.read_bytes(), sorted(os.listdir(tmp_path))
        assert ours.take_in(handed) == 3 and handed.read_bytes() == before and stat.S_IMODE(handed.stat().st_mode) == 0o644 and sorted(os.listdir(tmp_path)) == names


def test_an_open_store_is_taken_in_as_it_is_now(store, tmp_path):
    store.add([wave()], "bus")
    with EnrollmentStore(tmp_path / "o.sqlite", Ear()) as ours:
        assert ours.take_in(store.path) == 1
        store.add([wave(1, 1)], "home"); assert ours.take_in(store.path) == 1 and store.take_in(store.path) == 0
    assert store.add([wave()], "still mine") == [3]


def test_a_file_of_somebody_else_is_read(handed):
    "As another user where that can be tried, from a folder that cannot be written to."
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder); theirs, mine = folder / "theirs", folder / "mine"
        theirs.mkdir(); mine.mkdir(); mine.chmod(0o777); folder.chmod(0o755)
        with EnrollmentStore(theirs / "log.sqlite", Ear()) as s: s.add([wave(1, 7)], "log")  # closed, in WAL mode
        for name in ("h.sqlite", "secret.sqlite"): shutil.copy(handed, theirs / name)
        for name, mode in (("h.sqlite", 0o444), ("log.sqlite", 0o444), ("secret.sqlite", 0)): (theirs / name).chmod(mode)
        theirs.chmod(0o555)
        said = run("""
            theirs, mine = Path(sys.argv[1]), sys.argv[2]
            if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)
            with EnrollmentStore(mine + "/o.sqlite", Ear()) as ours:
                print(ours.take_in(theirs / "h.sqlite"), ours.take_in(theirs / "log.sqlite"), len(ours.frame), len(ours.check()))
                for call in (lambda: ours.take_in(theirs / "secret.sqlite"), lambda: ours.export(theirs / "x.sqlite")):
                    try: call()
                    except StoreError as e: print(e)
            try: EnrollmentStore(theirs / "h.sqlite")
            except StoreError as e: print(e)
        """, theirs, mine).splitlines()
        theirs.chmod(0o755)
        assert said[0] == "3 1 4 0" and "secret.sqlite cannot be opened: check the permissions" in said[1] and "x.sqlite may not be read or written" in said[2]
        assert os.geteuid() or "is somebody else's: take_in reads it" in said[3]
        assert sorted(p.name for p in theirs.iterdir()) == ["h.sqlite", "log.sqlite", "secret.sqlite"]


# --- places -------------------------------------------------------------------------------------------------------------

def test_only_a_file_is_replaced_by_a_store(tmp_path):
    pipe = tmp_path / "pipe"; os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(StoreError, match="no file but a folder or a device"): EnrollmentStore(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with EnrollmentStore(tmp_path / "e.sqlite") as s:
        for path in (pipe, tmp_path):
            with pytest.raises(StoreError, match="no file but a folder or a device"): s.export(path, overwrite=True)
            with pytest.raises(StoreError, match="is not there"): s.take_in(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    for odd in (3, "a\0b", ""):
        with pytest.raises(StoreError): EnrollmentStore(odd)


def test_home_and_links_are_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path)); monkeypatch.chdir(tmp_path)
    with EnrollmentStore("~/mine.sqlite", Ear()) as s:
        s.add([wave()], "bus")
        assert s.path == tmp_path / "mine.sqlite" and s.export("~/x.sqlite") == tmp_path / "x.sqlite" and s.take_in("~/x.sqlite") == 0
    assert not (tmp_path / "~").exists()
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "real.sqlite")
    with EnrollmentStore("link.sqlite", Ear()) as s: monkeypatch.chdir("/"); s.add([wave()], "bus"); s.export(tmp_path / "y.sqlite")
    assert (tmp_path / "link.sqlite").is_symlink() and (tmp_path / "real.sqlite").is_file()
    with pytest.raises(StoreError, match="no path"): EnrollmentStore("~nobody-at-all/x.sqlite")


def test_the_log_of_a_store_that_was_taken_away_is_not_mixed_with_a_new_one(store):
    store.add([wave()], "bus"); store.path.unlink()
    with pytest.raises(StoreError, match="its log e.sqlite-wal is left and may hold clips"): EnrollmentStore(store.path, Ear())
    store.path.touch()
    with pytest.raises(StoreError, match="is left"): EnrollmentStore(store.path, Ear())


# --- names --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, words", [
    *((w, "that is said where no scene is recognised") for w in (*RESERVED, "Unknown", " NOT SURE ")), ("x" * 81, "81 characters; 80 is the most"), ("a\nb", r"holds '\\n', which nobody can see"),
    ("bus\u200b", r"\\u200b"), ("a\0b", r"\\x00"), ("a\x1b[1m", r"\\x1b"), ("bus\udcff", r"\\udcff"), ("\ud800", r"\\ud800"), ("", "needs a name"), ("\u00a0", "needs a name"), (3, "needs a name, not 3"),
])
def test_names_that_nobody_could_tell_apart_are_refused(store, name, words):
    store.add([wave()], "bus")
    for call in (lambda: store.add([wave()], name), lambda: store.relabel([1], name), lambda: store.rename("bus", name)):
        with pytest.raises(StoreError, match=words) as e: call()
        str(e.value).encode()
    if str(name).casefold().strip() in RESERVED: store.add([wave()], "x", places=name, source=name)
    elif name != "":
        with pytest.raises(StoreError): store.add([wave()], "x", places=name)
        if name != "x" * 81:
            with pytest.raises(StoreError): store.add([wave()], "x", source=name)
    if isinstance(name, str) and name != "bus":
        with pytest.raises(StoreError, match="no scene is called"): store.rename(name, "y")


def test_names_that_look_the_same_are_the_same(store):
    decomposed = "Ku\u0308che"
    assert store.add([wave()] * 3, [decomposed, " K\u00fcche ", "K\u00fcche"], places=["Gare\u00a0du\u3000Nord", "", None]) == [1, 2, 3]
    assert set(store.frame.scene) == {"K\u00fcche"} and store.frame.place.tolist() == ["Gare du Nord", None, None]
    store.rename(decomposed, "kitchen"); assert set(store.frame.scene) == {"kitchen"}
    store.db.execute("UPDATE clip SET scene = ? WHERE id < 3", (decomposed,))
    store.rename(decomposed, "K\u00fcche"); assert store.frame.scene.tolist() == ["K\u00fcche"] * 2 + ["kitchen"], "an old name is found as it is"
    store.add([wave()], np.array(["x" * 80]), source="file " + "y" * 250)


# --- messages -----------------------------------------------------------------------------------------------------------

def test_export_replaces_nothing_unless_it_is_told_to(store, tmp_path):
    store.add([wave()], "bus")
    thesis = tmp_path / "thesis.txt"; thesis.write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="thesis.txt is there already and is not a store"): store.export(thesis, overwrite=overwrite)
    assert thesis.read_text() == "years of work"
    handed = store.export(tmp_path / "h.sqlite"); store.add([wave(1, 1)], "home")
    with pytest.raises(StoreError, match="is there already: choose another name, or replace it with overwrite=True"): store.export(handed)
    assert store.export(handed, overwrite=True) == handed
    with EnrollmentStore(handed) as other:
        assert len(other.frame) == 2
        with pytest.raises(StoreError, match="is open as a store"): store.export(handed, overwrite=True)


def test_export_blames_its_target(store, tmp_path):
    store.add([wave()], "bus")
    with pytest.raises(StoreError, match=f"there is no folder {tmp_path}/no: make it first"): store.export(tmp_path / "no" / "x.sqlite")
    with pytest.raises(StoreError, match="there is no folder"): store.export(store.path / "x.sqlite")
    class Full:
        def __init__(self, db): self.db = db
        def execute(self, sql, *values):
            if sql.startswith("VACUUM"): raise sqlite3.OperationalError("database or disk is full")
            return self.db.execute(sql, *values)
        def __getattr__(self, name): return getattr(self.db, name)
    store.delete([1]); store.db = Full(store.db)
    with pytest.raises(StoreError, match=f"{tmp_path}/x.sqlite cannot grow: the disk is full"): store.export(tmp_path / "x.sqlite")
    with pytest.raises(StoreError, match="no longer among the clips, but some of its sound may be left on the disk, since .* cannot grow: the disk is full. Then call forget_deleted again"): store.forget_deleted()
    assert len(store.deleted) == 0 and not list(tmp_path.glob(".*part*"))


def test_export_on_a_disk_that_takes_no_more(store, tmp_path):
    "A limit on the size of files, which the system sets."
    store.add([wave(20)], "bus")
    said = run("""
        import resource, signal
        with EnrollmentStore(sys.argv[1], Ear()) as s:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            try: s.export(sys.argv[2])
            except StoreError as e: print(e)
    """, store.path, tmp_path / "x.sqlite")
    assert f"{tmp_path}/x.sqlite could not be read or written: its disk is full" in said and not list(tmp_path.glob("*x.sqlite*"))


def test_forgetting_says_when_another_holds_the_log(store):
    store.add([wave()], "bus"); store.delete([1]); store.db.execute("PRAGMA busy_timeout = 50")
    with EnrollmentStore(store.path) as other:
        other.db.execute("BEGIN"); other.db.execute("SELECT count(*) FROM clip").fetchone()
        with pytest.raises(StoreError, match="may be left on the disk, since .* is held by another program"): store.forget_deleted()
        other.db.execute("COMMIT")
    store.forget_deleted()


def test_settings_of_numpy_are_kept_as_numbers(store):
    store.add([wave()], "bus", settings=dict(rate=np.int64(48000), gain=np.float32(0.5), on=np.bool_(True), bands=np.arange(2)))
    assert store.frame.settings[0] == dict(rate=48000, gain=0.5, on=True, bands=[0, 1])
    for odd in ("x", [1], dict(a={1, 2}), dict(a=float("nan")), {(1, 2): 3}):
        with pytest.raises(StoreError): store.add([wave()], "bus", settings=odd)
    assert len(store.frame) == 1


def test_ids_are_whole_numbers_in_a_list(store):
    store.add([wave()] * 2, "bus")
    for call in (lambda: store.relabel(1, "x"), lambda: store.delete(1), lambda: store.delete("12"), lambda: store.restore(1)):
        with pytest.raises(StoreError, match="ids come as a list"): call()
    for odd in ("x", 1.5, None, [1]):
        with pytest.raises(StoreError, match="is no clip: ids are whole numbers"): store.waveform(odd)
        with pytest.raises(StoreError, match="is no clip: ids are whole numbers"): store.delete([odd])
    for odd in (0, -1, 2**70):
        with pytest.raises(StoreError, match="there is no clip"): store.waveform(odd)
    store.relabel(store.frame.id, "tram"); store.relabel(np.array([1]), "home"); assert store.frame.scene.tolist() == ["home", "tram"]


def test_whole_numbers_are_divided_by_their_full_scale(store):
    ints = np.round(32767 * wave(gain=0.2).clip(-1, 1)).astype(np.int16)
    store.add([ints, ints.astype(np.int32) * 65536, torch.tensor(ints), ints / 32768], "bus")
    for i in range(1, 5): assert np.abs(store.waveform(i) - ints / 32768).max() < 1 / 32000
    for odd in (ints.astype(np.int64), ints.astype(np.uint8), ints > 0, ["a"] * 16000, [[1.0], [1.0, 2.0]], ints * 1j, torch.zeros(16000, dtype=torch.bfloat16)):
        with pytest.raises(StoreError, match="clip 0 "): store.add([odd], "bus")


def test_times_know_their_zone(store):
    assert str(store.frame.time.dt.tz) == "UTC", "an empty table too"
    store.add([wave()], "bus")
    assert store.frame.time[0].isoformat().endswith("+00:00") and store.frame.time.dt.tz_convert("Asia/Tokyo")[0] == store.frame.time[0]
    assert abs((datetime.now().astimezone() - store.frame.time[0].to_pydatetime()).total_seconds()) < 60


def test_an_encoder_that_fails_leaves_no_store_behind(tmp_path):
    class Broken(Ear):
        def embed(self, x): return super().embed(x) / 0 * 0
    with pytest.raises(StoreError): EnrollmentStore(tmp_path / "b.sqlite", Broken())
    assert not list(tmp_path.iterdir())
