"""Embeddings, retrieval, K-shot, intervals, comparisons and the closed set."""
import dataclasses
import inspect
import types

import contrastasc
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, confusion_matrix
from threadpoolctl import threadpool_limits

from contrastasc import evaluate
from contrastasc.evaluate import (average_precision, closed_set, compare, extract_embeddings, kshot, kshot_scenes, retrieval_map,
                                  seed_interval, shot_lists)

matplotlib.use("Agg")


def clouds(n_classes=4, groups=6, per_group=5, d=12, class_spread=0.7, group_spread=0.7, seed=0):
    "Embeddings, string labels and group names; classes are the same for every seed."
    rng, fixed = np.random.default_rng([seed, 1]), np.random.default_rng(2)
    y = np.repeat(np.arange(n_classes), groups * per_group)
    g = np.repeat(np.arange(n_classes * groups), per_group)
    x = class_spread * fixed.normal(size=(n_classes, d))[y] + group_spread * rng.normal(size=(n_classes * groups, d))[g] + rng.normal(size=(len(y), d))
    return x.astype(np.float32), np.array([f"class {c}" for c in "dbca"[:n_classes]])[y], np.array([f"{seed}-{v}" for v in g])


POOL, TEST = clouds(seed=0), clouds(seed=1)


def measure(k=5, repeats=20, **kwargs):
    return kshot(*POOL[:2], *TEST[:2], k, repeats, **kwargs)


# --- embeddings


class Scenes:
    "The least that a set of scenes must offer."

    def __init__(self, seconds, seed=0):
        rng = np.random.default_rng(seed)
        self.waves = [torch.from_numpy(rng.normal(size=int(16000 * s)).astype(np.float32)) for s in seconds]
        self.frame = pd.DataFrame({"path": [f"clip{i}.wav" for i in range(len(seconds))], "duration": np.asarray(seconds, float)})
        self.fingerprint = f"scenes {seed} {list(seconds)}"

    def __len__(self): return len(self.waves)
    def waveform(self, i): return self.waves[i]
    def windows(self, i): return self.waves[i][: len(self.waves[i]) // 16000 * 16000].view(-1, 16000)
    def batch(self, index): return dict(wave=torch.stack([self.waves[i][:16000] for i in index]))


class Encoder(torch.nn.Module):
    "Three moments through a layer that behaves differently in training."
    sample_rate, name = 16000, "moments"

    def __init__(self, **options):
        super().__init__()
        self.drop, self.scale, self.batches = torch.nn.Dropout(0.5), torch.nn.Parameter(torch.tensor(2.0)), []
        vars(self).update(options)

    def embed(self, wave):
        assert not torch.is_grad_enabled()
        self.batches.append(tuple(wave.shape))
        return self.drop(self.scale * torch.stack([wave.mean(1), wave.std(1), wave.abs().amax(1)], 1))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("seconds", [[1] * 9, [10, 10, 10], [1, 3, 10, 2, 1]])
def test_embeddings_are_means_over_windows(seconds, batch_size):
    scenes, encoder = Scenes(seconds), Encoder()
    x = extract_embeddings(encoder, scenes, batch_size=batch_size, progress=False)
    by_hand = [np.mean([[2 * w.mean(), 2 * w.std(), 2 * w.abs().max()] for w in scenes.windows(i)], 0) for i in range(len(seconds))]
    assert x.dtype == np.float32 and np.allclose(x, by_hand, atol=1e-5)
    assert max(b for b, _ in encoder.batches) <= max(batch_size, max(seconds))


def test_whole_clips():
    scenes, encoder = Scenes([3, 3, 5, 1.5]), Encoder()
    x = extract_embeddings(encoder, scenes, progress=False, whole_clip=True)
    assert np.allclose(x, [[2 * w.mean(), 2 * w.std(), 2 * w.abs().max()] for w in scenes.waves], atol=1e-5)
    assert [t for _, t in encoder.batches] == [48000, 48000, 80000, 24000]


def test_modes_come_back_even_after_an_error():
    encoder = Encoder()
    encoder.train(); encoder.drop.eval()
    extract_embeddings(encoder, Scenes([1, 1]), progress=False)
    assert encoder.training and not encoder.drop.training
    broken = Encoder()
    broken.scale.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="moments gave NaN or infinity for clip0.wav"): extract_embeddings(broken, Scenes([1, 1]), progress=False)
    assert broken.training and broken.drop.training and torch.is_grad_enabled()


def test_the_clip_that_breaks_is_named():
    scenes, encoder = Scenes([2, 2, 2]), Encoder()
    scenes.waves[1][20000] = torch.inf
    with pytest.raises(ValueError, match="clip1.wav"): extract_embeddings(encoder, scenes, progress=False)


def test_any_object_with_embed_will_do():
    plain = types.SimpleNamespace(embed=lambda wave: wave[:, :4])
    assert extract_embeddings(plain, Scenes([1, 1, 1]), progress=False).shape == (3, 4)
    fast = types.SimpleNamespace(embed=lambda wave: torch.full((len(wave), 1), float(wave.shape[1])), sample_rate=32000)
    assert (extract_embeddings(fast, Scenes([1, 2]), progress=False) == 32000).all(), "other rates are resampled"
    wrong = types.SimpleNamespace(embed=lambda wave: wave[None], name="flat")
    with pytest.raises(ValueError, match=r"flat.embed must give \[B, D\]"): extract_embeddings(wrong, Scenes([1]), progress=False)
    with pytest.raises(ValueError, match="empty"): extract_embeddings(plain, Scenes([]), progress=False)


def test_cache(tmp_path):
    encoder, scenes = Encoder(), Scenes([1, 1])
    first = extract_embeddings(encoder, scenes, progress=False, cache=tmp_path / "new")
    calls = len(encoder.batches)
    assert np.array_equal(extract_embeddings(encoder, scenes, progress=False, cache=tmp_path / "new"), first) and len(encoder.batches) == calls
    encoder.scale.data += 1
    other = extract_embeddings(encoder, scenes, progress=False, cache=tmp_path / "new")
    assert not np.array_equal(other, first), "other weights, other file"
    extract_embeddings(encoder, Scenes([1, 1], seed=1), progress=False, cache=tmp_path / "new")
    assert len(list((tmp_path / "new").glob("*.npy"))) == 3 and not list((tmp_path / "new").glob("*.part"))


# --- retrieval


def naive(x, labels, groups=None):
    "AP of every query from scikit-learn's definition."
    similarity = (x @ x.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))
    ap, valid = np.zeros(len(x)), np.zeros(len(x), bool)
    for q in range(len(x)):
        others = np.arange(len(x)) != q if groups is None else groups != groups[q]
        relevant = labels[others] == labels[q]
        if relevant.any(): ap[q], valid[q] = average_precision_score(relevant, similarity[q, others]), True
    return ap, valid


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 40), classes=st.integers(1, 6), seed=st.integers(0, 99), chunk=st.sampled_from([1, 3, 512]), grouped=st.booleans())
def test_average_precision_equals_a_loop(n, classes, seed, chunk, grouped):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(n, 5)), rng.integers(0, classes, n)
    groups = rng.integers(0, 8, n) if grouped else None
    ap, valid = average_precision(x, labels, groups, chunk)
    expected, there = naive(x, labels, groups)
    assert (valid == there).all() and np.allclose(ap, expected, atol=1e-9)


def test_retrieval_extremes():
    x, y = np.eye(4).repeat(3, 0), np.arange(4).repeat(3)
    assert retrieval_map(x, y) == 1 and retrieval_map(x, y, average="macro") == 1
    assert retrieval_map(np.ones((6, 3)), [0, 0, 0, 1, 1, 1]) == pytest.approx(2 / 5), "equal clips: the share of relatives"
    assert retrieval_map(np.zeros((4, 3)), [0, 0, 1, 1]) == pytest.approx(1 / 3)
    order = np.random.default_rng(0).permutation(12)
    noisy = x + np.random.default_rng(1).normal(size=x.shape)
    assert retrieval_map(noisy, y) == pytest.approx(retrieval_map(noisy[order], y[order]))
    assert retrieval_map(noisy * np.arange(1, 13)[:, None], y) == pytest.approx(retrieval_map(noisy, y)), "lengths do not matter"


def test_retrieval_averages_and_errors():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), np.array(["a"] * 20 + ["b"] * 9 + ["c"])
    ap, valid = average_precision(x, y)
    assert valid.sum() == 29 and not valid[-1] and ap[-1] == 0
    assert retrieval_map(x, y) == pytest.approx(ap[:29].mean())
    assert retrieval_map(x, y, average="macro") == pytest.approx((ap[:20].mean() + ap[20:29].mean()) / 2)
    with pytest.raises(ValueError, match="no clip has a relative"): retrieval_map(x[:3], [0, 1, 2])
    with pytest.raises(ValueError, match="different groups"): retrieval_map(x[:4], [0, 0, 1, 1], groups=[5, 5, 6, 6])
    with pytest.raises(ValueError, match="30 embeddings, 29 labels"): retrieval_map(x, y[1:])
    with pytest.raises(ValueError, match="'micro' or 'macro'"): retrieval_map(x, y, average="mean")
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="embedding 3 holds NaN"): retrieval_map(x, y)


# --- shots


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(4, 30), min_size=1, max_size=5), k=st.integers(1, 4), seed=st.integers(0, 50), grouped=st.booleans())
def test_shots(sizes, k, seed, grouped):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    groups = np.array([f"{c}-{rng.integers(0, 6)}" for c in y]) if grouped else None
    shots = shot_lists(y, k, 12, seed, groups)
    assert shots.shape == (12, k * len(sizes))
    assert (y[shots] == np.repeat(np.arange(len(sizes)), k)).all()
    assert all(len(set(row)) == len(row) for row in shots)
    assert np.array_equal(shots, shot_lists(y, k, 12, seed, groups)) and np.array_equal(shots, shot_lists(y, k, 30, seed, groups)[:12])
    if grouped:
        for row in shots:
            for c in range(len(sizes)):
                used = groups[row[c * k:(c + 1) * k]]
                have = len(set(groups[y == c]))
                assert len(set(used)) == min(k, have), "as many groups as there are"


def test_all_shots_when_k_is_everything():
    y = np.array([0] * 5 + [1] * 5)
    for groups in (None, np.array([0, 0, 0, 1, 2, 3, 3, 4, 4, 4])):
        assert (np.sort(shot_lists(y, 5, 4, groups=groups), 1) == np.arange(10)).all()


def test_draws_are_uniform():
    counts = np.bincount(shot_lists([0] * 10, 3, 20000).ravel())
    assert np.abs(counts / 20000 - 0.3).max() < 0.015
    groups = np.repeat(np.arange(5), [1, 2, 3, 4, 10])
    picked = np.bincount(groups[shot_lists([0] * 20, 1, 5000, groups=groups).ravel()]) / 5000
    assert np.abs(picked - 0.2).max() < 0.03, "groups count alike, however long"


def test_too_few_shots():
    y = ["bus"] * 5 + ["home"] * 3
    for groups in (None, list("aabbcdee")):
        with pytest.raises(ValueError, match="class home has 3 clips in the pool, fewer than k=4: choose a smaller k"): shot_lists(y, 4, groups=groups)
    with pytest.raises(ValueError, match="at least one shot"): shot_lists(y, 0)
    with pytest.raises(ValueError, match="two repeats"): shot_lists(y, 1, 1)
    with pytest.raises(ValueError, match="8 labels, 3 groups"): shot_lists(y, 1, groups=[1, 2, 3])


# --- K-shot


@pytest.mark.parametrize("k, standardise", [(1, False), (5, False), (5, True)])
def test_kshot_is_a_loop_of_scikit_learn(k, standardise):
    result = measure(k, 15, standardise=standardise, groups=POOL[2])
    expected = []
    for rows in shot_lists(POOL[1], k, 15, groups=POOL[2]):
        x = POOL[0][rows]
        centre, scale = (x.mean(0), x.std(0)) if standardise else (0, 1)
        with threadpool_limits(1): model = LogisticRegression(max_iter=1000).fit((x - centre) / scale, POOL[1][rows])
        expected.append(model.score((TEST[0] - centre) / scale, TEST[1]))
    assert np.abs(result.per_repeat - expected).max() < 0.021 and abs(result.mean - np.mean(expected)) < 0.003


def test_kshot_runs_on_to_the_optimum():
    rows = shot_lists(POOL[1], 5, 5)
    expected = [LogisticRegression(max_iter=5000, tol=1e-8).fit(POOL[0][r], POOL[1][r]).score(TEST[0], TEST[1]) for r in rows]
    assert np.abs(measure(5, 5, tol=1e-7).per_repeat - expected).max() < 0.009


def test_means_method():
    result = measure(method="mean")
    for rows, accuracy in zip(shot_lists(POOL[1], 5, 20), result.per_repeat):
        names = np.unique(POOL[1])
        means = np.stack([POOL[0][rows][POOL[1][rows] == c].mean(0) for c in names])
        found = names[((TEST[0][:, None] - means) ** 2).sum(-1).argmin(1)]
        assert abs((found == TEST[1]).mean() - accuracy) < 0.009


def test_same_shots_for_every_model():
    other = np.random.default_rng(0).normal(size=(120, 33))
    first, second = measure(groups=POOL[2]), kshot(other, POOL[1], other, TEST[1], 5, 20, groups=POOL[2])
    assert first.draws == second.draws and first.hits.shape == second.hits.shape
    assert measure(seed=1).draws != measure().draws != measure(4).draws
    again = measure(groups=POOL[2])
    assert np.array_equal(first.hits, again.hits) and first.ci95 == again.ci95


def test_integer_labels_and_threads_change_nothing():
    number = {c: i for i, c in enumerate(np.unique(POOL[1]))}
    result = kshot(POOL[0], [number[c] for c in POOL[1]], TEST[0], [number[c] for c in TEST[1]], 5, 20)
    assert np.array_equal(result.hits, measure().hits) and list(result.per_class) == [0, 1, 2, 3]
    before = torch.get_num_threads()
    tensors = kshot(torch.tensor(POOL[0]), POOL[1], torch.tensor(TEST[0]), TEST[1], 5, 20)
    assert np.array_equal(tensors.hits, result.hits) and torch.get_num_threads() == before


def test_blocks_and_chunks_change_nothing():
    whole = measure(5, 40, groups=POOL[2], test_groups=TEST[2])
    source = inspect.getsource(evaluate._fit_and_test).replace("2**21", "2**14"), inspect.getsource(evaluate._hits).replace("2**21", "2**9")
    space = dict(vars(evaluate))
    for code in source: exec(code, space)
    assert (space["_fit_and_test"](POOL[0], np.unique(POOL[1], return_inverse=True)[1], TEST[0], whole.labels,
                                   shot_lists(POOL[1], 5, 40, groups=POOL[2]), 4, "logistic", False, 1e-4) == whole.hits).mean() > 0.9999


def test_sums_agree():
    result = measure(test_groups=TEST[2], seen=["class a", "class b"])
    sizes = {c: (TEST[1] == c).sum() for c in result.classes}
    assert result.mean == pytest.approx(sum(result.per_class[c] * n for c, n in sizes.items()) / len(TEST[1]))
    assert result.mean == pytest.approx(result.hits.mean()) and np.allclose(result.per_repeat, result.hits.mean(1))
    macro = dataclasses.replace(result, average="macro")
    assert macro.mean == pytest.approx(np.mean(list(result.per_class.values())))
    assert result.mean == pytest.approx(0.5 * result.seen.mean + 0.5 * result.unseen.mean)
    assert result.seen.per_class == {c: result.per_class[c] for c in ("class a", "class b")}
    assert result.subset(["class c"]).mean == pytest.approx(result.per_class["class c"])
    assert result.subset(result.classes).mean == result.mean


def test_unequal_classes_micro_and_macro():
    keep = np.r_[0:120:1][(TEST[1] != "class a") | (np.arange(120) % 5 == 0)]
    micro, macro = (kshot(*POOL[:2], TEST[0][keep], TEST[1][keep], 5, 20, average=a) for a in ("micro", "macro"))
    assert np.array_equal(micro.hits, macro.hits) and micro.per_class == macro.per_class
    assert macro.mean == pytest.approx(np.mean(list(macro.per_class.values()))) and micro.mean == pytest.approx(micro.hits.mean())


def test_classes_restrict_both_sides():
    some = ["class a", "class c"]
    result = measure(classes=some, groups=POOL[2], test_groups=TEST[2])
    assert result.classes == ("class a", "class c") and result.hits.shape == (20, 60)
    keep, test = np.isin(POOL[1], some), np.isin(TEST[1], some)
    same = kshot(POOL[0][keep], POOL[1][keep], TEST[0][test], TEST[1][test], 5, 20, groups=POOL[2][keep], test_groups=TEST[2][test])
    assert np.array_equal(result.hits, same.hits)


def test_pool_may_hold_more_classes_than_the_test():
    keep = TEST[1] != "class a"
    result = kshot(*POOL[:2], TEST[0][keep], TEST[1][keep], 5, 20, average="macro", test_groups=TEST[2][keep])
    assert set(result.per_class) == {"class b", "class c", "class d"} and len(result.classes) == 4
    assert result.mean == pytest.approx(np.mean(list(result.per_class.values()))) and result.ci95[0] <= result.mean <= result.ci95[1]


def test_at_most_so_many_clips_of_a_group():
    result = measure(test_groups=TEST[2], max_per_group=2, average="macro")
    assert (result.used.sum(1) == 48).all() and len({row.tobytes() for row in result.used}) > 1
    for row in result.used: assert (np.unique(TEST[2][row], return_counts=True)[1] == 2).all()
    full = measure(test_groups=TEST[2], average="macro")
    assert abs(result.mean - full.mean) < 0.05
    assert measure(test_groups=TEST[2], max_per_group=99).per_class == full.per_class


@settings(max_examples=20, deadline=None)
@given(classes=st.integers(2, 4), k=st.integers(1, 3), scale=st.sampled_from([0.0, 1.0, 30.0]), standardise=st.booleans(), method=st.sampled_from(["logistic", "mean"]))
def test_degenerate_embeddings_give_numbers(classes, k, scale, standardise, method):
    y = np.repeat(np.arange(classes), 4)
    x = (scale * np.random.default_rng(0).normal(size=(len(y), 3))).astype(np.float32)
    x[:, 0] = 3.0
    result = kshot(x, y, x, y, k, 3, standardise=standardise, method=method)
    assert np.isfinite([result.mean, *result.ci95, *result.per_repeat, *result.per_class.values()]).all()
    if scale == 0: assert result.mean == pytest.approx(1 / classes), "no information, chance"


def test_kshot_errors():
    x, y, g = POOL
    bad = x.copy(); bad[7, 3] = np.nan
    for call, words in (
        (lambda: measure(31), "class class a has 30 clips in the pool, fewer than k=31"),
        (lambda: measure(31, groups=g), "class class a has 30 clips in the pool, fewer than k=31"),
        (lambda: kshot(x, y, *clouds(3)[:1], ["class z"] * 90, 5), "class z is tested but has no clip in the pool"),
        (lambda: kshot(bad, y, x, y, 5), "pool embedding 7 holds NaN"),
        (lambda: kshot(x, y, bad, y, 5), "test embedding 7 holds NaN"),
        (lambda: kshot(x, y[1:], x, y, 5), "120 pool embeddings, 119 pool labels"),
        (lambda: kshot(x, y, x, y, 5, test_groups=g[:3]), "3 test groups"),
        (lambda: kshot(x, y, x[:, :4], y, 5), "12 dimensions, test embeddings 4"),
        (lambda: kshot(x, y, x[:0], y[:0], 5), "no test clips"),
        (lambda: kshot(x[:30], y[:30], x[:30], y[:30], 5), "at least two classes"),
        (lambda: measure(average="median"), "'micro' or 'macro'"),
        (lambda: measure(method="tree"), "'logistic' or 'mean'"),
        (lambda: measure(max_per_group=3), "needs test_groups"),
        (lambda: measure().seen, "pass seen= to kshot"),
        (lambda: measure().subset(["class z"]), "no test clip is of these classes"),
        (lambda: kshot(x[:, 0], y, x, y, 5), r"must be \[N, D\]"),
    ):
        with pytest.raises(ValueError, match=words): call()


# --- intervals


def test_what_intervals_cover():
    shots, groups = measure(5, 100), measure(5, 100, test_groups=TEST[2])
    assert shots.covers.startswith("shots") and groups.covers.startswith("test groups: 24 groups")
    for r in (shots, groups): assert r.ci95[0] < r.mean < r.ci95[1] and "5-shot" in repr(r)
    more = measure(5, 400), measure(5, 400, test_groups=TEST[2])
    width = lambda r: r.ci95[1] - r.ci95[0]
    assert width(more[0]) == pytest.approx(width(shots) / 2, rel=0.3), "repeats shrink the interval over shots"
    assert width(more[1]) == pytest.approx(width(groups), rel=0.2), "but not the one over groups"
    half = measure(5, 100).per_repeat.std(ddof=1) * 1.984 / 10
    assert shots.ci95[1] - shots.mean == pytest.approx(half, rel=1e-3)


def test_group_interval_is_a_bootstrap():
    result = measure(5, 50, test_groups=TEST[2], average="macro")
    rng, draws = np.random.default_rng(1), []
    by_group = {c: [result.hits[:, (TEST[1] == c) & (TEST[2] == g)].mean() for g in np.unique(TEST[2][TEST[1] == c])] for c in result.classes}
    for _ in range(4000): draws.append(np.mean([np.mean(rng.choice(v, len(v))) for v in by_group.values()]))
    assert np.allclose(result.ci95, np.percentile(draws, [2.5, 97.5]), atol=0.01)


def test_groups_of_several_classes_are_drawn_whole():
    mixed = np.array([f"place {i % 7}" for i in range(120)])
    for average in ("micro", "macro"):
        r = measure(test_groups=mixed, average=average)
        assert r.ci95[0] < r.mean < r.ci95[1] and "7 groups" in r.covers
    rare = np.where(TEST[1] == "class a", "only place of a", "other" + TEST[2].astype(object)).astype(str)
    assert "1 of the classes have one test group" in measure(test_groups=rare).covers
    few = np.array(["p", "q"] * 60); few[TEST[1] == "class a"] = "p"
    assert np.isfinite(measure(test_groups=few, average="macro").ci95).all(), "a class may be missing from a draw"


def test_seed_interval():
    r = seed_interval([0.5, 0.6, 0.7])
    assert r.mean == pytest.approx(0.6) and r.hi - r.mean == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert "training seeds" in r.covers and "0.600" in str(r)
    for values in ([0.5], [0.5, np.nan]):
        with pytest.raises(ValueError, match="two finite values"): seed_interval(values)


# --- comparison


@pytest.mark.parametrize("grouped", [False, True])
def test_compare(grouped):
    options = dict(groups=POOL[2], test_groups=TEST[2] if grouped else None)
    full = measure(5, 60, **options)
    half = kshot(POOL[0][:, :6], POOL[1], TEST[0][:, :6], TEST[1], 5, 60, **options)
    table = compare({"full": full, "half": half})
    assert table.loc["full", ["difference", "difference_lo", "difference_hi"]].tolist() == [0, 0, 0]
    assert table.loc["half", "difference"] == pytest.approx(half.mean - full.mean)
    assert table.loc["half", "difference_lo"] <= table.loc["half", "difference"] <= table.loc["half", "difference_hi"]
    turned = compare({"full": full, "half": half}, baseline="half")
    assert turned.loc["full", "difference_lo"] == pytest.approx(-table.loc["half", "difference_hi"])
    paired = table.loc["half", "difference_hi"] - table.loc["half", "difference_lo"]
    apart = np.hypot(*[np.diff(r.ci95)[0] for r in (full, half)])
    assert paired < apart, "pairing takes away what both share"


def test_compare_refuses_what_is_not_paired():
    for other in (measure(seed=1), measure(4), measure(average="macro"), measure(test_groups=TEST[2]), measure().subset(["class a"])):
        with pytest.raises(ValueError, match="not measured on the same shots"): compare({"one": measure(), "other": other})
    with pytest.raises(ValueError, match="there is no result 'x'"): compare({"one": measure()}, baseline="x")
    with pytest.raises(ValueError, match="not measured"): compare({"one": measure(test_groups=TEST[2]), "other": measure(test_groups=TEST[1])})
    both = {n: measure(seen=["class a"]).seen for n in "ab"}
    assert compare(both).loc["b", "difference"] == 0


# --- a folder


def folder(seed=0):
    x, y, g = clouds(4, 6, 12, seed=seed)
    number = np.array([int(v.split("-")[1]) for v in g])
    return x, pd.DataFrame(dict(scene=y, group=g, split=np.where(number % 6 < 3, "pool", "test")))


def test_kshot_scenes():
    x, frame = folder()
    result = kshot_scenes(x, frame, 5, repeats=10, seen=["class a"])
    assert result.average == "macro" and result.classes == ("class a", "class b", "class c", "class d")
    assert (result.used.sum(1) == 4 * 3 * 8).all() and "12 groups" in result.covers and 0 <= result.seen.mean <= 1
    same = kshot_scenes(x, types.SimpleNamespace(frame=frame.assign(split=frame.split.replace("pool", "train"))), 5, repeats=10)
    assert np.array_equal(same.hits, result.hits)
    assert kshot_scenes(x * 3 + 1, frame, 5, repeats=10).draws == result.draws
    assert kshot_scenes(x, frame, 5, repeats=10, seed=1).draws != result.draws
    order = np.random.default_rng(0).permutation(len(frame))
    assert kshot_scenes(x[order], frame.iloc[order], 5, repeats=60).mean == pytest.approx(kshot_scenes(x, frame, 5, repeats=60).mean, abs=0.03)


def test_kshot_scenes_leaves_small_classes_out():
    x, frame = folder()
    few = frame.assign(split=np.where((frame.scene == "class a") & (frame.split == "pool"), "extra", frame.split))
    assert "class a" not in kshot_scenes(x, few, 5, repeats=5).classes
    assert len(kshot_scenes(x, frame, 5, repeats=5, min_groups=6).classes) == 4
    with pytest.raises(ValueError, match="only 0 classes have at least 7 groups"): kshot_scenes(x, frame, 5, min_groups=7)
    with pytest.raises(ValueError, match="has clips on both sides"): kshot_scenes(x, frame.assign(split=np.resize(["pool", "test"], len(frame))), 5)
    with pytest.raises(ValueError, match="class class a has 36 clips in the pool, fewer than k=40"): kshot_scenes(x, frame, 40)
    with pytest.raises(ValueError, match="287 embeddings, 288 clips"): kshot_scenes(x[1:], frame, 5)


def test_kshot_scenes_on_real_recordings(real_scenes):
    "Published accuracy of public embeddings: mean and standard deviation of log-mel, MFCC statistics, a CP-Mobile trained on TAU22."
    manifest, peers = pd.read_csv(real_scenes / "manifest.csv"), real_scenes / "peers"
    if not peers.is_dir() or "split_group" not in manifest: pytest.skip("these recordings come without embeddings to compare with")
    soundfile = pytest.importorskip("soundfile")
    enough = manifest.groupby("class").split_group.transform("nunique") >= 4
    rows = manifest[enough].copy()
    rows["seconds"] = [soundfile.info(str(real_scenes / "audio" / f)).frames // 16000 for f in rows.filename]
    frame = rows.loc[rows.index.repeat(rows.seconds)].rename(columns={"class": "scene", "split_group": "group"})
    for name, expected in (("mfcc_statistics", (0.137, 0.148)), ("tau22_trained_cpm126k", (0.204, 0.229))):
        for k, accuracy in zip((5, 20), expected):
            result = kshot_scenes(np.load(peers / f"{name}.npy"), frame, k)
            assert result.mean == pytest.approx(accuracy, abs=0.005) and result.ci95[0] < accuracy < result.ci95[1]


# --- the closed set


def test_closed_set():
    rng, classes = np.random.default_rng(0), ["bus", "home", "park"]
    truth = rng.integers(0, 3, 200)
    logits = 2 * np.eye(3)[truth] + rng.normal(size=(200, 3)) * 1.5
    devices, found = np.array(["a", "b"])[rng.integers(0, 2, 200)], logits.argmax(1)
    r = closed_set(torch.tensor(logits), truth, classes, devices)
    assert np.array_equal(r.confusion, confusion_matrix(truth, found)) and r.n == 200
    assert r.accuracy == pytest.approx((found == truth).mean()) and r.macro == pytest.approx(np.mean([(found == truth)[truth == c].mean() for c in range(3)]))
    assert r.per_device == {d: pytest.approx((found == truth)[devices == d].mean()) for d in "ab"}
    assert r.ci95[0] < r.accuracy < r.ci95[1] and "Wilson" in r.covers and "pass groups" in r.covers
    names = closed_set(np.array(classes)[found], np.array(classes)[truth], classes)
    assert np.array_equal(names.confusion, r.confusion) and names.per_device == {}
    assert np.array_equal(closed_set(found, truth, classes).confusion, r.confusion)
    grouped = closed_set(logits, truth, classes, groups=np.arange(200) // 20)
    assert grouped.covers == "test groups (10 groups drawn again)" and grouped.ci95[0] < r.accuracy < grouped.ci95[1]
    r.plot_confusion(); r.plot_devices()
    matplotlib.pyplot.close("all")


def test_wilson():
    r = closed_set([0] * 10, [0] * 10, ["x", "y"])
    assert r.ci95 == pytest.approx((0.7225, 1.0), abs=1e-3) and r.per_class == {"x": 1.0} and r.macro == 1
    r = closed_set([0] * 20, [0] * 10 + [1] * 10, ["x", "y"])
    assert r.ci95 == pytest.approx((0.2993, 0.7007), abs=1e-3)


def test_closed_set_errors():
    classes = ["bus", "home"]
    for call, words in (
        (lambda: closed_set(np.zeros((3, 3)), [0, 1, 1], classes), "3 columns but there are 2 classes"),
        (lambda: closed_set(np.zeros((3, 2)), [0, 1], classes), "3 outputs, 2 labels"),
        (lambda: closed_set(np.array([[0, np.nan]]), [0], classes), "output 0 holds NaN"),
        (lambda: closed_set([0, 2], [0, 1], classes), "predictions must lie in 0..1"),
        (lambda: closed_set([0, 1], ["bus", "train"], classes), "labels hold 'train'"),
        (lambda: closed_set([], [], classes), "no clips"),
        (lambda: closed_set([0], [0], classes).plot_devices(), "no devices"),
    ):
        with pytest.raises(ValueError, match=words): call()
