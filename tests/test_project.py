"Maps: every number against a trusted one, and what goes wrong on odd input."
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from contrastasc import project
from contrastasc.project import (METHODS, Projection, directions, map_errors, map_quality, margins, nearest, overlap, plot_map,
                                 prototypes, purity, ranks, sample, turn_to)


@pytest.fixture(scope="module")
def cloud():
    "Three well separated classes in 12 dimensions, in random order."
    dice = np.random.default_rng(0)
    labels = dice.permutation(np.repeat(np.arange(3), 40))
    return (3 * np.eye(12)[labels] + dice.normal(size=(120, 12))).astype(np.float32), labels


def test_directions_have_length_one_and_name_what_is_broken():
    assert np.allclose(np.linalg.norm(directions(np.random.default_rng(0).normal(size=(9, 4))), axis=1), 1)
    assert (directions(np.zeros((2, 3))) == 0).all()
    with pytest.raises(ValueError, match="embedding 1 holds NaN"): directions([[0, 1], [0, np.inf]])
    with pytest.raises(ValueError, match=r"\[N, D\]"): directions(np.zeros(3))


@pytest.mark.parametrize("d", [2, 12])
def test_neighbours_and_ranks_are_those_of_the_full_distance_matrix(d):
    x = np.random.default_rng(d).normal(size=(300, d))
    want = NearestNeighbors(n_neighbors=7).fit(x).kneighbors(return_distance=False)
    assert (nearest(x, 7) == want).all()
    order = cdist(x, x).argsort(1).argsort(1)
    others = np.random.default_rng(1).integers(0, 299, (300, 5))
    others += others >= np.arange(300)[:, None]
    assert (ranks(x, others) == np.take_along_axis(order, others, 1)).all()
    rows = np.array([5, 299, 0])
    assert (nearest(x, 7, rows) == want[rows]).all() and (ranks(x, others[rows], rows) == ranks(x, others)[rows]).all()


def test_a_point_is_never_its_own_neighbour_even_with_a_twin():
    x = np.repeat(np.random.default_rng(0).normal(size=(20, 3)), 2, axis=0)
    assert (nearest(x, 1)[:, 0] == np.arange(40) ^ 1).all()
    with pytest.raises(ValueError, match="40 points have no 40 others"): nearest(x, 40)


@pytest.mark.parametrize("k", [1, 5, 15])
def test_errors_agree_with_the_referee(cloud, k):
    x, xy = directions(cloud[0]), np.random.default_rng(0).normal(size=(120, 2))
    errors = map_errors(x, xy, k)
    assert errors.trust.mean() == pytest.approx(trustworthiness(x, xy, n_neighbors=k), abs=1e-12)
    assert errors.continuity.mean() == pytest.approx(trustworthiness(xy, x, n_neighbors=k), abs=1e-12)
    assert errors.near.shape == errors.torn.shape == errors.faked.shape == (120, k)


def test_a_perfect_map_has_no_errors():
    x = np.column_stack([np.cos(t := np.linspace(0, 3, 60) ** 1.1), np.sin(t)])
    errors = map_errors(x, x, 5)
    assert errors.distortion.max() == 0 and not errors.torn.any() and not errors.faked.any()


def test_errors_of_some_points_are_those_of_all(cloud):
    xy, rows = np.random.default_rng(0).normal(size=(120, 2)), np.array([3, 77])
    some, every = map_errors(cloud[0], xy, 5, rows), map_errors(cloud[0], xy, 5)
    assert (some.trust == every.trust[rows]).all() and (some.continuity == every.continuity[rows]).all()


def test_errors_need_enough_points_and_as_many_on_the_map(cloud):
    with pytest.raises(ValueError, match="too few"): map_errors(cloud[0][:20], np.zeros((20, 2)), 10)
    with pytest.raises(ValueError, match="119 points on the map"): map_errors(cloud[0], np.zeros((119, 2)))


@pytest.mark.parametrize("method", METHODS)
def test_maps_keep_groups_together_and_repeat_themselves(cloud, method):
    x, labels = cloud
    first, second = (Projection(method).fit(x).xy for _ in range(2))
    assert first.shape == (120, 2) and first.dtype == np.float32 and (first == second).all()
    assert purity(first, labels, 10).mean() > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_newcomers_land_among_their_own_and_turn_with_the_map(cloud, method):
    x, labels = cloud
    projection = Projection(method).fit(x[:100])
    there = projection.place(x[100:])
    assert (labels[:100][cdist(there, projection.xy).argsort(1)[:, :5]] == labels[100:, None]).mean() > 0.8
    before = projection.xy.copy()
    projection.turn(before @ np.array([[0, -2], [2, 0]]) + 5)
    assert np.allclose(projection.xy, before @ np.array([[0, -2], [2, 0]]) + 5, atol=1e-3)
    assert np.allclose(projection.place(x[100:]), there @ np.array([[0, -2], [2, 0]]) + 5, atol=2e-3)


def test_a_kept_map_is_read_and_not_made_again(cloud, tmp_path, monkeypatch):
    first = Projection("tsne").fit(cloud[0], cache=tmp_path).xy
    assert [p.suffix for p in tmp_path.iterdir()] == [".npy"]
    with monkeypatch.context() as m:
        m.setattr(project, "TSNE", None)
        assert (Projection("tsne").fit(cloud[0], cache=tmp_path).xy == first).all()
    Projection("tsne", neighbours=9).fit(cloud[0], cache=tmp_path); Projection("tsne").fit(cloud[0] + 1, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("method", ["umap", "pca"])
def test_maps_of_many_numbers_are_the_same_every_time(method):
    x = np.random.default_rng(0).normal(size=(520, 100))
    assert (Projection(method).fit(x).xy == Projection(method).fit(x).xy).all()


def test_a_new_process_finds_the_machine_code_of_the_last_one(cloud):
    Projection().fit(cloud[0])
    code = """
from contrastasc.project import Projection, np, _ready_umap
Projection().fit(np.random.default_rng(0).normal(size=(60, 8)))
print(sum(_ready_umap().umap_.smooth_knn_dist.stats.cache_hits.values()))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["1"], done.stderr


def test_newcomers_join_the_map_that_was_kept(cloud, tmp_path):
    x, labels = cloud
    Projection().fit(x[:100], cache=tmp_path)
    path = next(tmp_path.iterdir())
    np.save(path, np.load(path)[:, ::-1] + 100)
    projection = Projection().fit(x[:100], cache=tmp_path)
    assert (labels[:100][cdist(projection.place(x[100:]), projection.xy).argsort(1)[:, :5]] == labels[100:, None]).mean() > 0.8


def test_a_fit_reports_its_progress_and_can_be_stopped(cloud, tmp_path):
    heard = []
    Projection().fit(cloud[0], heard.append)
    assert heard == sorted(heard) and heard[0] < 0.01 and heard[-1] == 1
    def stop(share):
        if share > 0.2: raise InterruptedError
    with pytest.raises(InterruptedError): Projection().fit(cloud[0], stop, cache=tmp_path)
    assert not list(tmp_path.iterdir())
    assert np.isfinite(Projection().fit(cloud[0]).xy).all()  # and the next one is none the worse


@pytest.mark.parametrize("n", [4, 5, 17])
def test_few_points_make_a_map_too(n):
    x = np.random.default_rng(n).normal(size=(n, 6))
    for method in METHODS: assert np.isfinite(Projection(method).fit(x).xy).all()


def test_bad_settings_and_too_few_points_are_named():
    for words, settings in {"no method 'pac'": dict(method="pac"), "at least 2": dict(neighbours=1), "0..1": dict(min_dist=2.0)}.items():
        with pytest.raises(ValueError, match=words): Projection(**settings)
    with pytest.raises(ValueError, match="at least 4 embeddings"): Projection().fit(np.ones((3, 5)))
    with pytest.raises(ValueError, match="at least 4 embeddings"): Projection().fit(np.ones((9, 1)))


def test_turning_finds_mirror_scale_and_shift():
    a = np.random.default_rng(0).normal(size=(30, 2))
    matrix, shift = turn_to(a, a @ np.array([[0, 3], [3, 0]]) - 2)
    assert np.allclose(matrix, [[0, 3], [3, 0]]) and np.allclose(shift, -2)
    assert np.isfinite(turn_to(np.zeros((5, 2)), a[:5])[0]).all()


def test_overlap_and_purity_of_known_cases(cloud):
    x, labels = cloud
    assert (overlap(x, -x, 5) == 1).all() and overlap(x, np.random.default_rng(0).normal(size=(120, 2)), 5).mean() < 0.2
    assert purity(np.arange(6.0)[:, None] ** 2, [0, 0, 0, 1, 1, 1], 1).tolist() == [1, 1, 1, 0, 1, 1]
    quality = map_quality(x, xy := Projection("pca").fit(x).xy, labels)
    assert quality == map_quality(x, xy, labels, errors=map_errors(x, xy, 15))
    assert np.isclose(quality["purity, map"], purity(xy, labels).mean()) and np.isclose(quality["purity, embedding"], purity(directions(x), labels).mean())
    assert set(quality) >= {"trustworthiness", "continuity", "kept", "purity, map", "silhouette, embedding", "retrieval mAP"}
    assert set(map_quality(x, x[:, :2])) == {"trustworthiness", "continuity", "kept"}


def test_prototypes_and_margins(cloud):
    x, labels = cloud
    means, m = prototypes(x, labels), margins(x, labels)
    assert np.allclose(np.linalg.norm(means, axis=1), 1) and (m > 0).mean() > 0.95
    cosine = directions(x) @ means.T
    assert m[0] == pytest.approx(cosine[0, labels[0]] - max(cosine[0, c] for c in range(3) if c != labels[0]))
    with pytest.raises(ValueError, match="class 1 has no clip"): prototypes(x, np.where(labels == 1, 0, labels))


@pytest.mark.parametrize("n", [3, 10, 100, 5000])
def test_a_sample_keeps_the_proportions(n):
    labels = np.random.default_rng(0).permutation(np.repeat(["a", "b", "c"], [700, 290, 10]))
    some = sample(labels, n)
    assert len(some) == len(set(some)) == min(n, 1000) and (np.diff(some) > 0).all()
    names, counts = np.unique(labels[some], return_counts=True)
    assert len(names) == 3 and abs(counts[0] - 0.7 * len(some)) <= 2
    assert (sample(labels, n) == some).all() and (n in (3, 5000) or (sample(labels, n, seed=1) != some).any())


def test_pictures_show_what_they_should(cloud):
    xy, labels = cloud[0][:, :2], np.array(["x_1", "y", "z"])[cloud[1]]
    fig = plot_map({"one": xy, "two": -xy}, labels, "scene", chosen=labels == "y")
    assert [a.get_title() for a in fig.axes] == ["one", "two"]
    assert [t.get_text() for t in fig.axes[1].get_legend().get_texts()] == ["others", "x 1", "y", "z"]
    fig = plot_map(xy, np.arange(120.0), "margin")
    assert fig.axes[1].get_ylabel() == "margin"
    fig = plot_map(xy, labels, order=["z"])
    assert len(fig.axes[0].collections) == 2
    with pytest.raises(ValueError, match="2 points, but there are 120 colours"): plot_map({"m": xy[:2]}, labels)
    plt.close("all")
