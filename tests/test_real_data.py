"""From archives on a server to the paper's tables: a miniature copy of all three real data sets, through the command line."""
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial

import pandas as pd
import pytest

from contrastasc.cli import main
from contrastasc.datasets import ICME24_FOLDER, ICME24_LABELS, ICME24_TIMES, TAU22_FOLDER, TUT17_FOLDERS, write_miniature
from contrastasc.download import load_registry
from contrastasc.paper import STUDENTS
from contrastasc.synth import world_frame

FEW = dict(tau22=(), tut17=("bus", "cafe/restaurant"), icme24=("Bus", "Bar"))  # classes in the copies; of TAU22 all, with fewer clips
RUN = [sys.executable, "-c", "import sys; from contrastasc.cli import main; sys.exit(main())"]


def archive(path, root, names):
    "A zip of files below root, as the real ones hold their folder."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        for name in sorted(names): z.write(root / name, name)


def archives(tree, served):
    "The copies as the publishers pack them: meta apart from audio, audio in two parts."
    for top in (TAU22_FOLDER, *TUT17_FOLDERS):
        files = [p.relative_to(tree).as_posix() for p in (tree / top).rglob("*") if p.is_file()]
        sound = sorted(f for f in files if f.endswith(".wav"))
        archive(served / f"{top}.meta.zip", tree, set(files) - set(sound))
        for n in (1, 2): archive(served / f"{top}.audio.{n}.zip", tree, sound[n - 1::2])
    archive(served / f"{ICME24_FOLDER}.zip", tree, [p.relative_to(tree).as_posix() for p in (tree / ICME24_FOLDER).rglob("*.wav")])
    for name in (ICME24_LABELS, ICME24_TIMES): (served / name).write_bytes((tree / name).read_bytes())


def small_registry(served):
    "The registry that ships, with the sizes and checksums of the small archives."
    registry = load_registry()
    for entry in (registry[n] for n in ("tau22", "tut17", "icme24")):
        entry["files"] = [f for f in entry["files"] if (served / f["name"]).exists()]
        for f in entry["files"]:
            data = (served / f["name"]).read_bytes()
            f |= dict(size=len(data), checksum="md5:" + hashlib.md5(data).hexdigest()); f.pop("record", None)
            if f.get("unpacked"): f["unpacked"] = 50_000_000
    return registry


class Quiet(http.server.SimpleHTTPRequestHandler):
    "Any address that ends in a file's name."
    def translate_path(self, path): return super().translate_path("/" + path.split("?")[0].rsplit("/", 1)[-1])
    def log_message(self, *args): pass


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "Archives on a loopback server; returns the folder that everything lies in and the server's address."
    place = tmp_path_factory.mktemp("world")
    (place / "served").mkdir()
    for name, classes in FEW.items():
        frame = world_frame(f"synth-{name}", "tiny")
        frame = frame[frame.scene.isin(classes)] if classes else frame.groupby(["scene", "split"]).head(5)
        write_miniature(name, place / "tree", frame, sample_rate=16000, bits=16)
    archives(place / "tree", place / "served")
    (place / "registry.json").write_text(json.dumps(small_registry(place / "served")))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place / "served")))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield place, f"http://127.0.0.1:{server.server_port}"
    server.shutdown(); server.server_close()


def environment(place): return os.environ | dict(CONTRASTASC_HOME=str(place / "home"), CONTRASTASC_SCALE="tiny", OMP_NUM_THREADS="1")


def rows(place): return {p: p.stat().st_mtime_ns for p in (place / "home" / "results" / "rows").glob("*.json")}


def test_from_archives_to_tables(world, monkeypatch, capsys):
    "download, verify, pack, paper; the paper is killed on its way and called again."
    monkeypatch.setenv("CONTRASTASC_HOME", str(world[0] / "home"))
    place, address = world
    root, paper = place / "sets", ["paper", "--data", place / "sets", "--seeds", 0, "--sizes", "cpm6k", "cpm12k", "--out", place / "out"]
    for name in ("tau22", "tut17", "icme24"):
        told = ["download", name, "--root", root, "--registry", place / "registry.json"]
        assert main([*map(str, told), "--mirror", address, "--accept", "--delete-zips"]) == 0
        assert main([*map(str, told), "--verify"]) == 0
    there, made = ({p.relative_to(base).as_posix() for p in base.rglob("*") if p.is_file() and p.suffix in (".wav", ".csv", ".txt")} for base in (root, place / "tree"))
    assert there == made and not list(root.rglob("*.zip")) and not list(root.rglob("*.part"))

    assert main(["pack", "--data", "tau22", "--root", str(root)]) == 0
    assert " clips, drawn at random, sound as their sources do" in capsys.readouterr().out

    first = subprocess.Popen([*RUN, *map(str, paper)], env=environment(place), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stop = time.time() + 300
    while len(rows(place)) < 3 and first.poll() is None and time.time() < stop: time.sleep(0.2)
    first.send_signal(signal.SIGKILL); first.wait()
    kept = rows(place)
    assert len(kept) >= 3, first.stderr.read()[-2000:]

    again = subprocess.run([*RUN, *map(str, paper)], env=environment(place), capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stdout[-1500:] + again.stderr[-3000:]
    assert {p: t for p, t in rows(place).items() if p in kept} == kept
    stem = next((place / "out").glob("*.md")).stem
    assert stem.startswith("paper-tau22+tut17+icme24-tiny-cpm6k-") and f"{stem}.md" in again.stdout and "session split" in again.stderr and sorted(p.name for p in (place / "out").glob("[!.]*")) == [f"{stem}.csv", f"{stem}.md", f"{stem}.svg"]

    frame, text = pd.read_csv(place / "out" / f"{stem}.csv"), (place / "out" / f"{stem}.md").read_text()
    assert set(STUDENTS) | {"teacher frozen", "teacher CE", "teacher contrastive", "linear head", "mean log-mel"} == set(frame.row)
    assert frame[frame.row == "FT+KD"].variant.tolist() == ["cpm6k", "cpm12k"]
    shares = frame[["closed", "tut17_5", "icme24_5", "tut17_5_unseen", "icme24_map"]]
    assert shares.drop(columns="closed").notna().all().all() and shares.closed.isna().sum() == 1 and ((shares >= 0) & (shares <= 1)).sum().sum() == shares.notna().sum().sum()
    assert "session split" in text and "tau22 is not whole here: 50 of 139,620 train clips" in text and "(60.6)" in text and "{" in text
    assert (place / "out" / f"{stem}.svg").read_text().count("<path") > 20
