"""Downloads against a server that misbehaves: every case ends with the right file, or with a clear error and no file."""
import hashlib
import http.server
import json
import multiprocessing
import os
import resource
import socket
import stat
import struct
import threading
import time
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from contrastasc import cli, download as dl
from contrastasc.datasets import TUT17_FOLDERS, write_miniature
from contrastasc.download import DownloadError, data_sets, download, fetch, hash_file, load_registry, unzip, verify

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
fork = multiprocessing.get_context("fork")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        s = self.server.script
        asked = SimpleNamespace(path=self.path, range=self.headers.get("Range"), agent=self.headers.get("User-Agent"), condition=self.headers.get("If-Range"))
        with self.server.guard:
            s.asked.append(asked)
            mood = s.moods.pop(0) if s.moods else {}
        if "status" in mood: return self.refuse(mood)
        if "to" in mood: return self.refuse(dict(status=302, headers={"Location": mood["to"]}))
        content = mood.get("content", s.files.get(self.path.split("?")[0]))
        if content is None: return self.refuse(dict(status=404))
        self.send(content, mood, asked)

    def refuse(self, mood):
        self.send_response(mood["status"])
        for k, v in mood.get("headers", {}).items(): self.send_header(k, v)
        self.send_header("Content-Length", "0"); self.end_headers()

    def send(self, content, mood, asked):
        s, start, total = self.server.script, 0, len(content)
        tag = mood.get("tag", s.tag)
        if asked.range and not mood.get("no_range") and asked.condition in (None, tag): start = int(asked.range[6:-1])
        if start >= total > 0: return self.refuse(dict(status=416, headers={"Content-Range": f"bytes */{total}"}))
        self.send_response(206 if start else 200)
        if start: self.send_header("Content-Range", f"bytes {mood.get('start', start)}-{total - 1}/{mood.get('total', total)}")
        if tag: self.send_header("ETag", tag)
        for k, v in mood.get("headers", {}).items(): self.send_header(k, v)
        if not mood.get("no_length"): self.send_header("Content-Length", str(mood.get("length", total - start)))
        self.end_headers()
        end = mood.get("until", total)
        for at in range(start, end, 1 << 14):
            self.wfile.write(content[at:min(end, at + (1 << 14))]); time.sleep(mood.get("slow", 0))
        if mood.get("reset"): self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def handle(self):
        try: super().handle()
        except OSError: pass  # the client went away, or was killed

    def log_message(self, *args): pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(dl, "BACKOFF", 0.01)
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    s.daemon_threads, s.guard = True, threading.Lock()
    s.script = SimpleNamespace(files={"/a.bin": CONTENT}, moods=[], asked=[], tag='"one"', url=f"http://127.0.0.1:{s.server_port}")
    threading.Thread(target=s.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
    yield s.script
    s.shutdown(); s.server_close()


def get(server, tmp_path, *moods, size=len(CONTENT), checksum=MD5, **options):
    server.moods[:] = moods
    return fetch(server.url + "/a.bin", tmp_path / "a.bin", size, checksum, progress=False, **options)


def whole(path): return path.read_bytes() == CONTENT and not list(path.parent.glob("*.part*"))


def sent(server): return [a.range for a in server.asked]


# ---- one file ----

def test_a_file_comes_whole_and_once(server, tmp_path):
    assert whole(get(server, tmp_path)) and whole(get(server, tmp_path)) and len(server.asked) == 1
    assert server.asked[0].agent.startswith("contrastasc/") and "(+http" in server.asked[0].agent


def test_contact_can_be_set(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRASTASC_CONTACT", "mailto:me@example.org")
    get(server, tmp_path)
    assert server.asked[0].agent.endswith("(+mailto:me@example.org)")


@pytest.mark.parametrize("cut", [dict(), dict(reset=True)])
def test_cuts_are_resumed(server, tmp_path, cut):
    "More cuts than tries: as long as something new comes, it goes on."
    ends = range(30_000, 300_000, 30_000)
    assert whole(get(server, tmp_path, *(cut | dict(until=e) for e in ends)))
    starts = [int(r[6:-1]) for r in sent(server)[1:]]
    assert len(starts) == len(ends) > dl._TRIES and starts == sorted(starts) and {a.condition for a in server.asked} == {None}
    if not cut: assert starts == list(ends)


def test_cut_at_the_first_byte_every_time_ends(server, tmp_path):
    with pytest.raises(DownloadError, match="6 times in a row.*keeps 0 bytes"): get(server, tmp_path, *[dict(until=0)] * 20)
    assert len(server.asked) == dl._TRIES


def test_cut_and_range_ignored_for_ever_ends(server, tmp_path):
    with pytest.raises(DownloadError, match="in a row"): get(server, tmp_path, *[dict(until=1000, no_range=True)] * 30)
    assert len(server.asked) == dl._TRIES + 1 and not (tmp_path / "a.bin").exists()


def test_what_was_kept_is_resumed_by_the_next_run(server, tmp_path):
    with pytest.raises(DownloadError, match="run the same again"): get(server, tmp_path, dict(until=200_000), *[dict(status=500)] * 9)
    assert (tmp_path / "a.bin.part").stat().st_size == 200_000
    assert whole(get(server, tmp_path)) and sent(server)[-1] == "bytes=200000-"


def test_retry_after_is_honoured(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(dl.time, "sleep", waits.append)
    assert whole(get(server, tmp_path, dict(status=429, headers={"Retry-After": "3"}), dict(status=503), dict(status=429, headers={"Retry-After": "soon"})))
    assert 3 <= waits[0] < 3.1 and waits[1] < 0.1 and waits[2] < 0.1 and len(server.asked) == 4


def test_retry_after_for_too_long_is_said(server, tmp_path):
    with pytest.raises(DownloadError, match="come back in 60 minutes"): get(server, tmp_path, dict(status=429, headers={"Retry-After": "3600"}))
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_overload_is_waited_out(server, tmp_path, status): assert whole(get(server, tmp_path, *[dict(status=status)] * 3)) and len(server.asked) == 4


@pytest.mark.parametrize("status, words", [(403, "put it at .*/a.bin$"), (404, "may have moved"), (410, "may have moved"), (401, "401"), (405, "405")])
def test_no_is_taken_for_no(server, tmp_path, status, words):
    with pytest.raises(DownloadError, match=words): get(server, tmp_path, dict(status=status))
    assert len(server.asked) == 1 and not (tmp_path / "a.bin").exists()


def test_no_file_is_no_file(server, tmp_path):
    with pytest.raises(DownloadError, match="gave 204"): get(server, tmp_path, dict(status=204))


def test_server_ignores_range(server, tmp_path):
    assert whole(get(server, tmp_path, dict(until=100_000), dict(no_range=True)))
    assert sent(server) == [None, "bytes=100000-"]


def test_server_sends_another_piece(server, tmp_path): assert whole(get(server, tmp_path, dict(until=100_000), dict(start=50_000)))


def test_range_header_that_cannot_be_read(server, tmp_path): assert whole(get(server, tmp_path, dict(until=100_000), dict(start="x")))


def test_wrong_length_is_an_error_before_anything_is_written(server, tmp_path):
    with pytest.raises(DownloadError, match="nothing was written"): get(server, tmp_path, dict(content=CONTENT[:-1]))
    assert (tmp_path / "a.bin.part").stat().st_size == 0 and not (tmp_path / "a.bin").exists() and len(server.asked) == 1


def test_no_length_at_all(server, tmp_path): assert whole(get(server, tmp_path, dict(no_length=True)))


def test_no_length_and_cut(server, tmp_path): assert whole(get(server, tmp_path, dict(no_length=True, until=1000), dict(no_length=True)))


def test_no_length_and_too_long(server, tmp_path):
    with pytest.raises(DownloadError): get(server, tmp_path, *[dict(no_length=True, content=CONTENT + b"x")] * 20)
    assert not (tmp_path / "a.bin").exists()


def test_a_stream_without_end_does_not_fill_the_disk(server, tmp_path, monkeypatch):
    written, write = [], dl._write
    monkeypatch.setattr(dl, "_write", lambda part, data: (write(part, data), written.append(part.done)))
    endless = dict(no_length=True, content=CONTENT * 9, total=len(CONTENT))
    for moods in ([endless] * 20, [dict(until=100_000), *[endless] * 20]):
        with pytest.raises(DownloadError, match="sends more than 300,000"): get(server, tmp_path, *moods)
        assert max(written) <= len(CONTENT) and not (tmp_path / "a.bin").exists()


def test_packed_content_is_refused(server, tmp_path):
    with pytest.raises(DownloadError, match="packed as gzip"): get(server, tmp_path, dict(headers={"Content-Encoding": "gzip"}))


def test_a_corrupt_byte(server, tmp_path):
    bad = bytearray(CONTENT); bad[150_000] ^= 1
    with pytest.raises(DownloadError, match="corrupt.*deleted"): get(server, tmp_path, dict(content=bytes(bad)))
    assert not (tmp_path / "a.bin").exists() and (tmp_path / "a.bin.part").stat().st_size == 0
    assert whole(get(server, tmp_path))


def test_a_corrupt_piece_is_fetched_again(server, tmp_path):
    bad = bytearray(CONTENT); bad[10] ^= 1
    assert whole(get(server, tmp_path, dict(content=bytes(bad), until=100_000)))
    assert sent(server) == [None, "bytes=100000-", None]


def test_a_server_that_cuts_and_is_corrupt_each_time_ends(server, tmp_path):
    bad = bytes(len(CONTENT))
    with pytest.raises(DownloadError, match="corrupt"): get(server, tmp_path, *[dict(content=bad, until=100_000), dict(content=bad)] * 10)
    assert len(server.asked) == 4


def test_the_file_changes_between_two_pieces(server, tmp_path):
    "With a checksum the mixture is found out at the end, and all of it fetched again."
    assert whole(get(server, tmp_path, dict(content=bytes(len(CONTENT)), until=100_000, tag='"old"')))
    assert sent(server) == [None, "bytes=100000-", None]


def test_the_file_grows_between_two_pieces(server, tmp_path):
    assert whole(get(server, tmp_path, dict(content=CONTENT + b"x", until=100_000), size=None))
    assert sent(server) == [None, "bytes=100000-", None]


def test_the_file_changes_and_nobody_knows_its_checksum(server, tmp_path):
    "The tag is made a condition, so that the server sends all of it; one that ignores conditions is caught by its new tag."
    old = bytes(len(CONTENT))
    assert whole(get(server, tmp_path, dict(content=old, until=100_000, tag='"old"'), checksum=None))
    assert [(a.range, a.condition) for a in server.asked] == [(None, None), ("bytes=100000-", '"old"')]
    (tmp_path / "a.bin").unlink()
    assert whole(get(server, tmp_path, dict(content=old, until=100_000, tag='W/"old"'), checksum=None))
    (tmp_path / "a.bin").unlink()
    server.tag = ""
    assert whole(get(server, tmp_path, dict(content=old + b"x", until=100_000), size=None, checksum=None))


def test_tags_that_change_for_no_reason_do_not_matter_under_a_checksum(server, tmp_path):
    assert whole(get(server, tmp_path, *[dict(until=e, tag=f'"{e}"') for e in (100_000, 200_000, 250_000)]))
    assert sent(server) == [None, "bytes=100000-", "bytes=200000-", "bytes=250000-"]


def test_pieces_of_two_servers_are_joined_only_under_a_checksum(server, tmp_path):
    server.files["/b.bin"] = CONTENT
    for checksum, asked in ((MD5, "bytes=100000-"), (None, None)):
        server.asked.clear(); server.moods[:] = [dict(until=100_000), dict(status=404)]
        path = fetch([server.url + "/a.bin", server.url + "/b.bin"], tmp_path / "a.bin", len(CONTENT), checksum, progress=False)
        assert whole(path) and sent(server)[-1] == asked
        path.unlink()


def test_416_for_a_part_that_is_whole(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert whole(get(server, tmp_path, size=None)) and sent(server) == [f"bytes={len(CONTENT)}-"]


def test_416_for_a_part_that_is_too_long(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    assert whole(get(server, tmp_path, size=None)) and sent(server) == [f"bytes={len(CONTENT) + 4}-", None]


def test_416_for_a_file_that_shrank(server, tmp_path):
    with pytest.raises(DownloadError, match="1,000 bytes, but 300,000"): get(server, tmp_path, dict(until=1000, tag=""), *[dict(content=CONTENT[:1000], tag="")] * 2, checksum=None)
    assert sent(server) == [None, "bytes=1000-", None] and not (tmp_path / "a.bin").exists()


def test_a_whole_part_needs_no_request(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert whole(get(server, tmp_path)) and not server.asked


def test_a_part_of_another_file_starts_over(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"?" * 1000)
    assert whole(get(server, tmp_path))
    (tmp_path / "a.bin").unlink(); (tmp_path / "a.bin.part").write_bytes(b"?" * 400_000)
    assert whole(get(server, tmp_path)) and sent(server) == ["bytes=1000-", None, None]


def test_a_wrong_file_in_its_place_is_replaced(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(len(CONTENT)))
    assert whole(get(server, tmp_path)) and len(server.asked) == 1


def test_redirects_keep_the_range(server, tmp_path):
    server.files["/real"] = CONTENT
    assert whole(get(server, tmp_path, dict(to="/real"), dict(until=50_000), dict(to="/real")))
    assert [(a.path, a.range) for a in server.asked] == [("/a.bin", None), ("/real", None), ("/a.bin", "bytes=50000-"), ("/real", "bytes=50000-")]


@pytest.mark.parametrize("to", ["http://example.invalid/x", "ftp://example.invalid/x"])
def test_redirects_out_of_https_are_refused(server, tmp_path, to):
    with pytest.raises(DownloadError, match="only https"): get(server, tmp_path, dict(to=to))


def test_https_does_not_become_http():
    request = dl.urllib.request.Request("https://example.org/x")
    with pytest.raises(DownloadError, match="not https"): dl._Redirects().redirect_request(request, None, 302, "", {}, "http://127.0.0.1/x")


def test_redirects_in_a_circle_end(server, tmp_path):
    with pytest.raises(DownloadError, match="302"): get(server, tmp_path, *[dict(to="/a.bin")] * 30)


@pytest.mark.parametrize("url", ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x", "x", "https://example.org/a b"])
def test_only_https(url, tmp_path):
    with pytest.raises(DownloadError, match="only https"): fetch(url, tmp_path / "x", progress=False)


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(dl, "BACKOFF", 0.001)
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    with pytest.raises(DownloadError, match="broke.*6 times in a row"): fetch(f"http://127.0.0.1:{port}/x", tmp_path / "x", progress=False)


def test_a_server_that_falls_silent(server, tmp_path, monkeypatch):
    monkeypatch.setattr(dl, "_TIMEOUT", 0.1)
    assert whole(get(server, tmp_path, dict(slow=0.5)))


def test_mirrors_fall_over(server, tmp_path):
    server.files["/b.bin"] = CONTENT
    bad = bytearray(CONTENT); bad[9] ^= 1
    for mood in (dict(status=403), dict(content=bytes(bad)), dict(content=b"<html>")):
        server.moods[:] = [mood]
        path = fetch([server.url + "/a.bin", server.url + "/b.bin"], tmp_path / "a.bin", len(CONTENT), MD5, progress=False)
        assert whole(path) and server.asked[-1].path == "/b.bin"
        path.unlink()
    with pytest.raises(DownloadError, match="/c.*404.*/d.*404"): fetch([server.url + "/c", server.url + "/d"], tmp_path / "c", progress=False)


def test_mirror_takes_the_place_of_scheme_and_host(server, tmp_path):
    urls = ["https://example.org/a.bin?download=1", "https://example.com/a.bin?download=1"]
    assert whole(fetch(urls, tmp_path / "a.bin", len(CONTENT), MD5, mirror=server.url + "/", progress=False))
    assert server.asked[0].path == "/a.bin?download=1"
    with pytest.raises(DownloadError, match="only https"): fetch(urls, tmp_path / "b.bin", mirror="http://example.net", progress=False)
    with pytest.raises(DownloadError, match="lacks its https://, as in https://example.org"): fetch(urls, tmp_path / "b.bin", mirror="example.org", progress=False)


def test_git_and_sha256_checksums(server, tmp_path):
    sha = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    git = "git:" + hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    for checksum in (sha, git):
        path = get(server, tmp_path, dict(until=77_777), checksum=checksum)
        assert whole(path) and hash_file(path, checksum.split(":")[0]) == checksum
        path.unlink()


def test_checksums_that_are_none(tmp_path):
    with pytest.raises(DownloadError, match="md5, sha256, git"): fetch("https://example.org/x", tmp_path / "x", checksum="crc:0", progress=False)
    with pytest.raises(DownloadError, match="needs its size"): fetch("https://example.org/x", tmp_path / "x", checksum="git:0", progress=False)


def test_a_note_that_cannot_be_written_is_said_at_once(server, tmp_path, monkeypatch):
    def full(path, data): raise dl._cannot_write(path, OSError(28, "No space left on device"))
    monkeypatch.setattr(dl, "atomic_write", full)
    with pytest.raises(DownloadError, match="cannot write .*the disk is full"): get(server, tmp_path)
    assert len(server.asked) == 1


def test_disk_too_small(server, tmp_path, monkeypatch):
    monkeypatch.setattr(dl.shutil, "disk_usage", lambda p: SimpleNamespace(free=299_999))
    with pytest.raises(DownloadError, match=r"needs 0\.3 MB and has 0\.3 MB free"): get(server, tmp_path)
    assert not server.asked
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1])
    assert whole(get(server, tmp_path))


def full_fetch(url, path, said):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try: slow_fetch(url, path)
    except DownloadError as e: said.send(str(e))


def test_a_write_that_fails_is_said_at_once_and_what_came_is_kept(server, tmp_path):
    said, send = fork.Pipe()
    child = fork.Process(target=full_fetch, args=(server.url + "/a.bin", tmp_path / "a.bin", send)); child.start(); child.join()
    assert said.poll(1) and "cannot write" in said.recv() and len(server.asked) == 1
    assert 0 < (tmp_path / "a.bin.part").stat().st_size <= 100_000 and whole(get(server, tmp_path))


def test_no_place_to_write(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="^cannot write"): fetch(server.url + "/a.bin", tmp_path / "file" / "a.bin", progress=False)
    (tmp_path / "b.bin.part").mkdir()
    with pytest.raises(DownloadError, match="^cannot write .*b.bin.part"): fetch(server.url + "/a.bin", tmp_path / "b.bin", progress=False)


def test_no_permission_is_not_a_full_disk(server, tmp_path, monkeypatch):
    def closed(*a, **k): raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(dl.FileLock, "acquire", closed)
    with pytest.raises(DownloadError, match="^cannot write .*no permission to write there; choose another folder$"): get(server, tmp_path)


@pytest.mark.parametrize("size, words", [(0, "0 bytes"), (99, "99 bytes"), (1500, "1.5 kB"), (120_000, "0.1 MB"), (99e6, "99.0 MB"), (1e8, "0.1 GB"), (27.5e9, "27.5 GB")])
def test_sizes_in_words(size, words): assert dl._gb(size) == words


def test_a_log_says_why_it_waits(server, tmp_path, capsys, monkeypatch):
    server.moods[:] = [dict(status=503), dict(until=1000)]
    fetch(server.url + "/a.bin", tmp_path / "a.bin", len(CONTENT), MD5)
    err = capsys.readouterr().err
    assert "answers 503 Service Unavailable; again in 0 s\n" in err and "broke after 1,000 bytes; again" in err


BAD = bytes(b ^ (n % 1000 == 7) for n, b in enumerate(CONTENT))
MOODS = [dict(), dict(until=0), dict(until=90_000), dict(until=200_000, reset=True), dict(until=250_000, no_range=True), dict(status=429), dict(status=500), dict(status=403),
         dict(content=BAD), dict(content=BAD, until=150_000), dict(content=CONTENT[:-1]), dict(content=CONTENT + b"x", no_length=True), dict(start=1), dict(start="?"),
         dict(no_length=True), dict(no_length=True, until=120_000), dict(to="/a.bin"), dict(content=b"<html>"), dict(tag='"two"'), dict(length=10), dict(length=10**9)]


@pytest.mark.parametrize("seed", range(8))
def test_no_mix_of_moods_gives_a_wrong_file(server, tmp_path, monkeypatch, seed):
    monkeypatch.setattr(dl, "BACKOFF", 0.0005)
    dice, ends = np.random.default_rng(seed), []
    for run in range(12):
        moods = [MOODS[i] for i in dice.integers(0, len(MOODS), dice.integers(1, 8))]
        size = None if dice.random() < 0.3 else len(CONTENT)
        try: path = get(server, tmp_path, *moods, size=size)
        except DownloadError: ends.append(0); assert not (tmp_path / "a.bin").exists(); continue
        ends.append(1); assert whole(path)
        path.unlink()
    assert whole(get(server, tmp_path))


def slow_fetch(url, path): fetch(url, path, len(CONTENT), MD5, progress=False)


def until(true, seconds=5):
    end = time.time() + seconds
    while not true():
        assert time.time() < end, "it did not happen"
        time.sleep(0.002)


def test_killed_in_the_middle_of_a_download(server, tmp_path):
    part = tmp_path / "a.bin.part"
    for n in range(2):
        server.moods[:] = [dict(slow=0.02)]
        before = part.stat().st_size if part.exists() else 0
        child = fork.Process(target=slow_fetch, args=(server.url + "/a.bin", tmp_path / "a.bin")); child.start()
        until(lambda: part.exists() and part.stat().st_size > before + 40_000)
        child.kill(); child.join()
        assert child.exitcode == -9 and not (tmp_path / "a.bin").exists()
    kept = part.stat().st_size
    assert whole(get(server, tmp_path)) and sent(server)[-1] == f"bytes={kept}-"


def test_two_processes_want_the_same_file(server, tmp_path):
    server.moods[:] = [dict(slow=0.01)]
    both = [fork.Process(target=slow_fetch, args=(server.url + "/a.bin", tmp_path / "a.bin")) for _ in range(2)]
    for p in both: p.start()
    for p in both: p.join()
    assert [p.exitcode for p in both] == [0, 0] and whole(tmp_path / "a.bin") and len(server.asked) == 1


# ---- archives ----

def make(path, *members, **options):
    with zipfile.ZipFile(path, "w", **options) as zf:
        for name, data in members: zf.writestr(name, data)
    return path


def names(folder): return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_unzip_adds_the_top_folder_or_takes_it_for_its_own(tmp_path):
    a = make(tmp_path / "a.zip", ("Top/x/1.wav", b"1"), ("2.wav", b"2"), ("./Top/3.wav", b"3"), ("Top/empty/", b""))
    out = unzip(a, tmp_path / "out", "Top", progress=False)
    assert names(tmp_path / "out") == ["Top/2.wav", "Top/3.wav", "Top/x/1.wav"] and len(out) == 3
    unzip(a, tmp_path / "plain", progress=False)
    assert names(tmp_path / "plain") == ["2.wav", "Top/3.wav", "Top/x/1.wav"]


def special(name, kind):
    info = zipfile.ZipInfo(name); info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a/..", "/x", "//x/y", "C:/x", "c:x", "..\\x", "a\\x", "\\\\host\\x", "a\nx",
                                  special("link", stat.S_IFLNK), special("fifo", stat.S_IFIFO), special("device", stat.S_IFBLK),
                                  "good.wav", "GOOD.wav", "./good.wav", "good.wav/inside"], ids=str)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_members(tmp_path, name):
    a = make(tmp_path / "a.zip", ("good.wav", b"1"), (name, b"2"))
    with pytest.raises(DownloadError, match=r"a\.zip.*nothing was unpacked"): unzip(a, tmp_path / "sub" / "out", progress=False)
    assert names(tmp_path) == ["a.zip"]


def test_a_name_that_hides_behind_nul(tmp_path):
    a = make(tmp_path / "a.zip", ("aaaa.wav", b"1"))
    a.write_bytes(a.read_bytes().replace(b"aaaa.wav", b"aa\0a.wav"))
    with pytest.raises(DownloadError, match="outside"): unzip(a, tmp_path / "out", progress=False)


def test_an_encrypted_member(tmp_path):
    a = make(tmp_path / "a.zip", ("x.wav", b"1"))
    data = bytearray(a.read_bytes())
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)): data[data.index(mark) + at] |= 1
    a.write_bytes(data)
    with pytest.raises(DownloadError, match="encrypted"): unzip(a, tmp_path / "out", progress=False)


def test_bombs(tmp_path):
    a = make(tmp_path / "a.zip", ("zeros", bytes(10**7)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DownloadError, match="would unpack to 10.0 MB"): unzip(a, tmp_path / "out", progress=False)
    assert len(unzip(a, tmp_path / "out", limit=10**7, progress=False)) == 1
    with pytest.raises(DownloadError, match="the most"): unzip(a, tmp_path / "out2", limit=10**7 - 1, progress=False)


def test_a_member_larger_than_it_says_is_an_error(tmp_path):
    a = make(tmp_path / "a.zip", ("zeros", bytes(10**6)), compression=zipfile.ZIP_DEFLATED)
    data = a.read_bytes(); at = data.index(b"PK\1\2") + 24
    a.write_bytes(data[:at] + struct.pack("<I", 1000) + data[at + 4:])
    with pytest.raises(DownloadError, match="broken at zeros"): unzip(a, tmp_path / "out", progress=False)
    assert names(tmp_path / "out") in ([], [".zeros.part"])


def test_a_member_smaller_than_it_says_is_an_error(tmp_path):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        a = make(tmp_path / "a.zip", ("x.wav", CONTENT[:5000]), compression=compression)
        data = a.read_bytes(); at = data.index(b"PK\1\2") + 24
        a.write_bytes(data[:at] + struct.pack("<I", 5001) + data[at + 4:])
        with pytest.raises(DownloadError, match="broken at x.wav"): unzip(a, tmp_path / "out", progress=False)
        assert not (tmp_path / "out/x.wav").exists()


def test_truncated_and_corrupt_archives(tmp_path):
    a = make(tmp_path / "a.zip", *((f"{i}.wav", CONTENT[:50_000]) for i in range(5)))
    good = a.read_bytes()
    for data in (good[:-30], good[:100_000], b"", b"<html>no</html>"):
        a.write_bytes(data)
        with pytest.raises(DownloadError, match="a.zip is no whole zip archive"): unzip(a, tmp_path / "out", progress=False)
    bad = bytearray(good); bad[120_000] ^= 1
    a.write_bytes(bad)
    with pytest.raises(DownloadError, match=r"a\.zip is broken at 2\.wav.*CRC"): unzip(a, tmp_path / "out", progress=False)
    assert not (tmp_path / "out/2.wav").exists() and not (tmp_path / "a.zip.unpacked").exists()
    a.write_bytes(good)
    assert [p.read_bytes() for p in unzip(a, tmp_path / "out", progress=False)] == [CONTENT[:50_000]] * 5
    assert names(tmp_path / "out") == [f"{i}.wav" for i in range(5)]


def test_an_archive_by_another_method_can_be_unpacked_by_hand(tmp_path):
    a = make(tmp_path / "a.zip", ("x.wav", CONTENT[:50_000]))
    data = bytearray(a.read_bytes()); data[data.index(b"PK\1\2") + 10] = 9  # "deflate 64", as Windows makes of large files
    a.write_bytes(data)
    with pytest.raises(DownloadError, match="method 9.*with another program"): unzip(a, tmp_path / "out", progress=False)
    assert names(tmp_path / "out") == []
    (tmp_path / "out/x.wav").write_bytes(CONTENT[:50_000])
    assert len(unzip(a, tmp_path / "out", progress=False)) == 1


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_flipped_byte_gives_a_wrong_file(tmp_path, compression):
    contents = {f"d/{n}.wav": (CONTENT[n:n + 300] * 2)[:500 + n] for n in range(5)}
    good, dice = make(tmp_path / "a.zip", *contents.items(), compression=compression).read_bytes(), np.random.default_rng(0)
    refused = 0
    for n in range(150):
        bad, folder = bytearray(good), tmp_path / str(n)
        for at in dice.integers(0, len(bad), dice.integers(1, 3)): bad[at] ^= 1 << int(dice.integers(8))
        (tmp_path / "a.zip").write_bytes(bad)
        try: found = unzip(tmp_path / "a.zip", folder, progress=False)
        except DownloadError as e: refused += 1; assert "a.zip" in str(e); continue
        assert all(contents.get(str(p.relative_to(folder))) == p.read_bytes() for p in found)
    assert refused > 75


def test_no_archive(tmp_path):
    with pytest.raises(DownloadError, match="fetch it first"): unzip(tmp_path / "a.zip", tmp_path, progress=False)


def test_unzip_leaves_what_is_right_and_mends_what_is_not(tmp_path):
    a = make(tmp_path / "a.zip", *((f"{i}.wav", CONTENT[i:50_000]) for i in range(4)))
    unzip(a, tmp_path / "out", progress=False)
    (tmp_path / "out/1.wav").write_bytes(b"short")
    (tmp_path / "out/2.wav").write_bytes(bytes(49_998))
    kept = (tmp_path / "out/0.wav").stat().st_ino
    out = unzip(a, tmp_path / "out", progress=False)
    assert [p.read_bytes() for p in out] == [CONTENT[i:50_000] for i in range(4)] and out[0].stat().st_ino == kept


def test_unzip_on_a_small_disk(tmp_path, monkeypatch):
    a = make(tmp_path / "a.zip", ("x", CONTENT))
    monkeypatch.setattr(dl.shutil, "disk_usage", lambda p: SimpleNamespace(free=299_999))
    with pytest.raises(DownloadError, match="needs 0.3 MB"): unzip(a, tmp_path / "out", progress=False)
    assert names(tmp_path / "out") == []


def slow_unzip(archive, folder):
    one = dl._unpack_one
    def slowly(*a): time.sleep(0.02); one(*a)
    dl._unpack_one = slowly
    unzip(archive, folder, progress=False)


def test_killed_in_the_middle_of_unzipping(tmp_path):
    contents = [CONTENT[i:] for i in range(30)]
    a, out = make(tmp_path / "a.zip", *((f"d/{i}.wav", c) for i, c in enumerate(contents))), tmp_path / "out"
    for least in (5, 10):
        child = fork.Process(target=slow_unzip, args=(a, out)); child.start()
        until(lambda: len(names(out)) > least)
        child.kill(); child.join()
        assert child.exitcode == -9 and not (tmp_path / "a.zip.unpacked").exists()
    (out / "d/.29.wav.part").write_bytes(b"half")
    assert [p.read_bytes() for p in unzip(a, out, progress=False)] == contents and len(names(out)) == 30


# ---- whole sets ----

WAVES = {f"{n}.wav": CONTENT[n:20_000] for n in range(6)}


@pytest.fixture
def toy(server, tmp_path):
    "A set with two archives of sound, one with its top folder and one without, a table and a model, served with a script."
    for n, top in ((1, "Toy/audio/"), (2, "audio/")):
        server.files[f"/toy.audio.{n}.zip"] = make(tmp_path / "z", *((top + k, v) for k, v in list(WAVES.items())[n::2])).read_bytes()
    server.files["/toy.meta.zip"] = make(tmp_path / "z", ("Toy/meta.csv", "filename\tscene\n")).read_bytes()
    server.files["/labels.csv"] = b"filename,scene_label\n"
    parts = {"/toy.meta.zip": "meta", "/toy.audio.1.zip": "audio.1", "/toy.audio.2.zip": "audio.2", "/labels.csv": "labels"}
    files = [dict(name=n[1:], part=parts[n], urls=[f"https://example.org{n}?download=1"], size=len(b), checksum="md5:" + hashlib.md5(b).hexdigest())
             for n, b in server.files.items() if n in parts]
    for f in files:
        if f["name"].endswith("zip"): f |= dict(top="Toy", unpacked=200_000)
    entry = dict(title="A toy", licence="Share it.", terms=["https://example.org/terms"], citation="Nobody", files=files)
    return SimpleNamespace(registry={"toy": entry}, files=files, root=tmp_path / "data", server=server)


def bring(toy, **options): return download("toy", toy.root, registry=toy.registry, mirror=toy.server.url, progress=False, **dict(accept=True) | options)


def table(toy, **options): return verify("toy", toy.root, registry=toy.registry, progress=False, **options).set_index("file")


def complete(toy): return all((toy.root / "Toy/audio" / k).read_bytes() == v for k, v in list(WAVES.items())[1:]) and (toy.root / "Toy/meta.csv").exists()


def test_a_set_comes_whole_and_the_second_call_asks_nothing(toy):
    assert bring(toy) == toy.root and complete(toy) and (toy.root / "labels.csv").exists() and (toy.root / "archives/toy.meta.zip").exists()
    asked = len(toy.server.asked)
    assert asked == 4 and bring(toy) == toy.root and len(toy.server.asked) == asked
    assert set(table(toy).state) == {"whole"} and len(table(toy)) == 7


def test_the_second_call_does_not_hash(toy, monkeypatch):
    bring(toy)
    monkeypatch.setattr(dl, "hash_file", lambda *a: pytest.fail("hashed again"))
    bring(toy)


def test_a_moody_server(toy):
    toy.server.moods[:] = [dict(status=429), dict(until=100), dict(status=500), dict(), dict(until=5000), dict(no_range=True)]
    bring(toy)
    assert complete(toy) and set(table(toy).state) == {"whole"}


def test_parts(toy):
    bring(toy, parts=["meta"])
    assert names(toy.root / "Toy") == ["meta.csv"]
    bring(toy, parts="audio")
    assert complete(toy) and not (toy.root / "labels.csv").exists()
    assert table(toy, parts=["labels"]).state.tolist() == ["missing"]
    with pytest.raises(DownloadError, match="no part 'aud'; it has audio.1, audio.2, meta, labels"): bring(toy, parts=["aud"])
    toy.registry["toy"]["default"] = ["labels"]
    bring(toy)
    assert (toy.root / "labels.csv").exists()


def test_parts_are_checked_before_the_terms(toy, capsys):
    with pytest.raises(DownloadError, match="no part 'video'"): bring(toy, parts=["video"])
    assert "Share it." not in capsys.readouterr().err and not (toy.root / ".downloads").exists()


def test_the_folder_of_a_set_is_no_root(toy, monkeypatch):
    (toy.root / "Toy").mkdir(parents=True)
    monkeypatch.chdir(toy.root / "Toy")
    for root in (toy.root / "Toy", ".", toy.root / "x" / ".." / "Toy"):
        for do in (download, verify):
            with pytest.raises(DownloadError, match=f"folder that it lies in, --root {toy.root}$"): do("toy", root, registry=toy.registry)
    assert not list((toy.root / "Toy").iterdir()) and not toy.server.asked


def test_verify_says_how_much_of_a_part_is_there(toy):
    bring(toy, parts=["meta"])
    (toy.root / "archives/toy.audio.1.zip.part").write_bytes(toy.server.files["/toy.audio.1.zip"][:50_000])
    found = table(toy)
    assert found.state["toy.audio.1.zip"] == "missing" and found.detail["toy.audio.1.zip"] == f"50.0 kB of {dl._gb(len(toy.server.files['/toy.audio.1.zip']))} there; the same download goes on"
    assert found.detail["toy.audio.2.zip"] == "run download again"


def test_a_stopped_download_says_that_it_goes_on(toy, capsys, monkeypatch):
    def stop(*a, **k): raise KeyboardInterrupt
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt): m.setattr(dl, "unzip", stop); bring(toy)
    assert capsys.readouterr().err.endswith("stopped; what came is kept, and the same command goes on\n")
    bring(toy)
    assert complete(toy)


# ---- unpacked by hand

@pytest.fixture
def unpacked(tmp_path):
    "A copy of TUT17 that somebody unpacked, with files for its sound; (root, the sound's files)."
    files = [tmp_path / "sets" / p for p in write_miniature("tut17", tmp_path / "sets", sound=False).path]
    for path in files: path.parent.mkdir(exist_ok=True); path.write_bytes(b"sound")
    return tmp_path / "sets", files


def held(root, **options): return verify("tut17", root, progress=False, **options).set_index("file")


def test_a_set_unpacked_by_hand_is_taken(unpacked, capsys):
    root, files = unpacked
    found = held(root)
    assert set(found.state) == {"unpacked"} and len(found) == 19
    for top in TUT17_FOLDERS:
        n = sum(p.parent.parent.name == top for p in files)
        assert set(found.detail[found.index.str.startswith(top)]) == {f"unpacked without its archive: {n} of {n} files there; what is in them is not checked"}
    assert download("tut17", root, accept=True, mirror="http://127.0.0.1:9", progress=False) == root, "nothing is asked for"
    assert capsys.readouterr().err.count("is taken as it is") == 2
    assert cli.main(["download", "tut17", "--root", str(root), "--verify"]) == 0


@pytest.mark.parametrize("spoil", [Path.unlink, lambda p: p.write_bytes(b"")])
def test_a_set_unpacked_by_half_is_not(unpacked, spoil, monkeypatch):
    root, files = unpacked
    spoil(files[-1])  # of the evaluation set
    found, n = held(root), sum(p.parent.parent.name == TUT17_FOLDERS[1] for p in files)
    assert set(found.state[:13]) == {"unpacked"} and set(found.state[13:]) == {"missing"} and f"{n - 1} of {n} files there" in found.detail.iloc[-1]
    asked = []
    monkeypatch.setattr(dl, "fetch", lambda urls, path, *a, **k: asked.append(path.name) or path.write_bytes(b"") or (_ for _ in ()).throw(DownloadError("enough")))
    (root / "archives").mkdir()
    with pytest.raises(DownloadError, match="enough"): download("tut17", root, accept=True, progress=False)
    assert asked == [f"{TUT17_FOLDERS[1]}.doc.zip"]


def test_what_was_unpacked_by_hand_is_fetched_where_asked_for(unpacked, monkeypatch):
    root, _ = unpacked
    monkeypatch.setattr(dl, "_bring", lambda f, *a: (_ for _ in ()).throw(DownloadError(f"asked for {f.part}")))
    with pytest.raises(DownloadError, match="asked for development.error"): download("tut17", root, "error", accept=True, progress=False)


def test_an_archive_that_was_here_once_is_not_taken_for_unpacked_by_hand(unpacked):
    "As after `verify` found its files corrupt and forgot the note."
    root, _ = unpacked
    (root / ".downloads").mkdir()
    (root / ".downloads/tut17.json").write_text(json.dumps(dict(right={f"{TUT17_FOLDERS[0]}.audio.1.zip": [1, 2, None]})))
    found = held(root)
    assert found.state[f"{TUT17_FOLDERS[0]}.audio.1.zip"] == "missing" and (found.state == "unpacked").sum() == 18


def test_what_came_from_another_archive_does_not_count(unpacked):
    "A download in the middle: some archives unpacked, one of them without its note yet, others still to come."
    root, files = unpacked
    mine = [p for p in files if p.parent.parent.name == TUT17_FOLDERS[0]]
    (root / "archives").mkdir()
    noted, plain = mine[0::3], mine[1::3]
    (root / f"archives/{TUT17_FOLDERS[0]}.audio.1.zip.unpacked").write_text("".join(f"{zlib.crc32(b'sound'):08x}\t5\t{p.relative_to(root)}\n" for p in noted))
    make(root / f"archives/{TUT17_FOLDERS[0]}.audio.2.zip", *((f"{TUT17_FOLDERS[0]}/audio/{p.name}", b"sound") for p in plain))
    for path in mine[2::3]: path.unlink()
    assert held(root).detail[f"{TUT17_FOLDERS[0]}.audio.3.zip"] == "run download again"
    mine[2].write_bytes(b"sound")
    assert f"1 of {len(mine[2::3])} files there" in held(root).detail[f"{TUT17_FOLDERS[0]}.audio.3.zip"]


def test_zips_are_deleted_and_remembered(toy):
    bring(toy, delete_zips=True)
    assert complete(toy) and not list(toy.root.rglob("*.zip"))
    asked = len(toy.server.asked)
    bring(toy)
    assert len(toy.server.asked) == asked
    assert table(toy).state.value_counts().to_dict() == {"whole": 4, "removed": 3}


def test_zips_kept_at_first_can_be_deleted_later(toy):
    bring(toy); asked = len(toy.server.asked)
    bring(toy, delete_zips=True)
    assert len(toy.server.asked) == asked and not list(toy.root.rglob("*.zip")) and complete(toy)


def test_files_that_were_deleted_come_back(toy):
    bring(toy, delete_zips=True)
    (toy.root / "Toy/audio/3.wav").unlink()
    bring(toy)
    assert complete(toy) and toy.server.asked[-1].path.startswith("/toy.audio.1.zip")


def test_verify_finds_a_flipped_byte_and_download_mends_it(toy):
    bring(toy)
    flip(toy.root / "Toy/audio/4.wav")
    found = table(toy)
    assert found.state[found.state == "corrupt"].index.tolist() == ["toy.audio.2.zip, unpacked"] and "4.wav" in found.detail["toy.audio.2.zip, unpacked"]
    flip(toy.root / "archives/toy.audio.1.zip"); flip(toy.root / "labels.csv")
    assert sorted(table(toy).index[table(toy).state == "corrupt"]) == ["labels.csv", "toy.audio.1.zip"]
    asked = len(toy.server.asked)
    bring(toy)
    assert complete(toy) and set(table(toy).state) == {"whole"} and len(toy.server.asked) == asked + 2


def flip(path):
    data = bytearray(path.read_bytes()); data[len(data) // 2] ^= 1
    stamp = path.stat().st_mtime_ns
    path.write_bytes(data); os.utime(path, ns=(stamp, stamp))


def test_a_set_found_corrupt_without_its_zip_is_fetched_again(toy):
    bring(toy, delete_zips=True)
    flip(toy.root / "Toy/audio/1.wav")
    assert "corrupt" in set(table(toy).state)
    bring(toy, delete_zips=True)
    assert complete(toy) and not (set(table(toy).state) - {"whole", "removed"})


def test_a_zip_brought_by_hand_is_taken(toy):
    (toy.root / "archives").mkdir(parents=True)
    for name in ("toy.audio.1.zip", "toy.audio.2.zip", "toy.meta.zip"): (toy.root / "archives" / name).write_bytes(toy.server.files["/" + name])
    bring(toy, parts=["meta", "audio"])
    assert complete(toy) and not toy.server.asked


def test_a_wrong_zip_brought_by_hand_is_not(toy, capsys):
    (toy.root / "archives").mkdir(parents=True)
    (toy.root / "archives/toy.meta.zip").write_bytes(b"?" * len(toy.server.files["/toy.meta.zip"]))
    bring(toy)
    assert complete(toy) and "fetched again" in capsys.readouterr().err


def test_a_new_edition_of_an_archive_replaces_what_came_out_of_the_old_one(toy):
    bring(toy)
    new = make(toy.root.parent / "z", ("Toy/meta.csv", "a new table\n")).read_bytes()
    toy.server.files["/toy.meta.zip"] = new
    next(f for f in toy.files if f["part"] == "meta").update(size=len(new), checksum="md5:" + hashlib.md5(new).hexdigest())
    bring(toy)
    assert (toy.root / "Toy/meta.csv").read_text() == "a new table\n" and set(table(toy).state) == {"whole"}


def test_terms_are_accepted_once(toy, capsys, monkeypatch):
    with pytest.raises(DownloadError, match="not accepted yet.*example.org/terms.*--accept"): bring(toy, accept=False)
    assert "Share it." in capsys.readouterr().err and not toy.server.asked
    bring(toy, parts=["labels"]); bring(toy, accept=False)
    assert complete(toy)
    toy.registry["toy"]["licence"] = "Keep it."
    with pytest.raises(DownloadError, match="not accepted"): bring(toy, accept=False)
    monkeypatch.setattr(dl.sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda text: "no")
    with pytest.raises(DownloadError, match="nothing was fetched"): bring(toy, accept=False)
    monkeypatch.setattr("builtins.input", lambda text: "Yes")
    assert bring(toy, accept=False) == toy.root


def test_room_is_counted_before_anything_is_fetched(toy, monkeypatch):
    free = lambda n: monkeypatch.setattr(dl.shutil, "disk_usage", lambda p: SimpleNamespace(free=n))
    steps = dl._held(dl._listed("toy", toy.registry), toy.root, False)
    less = dl._held(dl._listed("toy", toy.registry), toy.root, True)
    assert max(less) < max(steps) == sum(f["size"] + f.get("unpacked", 0) for f in toy.files)
    free(max(steps) - 1)
    with pytest.raises(DownloadError, match=r"data needs .* MB and has .* MB free.*--delete-zips"): bring(toy)
    assert not toy.server.asked
    free(max(less))
    bring(toy, delete_zips=True)
    assert complete(toy)
    free(0)
    bring(toy)


def test_room_after_an_interruption_is_what_is_missing(toy):
    bring(toy)
    (toy.root / "archives/toy.audio.1.zip.unpacked").unlink()
    (toy.root / "Toy/audio/3.wav").unlink()
    assert max(dl._held(dl._listed("toy", toy.registry), toy.root, False)) == len(WAVES["3.wav"])


def test_ledger_that_cannot_be_read(toy):
    bring(toy); asked = len(toy.server.asked)
    (toy.root / ".downloads/toy.json").write_text('{"right": [')
    with pytest.raises(DownloadError, match="not accepted"): bring(toy, accept=False)
    bring(toy)
    assert len(toy.server.asked) == asked and complete(toy)


def test_an_archive_that_claims_too_much(toy):
    bomb = make(toy.root.parent / "z", ("Toy/zeros", bytes(700_000)), compression=zipfile.ZIP_DEFLATED).read_bytes()
    toy.server.files["/toy.meta.zip"] = bomb
    toy.files[2] |= dict(size=len(bomb), checksum="md5:" + hashlib.md5(bomb).hexdigest())
    with pytest.raises(DownloadError, match="most it may"): bring(toy, parts=["meta"])


def test_a_size_that_nobody_knows(toy):
    for f in toy.files: f |= dict(size=None, about=1000)
    toy.server.moods[:] = [dict(until=2000)]
    bring(toy)
    assert complete(toy) and set(table(toy).state) == {"whole"}


def test_checksums_from_the_record(toy, capsys):
    f = next(f for f in toy.files if f["part"] == "audio.1")
    known, f["checksum"], f["record"] = f["checksum"], None, "https://example.org/api/records/1"
    toy.server.files["/api/records/1"] = json.dumps(dict(files=[dict(key=f["name"], checksum=known)])).encode()
    bring(toy)
    assert complete(toy) and capsys.readouterr().err.count("checksum") == 0 and set(table(toy).state) == {"whole"}
    asked = len(toy.server.asked)
    bring(toy)
    assert len(toy.server.asked) == asked
    flip(toy.root / "archives/toy.audio.1.zip")
    assert table(toy).state["toy.audio.1.zip"] == "corrupt"


@pytest.mark.parametrize("answer", [None, b"<html>", b"{}", b"[]", b'{"files": [{"key": "other", "checksum": "md5:1"}]}', b'{"files": [{"key": "toy.audio.1.zip", "checksum": "crc:1"}]}'])
def test_no_checksum_from_the_record_is_said(toy, capsys, answer):
    f = next(f for f in toy.files if f["part"] == "audio.1")
    f["checksum"], f["record"] = None, "https://example.org/api/records/1"
    if answer is not None: toy.server.files["/api/records/1"] = answer
    bring(toy)
    assert complete(toy) and "only its size is checked" in capsys.readouterr().err
    assert table(toy).state["toy.audio.1.zip"] == "size only"


def test_a_wrong_checksum_in_the_record(toy):
    f = next(f for f in toy.files if f["part"] == "audio.1")
    f["checksum"], f["record"] = None, "https://example.org/api/records/1"
    toy.server.files["/api/records/1"] = json.dumps(dict(files=[dict(key=f["name"], checksum=MD5)])).encode()
    with pytest.raises(DownloadError, match="corrupt"): bring(toy)


@pytest.fixture
def microphones(toy):
    toy.registry = {"toy": toy.registry["toy"] | dict(files=[], listing=dict(url="https://example.org/list?ref=1", raw="https://example.org/raw/", folder="mics", suffix=".wav"))}
    row = lambda n, data: dict(name=n, size=len(data), sha=hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())
    rows = [row("B&O 2.wav", b"boom"), row("A.wav", b"a"), row("README.md", b"x")]
    toy.server.files |= {"/list": json.dumps(rows).encode(), "/raw/B%26O%202.wav": b"boom", "/raw/A.wav": b"a"}
    return toy


def test_a_listed_set(microphones):
    with pytest.raises(DownloadError, match="not been downloaded"): table(microphones)
    bring(microphones)
    assert names(microphones.root / "mics") == [".A.wav.lock", ".B&O 2.wav.lock", "A.wav", "B&O 2.wav"]
    asked = len(microphones.server.asked)
    bring(microphones)
    assert asked == 3 == len(microphones.server.asked) and set(table(microphones).state) == {"whole"}
    (microphones.root / "mics/A.wav").write_bytes(b"b")
    assert table(microphones).state["A.wav"] == "corrupt"


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"message": "API rate limit exceeded"}', b'[{"name": "../x.wav", "size": 1, "sha": "0"}]', b'[{"name": "x.wav"}]', b"<html>", None])
def test_a_list_that_is_none(microphones, answer):
    microphones.server.files["/list"] = answer
    with pytest.raises(DownloadError): bring(microphones)
    assert not (microphones.root / "mics").exists()


def test_a_listed_file_that_is_another(microphones):
    microphones.server.files["/raw/A.wav"] = b"b"
    with pytest.raises(DownloadError, match="A.wav is corrupt"): bring(microphones)


def slow_download(toy):
    one = dl._unpack_one
    def slowly(zf, m, *a):
        with open(toy.root / "log", "a") as f: f.write(m.filename + "\n")
        time.sleep(0.1); one(zf, m, *a)
    dl._unpack_one = slowly
    bring(toy)


def test_killed_anywhere_the_next_run_ends_whole(toy):
    for wait in (0.05, 0.1, 0.15, 0.2):
        toy.server.moods[:] = [dict(slow=0.01)] * 3
        child = fork.Process(target=slow_download, args=(toy,)); child.start()
        time.sleep(wait); child.kill(); child.join()
        assert child.exitcode == -9
    toy.server.moods[:] = []
    bring(toy)
    assert complete(toy) and set(table(toy).state) == {"whole"}


def test_two_processes_want_the_same_set(toy):
    both = [fork.Process(target=slow_download, args=(toy,)) for _ in range(2)]
    for p in both: p.start()
    for p in both: p.join()
    assert [p.exitcode for p in both] == [0, 0] and complete(toy) and len(toy.server.asked) == 4
    assert len((toy.root / "log").read_text().splitlines()) == 6, "both unpacked"


# ---- the registry, and the command ----

def test_registry_that_ships():
    registry, table = load_registry(), data_sets()
    assert list(registry) == ["tau22", "tut17", "icme24", "beats", "micirp"] and table.file.is_unique
    assert table.groupby("set").size().to_dict() == dict(tau22=18, tut17=19, icme24=4, beats=3)
    assert table.bytes[table.set == "tau22"].sum() == 27_503_592_469
    unknown = table[table.checksum.isna()]
    assert unknown.set.unique().tolist() == ["icme24"] and (~table.exact).sum() == 3
    assert (table.groupby("set").bytes.sum() / 1e9).round(2).to_dict() == dict(tau22=27.5, tut17=14.3, icme24=5.97, beats=1.09)
    for s in registry.values():
        for f in s["files"]:
            assert all(u.startswith("https://") for u in f["urls"]) and (f["checksum"] or f["record"] and f["size"])
            kind, _, digest = (f["checksum"] or "md5:" + "0" * 32).partition(":")
            assert len(bytes.fromhex(digest)) == dict(md5=16, sha256=32)[kind]
    assert dl._wanted("beats", registry, None) == {"pretrained"} and dl._wanted("micirp", registry, None) == {"all"}
    assert len(dl._wanted("tut17", registry, ["development.audio", "evaluation"])) == 16


def test_ends_of_parts():
    registry = load_registry()
    assert dl._wanted("tut17", registry, ["audio.7", "error"]) == {"development.audio.7", "development.error"}
    for part, several in (("audio.1", "development.audio.1 or evaluation.audio.1"), ("audio", "development.audio or evaluation.audio"), ("meta", "development.meta or evaluation.meta")):
        with pytest.raises(DownloadError, match=f"'{part}' may be {several} of tut17"): dl._wanted("tut17", registry, part)
    for part in ("audio.11", "udio.1", "", ".", "audio."):
        with pytest.raises(DownloadError, match="tut17 has no part .*; it has development.doc, "): dl._wanted("tut17", registry, part)


def test_registries_that_are_none(tmp_path):
    path = tmp_path / "r.json"
    good = load_registry()
    with pytest.raises(DownloadError, match="cannot be read as a registry"): load_registry(path)
    broken = [{"a/b": good["beats"]}, {"x": {}}, {"x": 1}, {"x": good["beats"] | dict(files=1)}, {"x": good["beats"] | dict(files=[{"name": "a"}])},
              {"x": good["micirp"] | dict(listing={})}]
    broken += [{"x": good["beats"] | dict(files=[good["beats"]["files"][0] | change])} for change in
               (dict(name="../a"), dict(name="a/b"), dict(name=""), dict(name=3), dict(urls="https://a.org/x"), dict(urls=[]), dict(checksum="crc:1"), dict(top="../x"), dict(what=1))]
    for content in ["", "[]", "{", *map(json.dumps, broken)]:
        path.write_text(content)
        with pytest.raises(DownloadError): load_registry(path)


def test_unknown_names(tmp_path):
    for do in (download, verify):
        with pytest.raises(DownloadError, match="'tau23' is not in the registry; there are tau22"): do("tau23", tmp_path)


def command(capsys, *args):
    code = cli.main(["download", *map(str, args)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_command(toy, capsys, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(toy.registry))
    common = ("toy", "--root", toy.root, "--registry", tmp_path / "r.json")
    code, out, err = command(capsys, *common, "--mirror", toy.server.url)
    assert code == 2 and err.splitlines()[-1].startswith("contrastasc download: the terms of toy")
    code, out, err = command(capsys, *common, "--mirror", toy.server.url, "--accept", "--parts", "meta", "audio", "--delete-zips")
    assert code == 0 and str(toy.root) in out and complete(toy) and not list(toy.root.rglob("*.zip"))
    assert command(capsys, *common, "--verify", "--parts", "meta", "audio")[0] == 0
    flip(toy.root / "Toy/audio/5.wav")
    code, out, err = command(capsys, *common, "--verify", "--parts", "audio")
    assert code == 1 and "5.wav" in out and "corrupt" in out
    assert command(capsys, *common, "--verify")[0] == 1


def test_command_says_no_in_one_sentence(capsys, tmp_path):
    for args in (["tau23"], ["tau22", "--parts", "video", "--accept"], ["tau22", "--mirror", "http://example.org", "--accept", "--parts", "meta"]):
        code, out, err = command(capsys, *args, "--root", tmp_path)
        assert code == 2 and err.splitlines()[-1].startswith("contrastasc download: ") and "Traceback" not in err


def test_default_root_is_below_home(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRASTASC_HOME", str(tmp_path / "home"))
    assert download("toy", registry=toy.registry, mirror=toy.server.url, accept=True, progress=True) == tmp_path / "home/datasets"
    assert (tmp_path / "home/datasets/Toy/meta.csv").exists()
