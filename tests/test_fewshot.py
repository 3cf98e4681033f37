"""The few-shot classifier: solvers against scikit-learn, calibration, novelty, growing, and wrong input."""
import copy
import pickle
import warnings

import contrastasc
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from contrastasc.fewshot import (FewShotClassifier, class_means, fit_like_sklearn, fit_logistic, fit_means,
                                 fit_temperature, left_out_masks, reliability)


def clouds(n_classes, n, d, spread=0.5, scale=1.0, shift=0.0, unbalanced=False, seed=0):
    "Gaussian classes: shots [n, d] with labels, and 300 test points."
    rng = np.random.default_rng(seed)
    centre = spread * rng.normal(size=(n_classes, d))
    y = np.arange(n) % n_classes
    if unbalanced: y = np.where((rng.random(n) < 0.7) & (np.arange(n) >= n_classes), 0, y)
    test_y = np.arange(300) % n_classes
    x, test = (scale * (centre[v] + rng.normal(size=(len(v), d))) + shift for v in (y, test_y))
    return x, y, test, test_y


def reference(x, y, C=1.0, tol=1e-9):
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=C, tol=tol, max_iter=20000).fit(x, y)


CASES = {
    "d<n, overlapping": dict(n_classes=4, n=200, d=6),
    "d<n, separable": dict(n_classes=3, n=60, d=8, spread=6.0),
    "d=n": dict(n_classes=4, n=24, d=24),
    "d>n": dict(n_classes=5, n=25, d=64),
    "15 classes, 768 dimensions": dict(n_classes=15, n=75, d=768, spread=0.2),
    "50 classes": dict(n_classes=50, n=150, d=40),
    "unbalanced": dict(n_classes=4, n=80, d=10, unbalanced=True),
    "two classes, d<n": dict(n_classes=2, n=40, d=5),
    "two classes, d>n": dict(n_classes=2, n=10, d=32, unbalanced=True),
    "far from the origin": dict(n_classes=3, n=30, d=10, shift=20.0),
    "small features": dict(n_classes=3, n=30, d=50, scale=0.01),
    "one shot a class": dict(n_classes=6, n=6, d=20),
}


@pytest.mark.parametrize("case", CASES)
def test_logistic_equals_scikit_learn(case):
    x, y, test, _ = clouds(**CASES[case])
    model, fit = reference(x, y), fit_logistic(x, y, y.max() + 1)
    p = fit.logits(test).softmax(-1).numpy()
    assert np.abs(p - model.predict_proba(test)).max() < 1e-3
    assert (p.argmax(1) == model.predict(test)).mean() >= 0.997
    assert fit.gap <= 1e-3


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_penalty_strength(C):
    x, y, test, _ = clouds(4, 40, 12)
    p = fit_logistic(x, y, 4, C=C).logits(test).softmax(-1).numpy()
    assert np.abs(p - reference(x, y, C).predict_proba(test)).max() < 1e-3


@pytest.mark.parametrize("case", ["d>n", "d<n, overlapping", "15 classes, 768 dimensions", "two classes, d>n", "unbalanced"])
def test_like_sklearn_stops_where_it_stops(case):
    x, y, test, _ = clouds(**CASES[case])
    with threadpool_limits(1): model = LogisticRegression(max_iter=1000).fit(x, y)
    p = fit_like_sklearn(x, y, y.max() + 1).logits(test).softmax(-1).numpy()
    assert np.abs(p - model.predict_proba(test)).max() < 0.02
    tight = fit_like_sklearn(x, y, y.max() + 1, tol=1e-8).logits(test).softmax(-1).numpy()
    assert np.abs(tight - reference(x, y).predict_proba(test)).max() < 1e-3


def test_early_stop_is_the_protocols_accuracy():
    x, y, test, test_y = clouds(15, 75, 768, spread=0.2, seed=3)
    with threadpool_limits(1): theirs = LogisticRegression(max_iter=1000).fit(x, y).score(test, test_y)
    ours = (fit_like_sklearn(x.astype(np.float32), y, 15).logits(test).argmax(-1).numpy() == test_y).mean()
    assert abs(ours - theirs) <= 0.01


def test_many_problems_are_the_single_ones():
    rng = np.random.default_rng(1)
    for n, d in ((12, 40), (60, 5)):
        x, y = rng.normal(size=(7, n, d)), np.stack([rng.permutation(n) % 3 for _ in range(7)])
        for f in (fit_logistic, fit_like_sklearn, fit_means):
            many = f(x, y, 3)
            for i in (0, 6):
                one = f(x[i], y[i], 3)
                assert torch.allclose(many.logits(x)[i], one.logits(x[i]), atol=2e-3)


def test_weights_leave_shots_out():
    x, y, test, _ = clouds(3, 30, 50)
    keep = np.ones((4, 30)); keep[1, :3] = 0; keep[2, 9:21] = 0; keep[3] = 2
    many = fit_logistic(x, y, 3, sample_weight=keep)
    for row, w in enumerate(keep):
        with threadpool_limits(1): model = LogisticRegression(tol=1e-9, max_iter=5000).fit(x, y, sample_weight=w)
        assert np.abs(many.logits(test)[row].softmax(-1).numpy() - model.predict_proba(test)).max() < 1e-3


@pytest.mark.parametrize("n, d", [(30, 50), (60, 8)])
def test_standardise_and_start(n, d):
    x, y, test, _ = clouds(3, n, d, scale=5.0, shift=3.0)
    x[:, 0] = 7.0
    scaler = StandardScaler().fit(x)
    model = reference(scaler.transform(x), y)
    for f, error in ((fit_logistic, 1e-3), (fit_like_sklearn, 0.02)):
        p = f(x, y, 3, standardise=True).logits(test).softmax(-1).numpy()
        assert np.abs(p - model.predict_proba(scaler.transform(test))).max() < error
    fit = fit_logistic(x, y, 3, standardise=True)
    again = fit_logistic(x, y, 3, standardise=True, init=fit, max_iter=0)
    assert again.gap < 1e-2 and torch.allclose(again.weight, fit.weight, atol=1e-6), "a fit is a fixed point of its own start"


def test_input_is_left_alone_and_results_repeat():
    x, y, _, _ = clouds(3, 12, 20)
    for dtype in (np.float32, np.float64):
        v = x.astype(dtype); before = v.copy()
        for f in (fit_logistic, fit_like_sklearn, fit_means):
            for standardise in (False, True):
                first, second = f(v, y, 3, standardise=standardise), f(v, y, 3, standardise=standardise)
                assert torch.equal(first.weight, second.weight) and first.weight.dtype == torch.from_numpy(v).dtype
        FewShotClassifier(standardise=True).fit(v, y)
        assert np.array_equal(v, before)


@settings(max_examples=30, deadline=None)
@given(n_classes=st.integers(2, 5), k=st.integers(1, 4), d=st.integers(1, 12), scale=st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
       standardise=st.booleans(), seed=st.integers(0, 99))
def test_no_nan_whatever_the_shots(n_classes, k, d, scale, standardise, seed):
    rng = np.random.default_rng(seed)
    x = scale * rng.normal(size=(n_classes * k, d)).round(1)
    y = np.repeat(np.arange(n_classes), k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for f in (fit_logistic, fit_like_sklearn, fit_means):
            fit = f(x, y, n_classes, standardise=standardise)
            assert torch.isfinite(fit.weight).all() and torch.isfinite(fit.bias).all()
        for method in ("logistic", "mean"):
            clf = FewShotClassifier(method, standardise=standardise).fit(x, y)
            assert np.isfinite(clf.predict_proba(x)).all() and np.isfinite(clf.novelty(x)).all() and 0 < clf.temperature_ < np.inf


def test_identical_points_give_the_class_frequencies():
    y = np.array([0, 0, 0, 1])
    for f in (fit_logistic, fit_like_sklearn):
        p = f(np.ones((4, 3)), y, 2, **({} if f is fit_logistic else {"tol": 1e-7})).logits(np.ones((1, 3))).softmax(-1)
        assert torch.allclose(p, torch.tensor([[0.75, 0.25]], dtype=p.dtype), atol=1e-3)


def test_means_are_nearest_centroid():
    x, y, test, _ = clouds(5, 60, 9, unbalanced=True)
    theirs = NearestCentroid().fit(x, y)
    assert np.allclose(class_means(torch.tensor(x), torch.tensor(y), 5), theirs.centroids_)
    assert (fit_means(x, y, 5).logits(test).argmax(-1).numpy() == theirs.predict(test)).all()
    scaler = StandardScaler().fit(x)
    found = fit_means(x, y, 5, standardise=True).logits(test).argmax(-1).numpy()
    assert (found == NearestCentroid().fit(scaler.transform(x), y).predict(scaler.transform(test))).all()


@pytest.mark.parametrize("f", [fit_logistic, fit_like_sklearn, fit_means])
def test_solver_errors(f):
    x, y, _, _ = clouds(3, 12, 4)
    bad = x.copy(); bad[2, 1] = np.inf
    with pytest.raises(ValueError, match="12 embeddings but 11 labels"): f(x, y[:11], 3)
    with pytest.raises(ValueError, match="NaN or infinity"): f(bad, y, 3)
    with pytest.raises(ValueError, match="class 3 has no shot"): f(x, y, 4)
    with pytest.raises(ValueError, match="0..1"): f(x, y, 2)
    with pytest.raises(ValueError, match="at least two classes"): f(x, np.zeros(12, int), 1)
    with pytest.raises(ValueError, match=r"\[n, d\]"): f(x[0], y, 3)


def test_hopeless_scaling_warns():
    x, y, _, _ = clouds(3, 30, 5, scale=1e3)
    with pytest.warns(ConvergenceWarning, match="standardise"): fit_like_sklearn(x, y, 3, max_iter=3)
    with pytest.warns(ConvergenceWarning, match="standardise"): fit_logistic(x, y, 3, max_iter=0)


def test_a_tolerance_beyond_the_precision_of_float32_is_told_not_nan():
    "Where rounding hides the slope, some problems cannot be finished; none may turn into NaN or run away."
    sets = [clouds(15, 75, 128, spread=0.3, shift=3.0, seed=seed) for seed in range(12)]
    x, y = np.stack([s[0] for s in sets]).astype(np.float32), np.stack([s[1] for s in sets])
    usual = fit_like_sklearn(x, y, 15)
    with pytest.warns(ConvergenceWarning): fit = fit_like_sklearn(x, y, 15, tol=1e-7, max_iter=500)
    assert torch.isfinite(fit.weight).all() and fit.gap.max() < 0.1
    for i, (_, _, test, test_y) in enumerate(sets):
        right = [(f.logits(test)[i].argmax(-1).numpy() == test_y).mean() for f in (usual, fit)]
        assert right[1] > right[0] - 0.1


# --- the classifier


@pytest.mark.parametrize("method", ["logistic", "mean"])
def test_classifier_with_names(method):
    x, y, test, test_y = clouds(4, 20, 32, spread=1.0)
    names = np.array(["bus", "forest path", "home", "café"])
    clf = FewShotClassifier(method).fit(torch.tensor(x), list(names[y]), groups=[f"r{i}" for i in range(20)])
    assert list(clf.classes_) == sorted(names) and clf.calibrated_
    assert clf.score(test, names[test_y]) > 0.9
    p = clf.predict_proba(test)
    assert np.allclose(p.sum(1), 1) and (clf.classes_[p.argmax(1)] == clf.predict(test)).all()
    assert np.allclose(test @ clf.weight_ + clf.bias_, clf.decision_function(test))
    other = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(other.predict_proba(test), p) and clone(clf).get_params() == clf.get_params()


def test_classifier_is_scikit_learns_before_calibration():
    x, y, test, _ = clouds(4, 20, 32)
    clf = FewShotClassifier(calibrate=False).fit(x, y)
    assert clf.temperature_ == 1 and np.abs(clf.predict_proba(test) - reference(x, y).predict_proba(test)).max() < 1e-3


@pytest.mark.parametrize("method", ["logistic", "mean"])
@pytest.mark.parametrize("standardise", [False, True])
def test_partial_fit_is_fit(method, standardise):
    x, y, test, _ = clouds(5, 50, 24, spread=1.0)
    names, groups = np.array(list("abcde"))[y], np.arange(50) // 2
    order = np.argsort(y == 1, kind="stable")
    x, names, groups = x[order], names[order], groups[order]
    whole = FewShotClassifier(method, standardise=standardise).fit(x, names, groups)
    grown = FewShotClassifier(method, standardise=standardise)
    for s in (slice(0, 30), slice(30, 31), slice(31, 50)): grown.partial_fit(x[s], names[s], groups[s])
    assert list(grown.classes_) == list("abcde")
    assert np.allclose(grown.predict_proba(test), whole.predict_proba(test), atol=2e-3)
    assert np.allclose(grown.novelty(test), whole.novelty(test))


def test_a_shot_without_a_group_is_its_own_group():
    x, y, test, _ = clouds(3, 12, 8)
    alone = FewShotClassifier().fit(x, y)
    named = FewShotClassifier().fit(x, y, groups=range(12))
    grown = FewShotClassifier().fit(x[:6], y[:6]).partial_fit(x[6:], y[6:])
    for other in (named, grown): assert np.allclose(alone.predict_proba(test), other.predict_proba(test), atol=1e-3)


def test_left_out_masks():
    rng = np.random.default_rng(0)
    y, groups = np.repeat(np.arange(6), 15), np.repeat(np.arange(30), 3)
    for most in (5, 20, 100):
        out = left_out_masks(y, groups, most)
        assert len(out) <= most and (out.sum(0) == 1).all()
        for fold in out:
            assert not set(groups[fold]) & set(groups[~fold]), "groups stay whole"
            assert set(y[~fold]) == set(y), "no class is lost"
    assert len(left_out_masks(np.arange(4), np.arange(4))) == 0
    shuffled = rng.permutation(90)
    assert len(left_out_masks(y[shuffled], groups[shuffled], 30)) == 30


def test_temperature():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 4)) * 2
    y = np.array([rng.choice(4, p=np.exp(v) / np.exp(v).sum()) for v in logits])
    for scale in (0.2, 1.0, 5.0): assert fit_temperature(scale * logits, y) == pytest.approx(scale, rel=0.1)
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert 0.05 < fit_temperature(sure, [0, 1, 2, 0]) < 1, "four right answers do not make certainty"
    assert fit_temperature(sure, [0, 1, 2, 0], prior=0.1) > 0.8
    assert fit_temperature(np.repeat(logits[:50], 20, 0), np.repeat(y[:50], 20), np.repeat(np.arange(50), 20), prior=0.5) == pytest.approx(
        fit_temperature(logits[:50], y[:50], prior=0.5), rel=0.1), "seconds of one group count once"


@pytest.mark.parametrize("classes, d, spread, group_spread, per_group, C, gain", [(15, 768, 0.2, 0.0, 1, 1, 0.5), (5, 64, 0.5, 1.0, 5, 10, 0.9)])
def test_calibration_helps_on_average(classes, d, spread, group_spread, per_group, C, gain):
    "Many classes in many dimensions leave the fit too modest; neighbouring seconds leave it too sure."
    error = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        centre = spread * rng.normal(size=(classes, d))
        y, g = np.repeat(np.arange(classes), 5 * per_group), np.repeat(np.arange(5 * classes), per_group)
        x = centre[y] + group_spread * rng.normal(size=(5 * classes, d))[g] + rng.normal(size=(len(y), d))
        test_y = np.repeat(np.arange(classes), 60)
        test = centre[test_y] + (1 + group_spread**2) ** 0.5 * rng.normal(size=(len(test_y), d))
        error.append([reliability(FewShotClassifier(C=C, calibrate=c).fit(x, y, g).predict_proba(test), test_y)[3] for c in (False, True)])
    raw, calibrated = np.mean(error, 0)
    assert calibrated < gain * raw


def test_reliability_counts_everything():
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]])
    confidence, accuracy, count, error = reliability(p, [0, 1, 1], bins=10)
    assert count.sum() == 3 and confidence[-1] == 1 and accuracy.tolist() == [0, 1, 1]
    assert error == pytest.approx((0.5 + 0.2 + 0) / 3)


def test_novelty():
    x, y, test, _ = clouds(4, 80, 16, spread=3.0)
    clf = FewShotClassifier(unknown=0.1).fit(x, y)
    assert (clf.novelty(test) > 1).mean() < 0.2
    far = test + 50
    assert (clf.novelty(far) > 1).all() and (clf.predict(far, unknown_label="unknown") == "unknown").all()
    assert (clf.predict(far, unknown_label=-1) == -1).all()
    assert (clf.predict(test) == clf.classes_[clf.decision_function(test).argmax(1)]).all()
    strict, lax = (FewShotClassifier(unknown=u).fit(x, y).threshold_ for u in (0.3, 0.02))
    assert strict < clf.threshold_ < lax


def test_one_shot_a_class():
    x = np.array([[0.0, 0], [4, 0], [0, 6]])
    clf = FewShotClassifier().fit(x, ["a", "b", "c"])
    assert not clf.calibrated_ and clf.temperature_ == 1 and clf.threshold_ == 2
    assert clf.predict([[0.1, 0], [20, 20]], unknown_label="?").tolist() == ["a", "?"]


def test_classifier_errors():
    x, y, _, _ = clouds(3, 12, 4)
    clf, bad = FewShotClassifier().fit(x, y), x.copy()
    bad[5, 2] = np.nan
    for call, words in (
        (lambda: FewShotClassifier().predict(x), "no shots yet"),
        (lambda: FewShotClassifier().fit(x, y[:-1]), "12 embeddings but 11 labels"),
        (lambda: FewShotClassifier().fit(bad, y), "embedding 5 holds NaN"),
        (lambda: clf.predict(bad), "embedding 5 holds NaN"),
        (lambda: FewShotClassifier().fit(x, ["bus"] * 12), r"one class only \(bus\)"),
        (lambda: FewShotClassifier().fit(x[:0], []), "one class only"),
        (lambda: FewShotClassifier().fit(x[0], y[:1]), r"must be \[n, d\]"),
        (lambda: clf.predict(x[:, :3]), "3 dimensions but the classifier was fitted on 4"),
        (lambda: clf.partial_fit(x[:, :3], y), "3 dimensions but the classifier was fitted on 4"),
        (lambda: clf.partial_fit(x, ["bus"] * 12), "one kind"),
        (lambda: clf.fit(x, y, groups=[1]), "12 embeddings but 1 groups"),
        (lambda: FewShotClassifier("forest").fit(x, y), "'logistic' or 'mean'"),
        (lambda: FewShotClassifier(unknown=0).fit(x, y), "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=words): call()


def test_a_failed_partial_fit_changes_nothing():
    x, y, test, _ = clouds(3, 12, 4)
    clf = FewShotClassifier().fit(x, y)
    before, p = copy.deepcopy(clf), clf.predict_proba(test)
    with pytest.raises(ValueError): clf.partial_fit(x, y[:-1])
    with pytest.raises(ValueError): clf.partial_fit(x[:, :2], y)
    assert np.array_equal(clf.predict_proba(test), p)
    clf.partial_fit(x[:2], y[:2]), before.partial_fit(x[:2], y[:2])
    assert np.array_equal(clf.predict_proba(test), before.predict_proba(test))
