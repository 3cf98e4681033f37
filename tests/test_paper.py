"""Rows of the paper's tables: measured once, kept whole, joined with those that ship."""
import json
import os
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from contrastasc import paper
from contrastasc.audio import write_audio
from contrastasc.beats import BEATs, BEATsConfig
from contrastasc.datasets import SceneError, write_miniature
from contrastasc.paper import PAPER, STUDENTS, TABLES, TEACHERS, Start, load_rows, measure, over_seeds, recordings, table, train_row, train_teacher, worlds
from contrastasc.pretrained import load_pretrained
from contrastasc.study import CHECKPOINT, CLAIMS, begin, conditions, draw_claims, jobs, real, try_claims
from contrastasc.synth import home, world_frame


@pytest.fixture(scope="module")
def bench(): return worlds("tiny")


def lines(**metrics):
    "Made-up lines of three seeds: row -> metric -> values."
    return pd.DataFrame([dict(data="worlds", scale="class", row=row, variant="cpm30k" if row in STUDENTS else "", seed=s, parameters=1000, **{k: v[s] for k, v in m.items()})
                         for row, m in metrics.items() for s in range(3)])


def test_a_row_is_measured_once(bench, monkeypatch):
    first = measure("mean log-mel", bench, "tiny", progress=False)
    assert first["data"] == "worlds" and first["seed"] == 0 and 0 < first["tut17_5"] < 1 and "closed" not in first
    monkeypatch.setattr(paper, "train_row", lambda *a: pytest.fail("measured again"))
    assert measure("mean log-mel", bench, "tiny", progress=False) == first
    with pytest.raises(pytest.fail.Exception): measure("mean log-mel", bench, "tiny", seed=1)


def test_a_stopped_measurement_leaves_no_line(bench, monkeypatch):
    def stop(*a): raise KeyboardInterrupt
    monkeypatch.setattr(paper, "_target_numbers", stop)
    before = set((home() / "results" / "rows").glob("*"))
    with pytest.raises(KeyboardInterrupt): measure("mean log-mel", bench, "tiny", seed=7, progress=False)
    assert set((home() / "results" / "rows").glob("*")) == before


def test_rows_measured_here_come_before_shipped_ones(bench, monkeypatch):
    measure("mean log-mel", bench, "tiny", progress=False)
    mine = load_rows("worlds", "tiny", shipped=False)
    shipped = mine.assign(tut17_5=-1.0, origin="shipped")
    other = shipped.assign(seed=99)
    monkeypatch.setattr(paper, "_shipped", lambda: pd.concat([shipped, other]))
    frame = load_rows("worlds", "tiny")
    assert (frame[frame.seed != 99].origin == "here").all() and (frame.tut17_5[frame.seed != 99] > 0).all() and (frame.seed == 99).any()


def test_recordings_whose_known_scenes_are_all_in_the_pool(tmp_path):
    "Nothing to test the classifier on, but K-shot works."
    rng, rows = np.random.default_rng(0), ["filename,class,split,group"]
    for scene, sides in dict(park=["pool"] * 4, tram=["pool"] * 4, zoo=["pool", "test"] * 2, mine=["pool", "test"] * 2).items():
        for i, side in enumerate(sides):
            write_audio(tmp_path / f"{scene}{i}.wav", 0.1 * rng.normal(size=16000).astype(np.float32))
            rows.append(f"{scene}{i}.wav,{scene},{side},{scene}-{i}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    bench = recordings(tmp_path, most=1, progress=False)
    assert bench.closed is None and bench.train.classes == ["park", "tram"] and len(bench.train) == 8
    assert paper._closed_numbers(None, bench) == {}


def test_rows_differ_by_variant_seed_and_settings(bench):
    names = {paper._kept(r, bench, "tiny", s, v) for r in (*TEACHERS, *STUDENTS) for s in (0, 1) for v in (("cpm6k", "cpm12k") if r in STUDENTS else ("",))}
    assert len(names) == 2 * len(TEACHERS) + 4 * len(STUDENTS)


def test_shipped_rows_are_whole():
    frame = paper._shipped()
    assert not frame.duplicated(paper._KEY).any() and set(frame.row) <= {"mean log-mel", *TEACHERS, *STUDENTS} and (frame.scale == "class").all()
    shares = frame.drop(columns=["data", "scale", "row", "variant", "seed", "code", "parameters", "origin"])
    assert shares.stack().dropna().between(0, 1).all() and frame.tut17_5[frame.data == "worlds"].notna().all()


def test_interval_over_seeds():
    frame = lines(**{"FT+KD": dict(closed=[0.5, 0.6, 0.7])})
    r = over_seeds(frame, "closed").loc["FT+KD"]
    assert np.isclose(r["mean"], 0.6) and np.isclose(r.hi - r.lo, 2 * 4.302653 * 0.1 / np.sqrt(3), atol=1e-4) and r.seeds == 3
    assert over_seeds(frame, "closed", "cpm6k").empty and np.isnan(over_seeds(frame[:1], "closed").lo.iloc[0])


def test_claims_are_paired_over_seeds():
    better, worse = np.array([0.3, 0.5, 0.7]), np.array([0.28, 0.47, 0.68])
    frame = lines(**{"FT+CRD": dict(closed=better), "FT+KD": dict(closed=worse), "C-FT+CRD": dict(tut17_5=worse, tut17_5_normed=better)})
    tried = try_claims(frame, ("closed", "tut17_5"), "cpm30k").set_index("claim")
    assert tried.verdict["CRD helps after FT"] == "held" and tried.verdict["embeddings before the norm, not after"] == "reversed"
    assert "cosine head, not linear" not in tried.index
    assert try_claims(frame[frame.seed == 0], ("closed",), "cpm30k").verdict.tolist() == ["one seed"]


@pytest.mark.parametrize("title", TABLES)
def test_tables_print_ours_and_theirs(title):
    columns = TABLES[title][1]
    text = table(lines(**{row: {c: [0.1, 0.2, 0.3] for c in columns} for row in TABLES[title][0]}), title, "cpm30k")
    assert text.count("20.0 [") == len(TABLES[title][0]) * len(columns)
    for row in set(TABLES[title][0]) & set(PAPER):
        line = next(l for l in text.splitlines() if l.startswith(f"| {row} |"))
        assert all(f"({PAPER[row][c]:.1f}" in line for c in columns if c in PAPER[row])
    assert (title.startswith("Table 3")) == ("!" in text)


def test_no_claims_no_picture():
    with pytest.raises(ValueError, match="nothing to draw"): draw_claims(try_claims(lines(**{"FT+KD": dict(closed=[0.5, 0.6, 0.7])}), ("closed",), "cpm30k"))


def test_every_claim_names_rows_that_exist():
    for c in CLAIMS: assert {c.better, c.worse} <= {*TEACHERS, *STUDENTS} and (c.better != c.worse or c.normed)
    assert len({c.text for c in CLAIMS}) == len(CLAIMS)


@pytest.fixture
def checkpoint(tmp_path):
    "A small encoder in the official file format, with the dropouts and the layer-wise decay of a pre-training."
    small = BEATsConfig.from_dict(dict(encoder_layers=1, encoder_embed_dim=32, encoder_ffn_embed_dim=32, encoder_attention_heads=2, embed_dim=16, input_patch_size=16, conv_pos=16,
                                       conv_pos_groups=2, deep_norm=True, gru_rel_pos=True, relative_position_embedding=True, num_buckets=32, max_distance=80,
                                       dropout=0.1, encoder_layerdrop=0.05, layer_wise_gradient_decay_ratio=0.6))
    torch.manual_seed(1)
    torch.save(dict(cfg=asdict(small), model=BEATs(small).state_dict()), tmp_path / CHECKPOINT)
    return tmp_path / CHECKPOINT


def test_teachers_start_from_a_checkpoint(bench, checkpoint):
    start = Start(beats=str(checkpoint), precision="bfloat16")
    encoder = start.encoder()
    assert encoder.config.dropout == encoder.config.encoder_layerdrop == 0 and encoder.config.layer_wise_gradient_decay_ratio == 1 and encoder.config.encoder_embed_dim == 32
    few = bench.train.subset(range(0, 200, 5))
    frozen, tuned = (train_teacher(row, few, "tiny", progress=False, start=start) for row in ("teacher frozen", "teacher CE"))
    key = "patch_embedding.weight"
    assert torch.equal(frozen.encoder.state_dict()[key], encoder.state_dict()[key]) and not torch.equal(tuned.encoder.state_dict()[key], encoder.state_dict()[key])
    assert next(tuned.parameters()).device.type == "cpu" and tuned.encoder.config.encoder_embed_dim == 32
    assert train_teacher("teacher CE", few, "tiny", progress=False).encoder.config.encoder_embed_dim != 32  # without it: another folder, another teacher


def test_teachers_start_from_the_encoder_that_ships(bench):
    start, few = begin("nano-ssl"), bench.train.subset(range(0, 200, 5))
    frozen, tuned = (train_teacher(row, few, "tiny", progress=False, start=start) for row in ("teacher frozen", "teacher CE"))
    shipped, key = load_pretrained("nano-ssl"), "encoder.layers.3.fc1.weight"
    assert torch.equal(frozen.encoder.state_dict()[key], shipped.state_dict()[key]) and not torch.equal(tuned.encoder.state_dict()[key], shipped.state_dict()[key])
    assert frozen.embed(few.batch([0])["wave"]).shape == (1, 192)  # the mean, as every teacher is read
    assert start.hashes("beats") and start.hashes("beats") != Start().hashes("beats") and "start from nano-ssl" in conditions(replace(bench, start=start), "tiny", "cpm6k")


def test_what_lies_beside_the_data_is_used(tmp_path, checkpoint):
    for name, world in (("tau22", 2), ("tut17", 2), ("icme24", 2)):
        frame = world_frame(f"synth-{name}", "tiny")
        write_miniature(name, tmp_path, frame[frame.scene.isin(frame.scene.unique()[:2])].groupby(["scene", "split"]).head(world), sample_rate=16000, bits=16)
    (tmp_path / "micirp").mkdir(); write_audio(tmp_path / "micirp" / "B&O_BM2.wav", torch.eye(1, 64)[0], 44100)
    bench = real(tmp_path, icme24="icme24-random")
    assert bench.start == Start(str(checkpoint), str(tmp_path / "micirp")) and bench.name == "tau22+tut17+icme24-random"
    words = conditions(bench, "tiny", "cpm6k")
    assert "random split" in words and f"start from {CHECKPOINT}" in words and "measured impulse responses" in words and set(bench.targets) == {"tut17", "icme24"}
    student = train_row("student without KD", bench.train, "tiny", variant="cpm6k", progress=False, start=bench.start)
    assert all(p.isfinite().all() for p in student.parameters())
    alone = real(tmp_path, beats="none", responses="none")
    assert alone.start == Start() and "without pre-training" in conditions(alone, "tiny", "cpm126k") and "published" not in conditions(alone, "tiny", "cpm126k")
    with pytest.raises(SceneError, match="meta.csv is missing"): real(tmp_path / "micirp")
    for wrong, about in (("nowhere.pt", "nowhere.pt"), (tmp_path / "micirp" / "B&O_BM2.wav", "checkpoint")):
        with pytest.raises(ValueError, match=about): real(tmp_path, beats=wrong)
    with pytest.raises(ValueError, match="no impulse responses here"): real(tmp_path, responses=tmp_path)


def test_what_was_trained_depends_on_contents_not_on_paths(bench, tmp_path):
    def run(folder): return paper._student_run("FT+KD", bench.train, "tiny", 0, "cpm6k", Start(responses=str(folder)))
    for name in ("one", "two"):
        (tmp_path / name).mkdir(); write_audio(tmp_path / name / "a.wav", torch.eye(1, 64)[0], 16000)
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    assert one[1] == two[1] != paper._student_run("FT+KD", bench.train, "tiny", 0, "cpm6k", Start())[1] and one[0].responses != two[0].responses
    write_audio(tmp_path / "two" / "b.wav", torch.eye(1, 32)[0], 16000)
    assert run(tmp_path / "two")[1] != one[1]
    assert replace(bench, start=Start(responses=str(tmp_path / "two"))).setup("tiny") != replace(bench, start=Start(responses=str(tmp_path / "one"))).setup("tiny")
    assert replace(bench, closed=bench.closed.subset(range(5))).setup("tiny") != bench.setup("tiny") != bench.setup("class")


def test_rows_of_another_setup_are_not_mixed_in(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRASTASC_HOME", str(tmp_path))
    folder = tmp_path / "results" / "rows"; folder.mkdir(parents=True)
    for n, (setup, seed) in enumerate((("a", 0), ("a", 1), ("b", 0))):
        path = folder / f"row-{9 - n}.json"
        path.write_text(json.dumps(dict(data="worlds", scale="tiny", row="FT+KD", variant="cpm6k", seed=seed, setup=setup, tut17_5=n / 10)))
        os.utime(path, (n, n))
    assert load_rows("worlds", "tiny", shipped=False).tut17_5.tolist() == [0.2]
    (folder / "row-0.json").write_text('{"data": "wor')
    with pytest.raises(ValueError, match="row-0.json is not a whole line of results"): load_rows("worlds", "tiny")


def test_a_seed_given_twice_counts_once():
    assert jobs((0, 0), "cpm6k", ("cpm6k", "cpm12k", "cpm12k")) == jobs((0,), "cpm6k", ("cpm12k",))
    with pytest.raises(ValueError, match="no student 'cpm7k'; there are cpm6k"): jobs(sizes=("cpm7k",))
