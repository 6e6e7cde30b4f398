import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from studylib import errors
from studylib.metrics import verification as v

some = st.lists(st.tuples(st.integers(-9, 9), st.booleans()), max_size=60)
pairs = some.map(lambda rows: [(0, True), *rows, (1, False)])


def curve_of(rows, weights=None):
    scores, genuine = zip(*rows, strict=True)
    return v.curve(v.sort_scores(scores, genuine), weights)


@given(pairs)
def test_curve_equals_scikit_learn(rows):
    points = curve_of(rows)
    scores, genuine = zip(*rows, strict=True)
    fpr, tpr, thresholds = roc_curve(genuine, scores, drop_intermediate=False)
    np.testing.assert_allclose(points.fmr, fpr)
    np.testing.assert_allclose(1 - points.fnmr, tpr)
    np.testing.assert_allclose(points.threshold, thresholds)


@given(pairs, st.randoms())
def test_row_order_does_not_matter(rows, random):
    shuffled = rows[:]
    random.shuffle(shuffled)
    for one, other in zip(curve_of(rows), curve_of(shuffled), strict=True):
        np.testing.assert_array_equal(one, other)


@given(pairs)
def test_a_rising_transform_of_scores_changes_no_rate(rows):
    before, after = curve_of(rows), curve_of([(s**3 + 5, g) for s, g in rows])
    np.testing.assert_array_equal(before.fmr, after.fmr)
    np.testing.assert_array_equal(before.fnmr, after.fnmr)


@settings(deadline=None)
@given(pairs, st.integers(0, 1000))
def test_a_weight_is_as_good_as_repeating_the_pair(rows, seed):
    weights = np.random.default_rng(seed).integers(0, 3, len(rows))
    repeated = [row for row, w in zip(rows, weights, strict=True) for _ in range(w)]
    assume(any(g for _, g in repeated) and not all(g for _, g in repeated) and repeated)
    weighted, plain = curve_of(rows, weights[None].astype(float)), curve_of(repeated)
    assert v.eer(weighted)[0] == pytest.approx(float(v.eer(plain)))
    for far in (0.0, 0.1, 0.5):
        assert v.tar_at_far(weighted, far)[0] == pytest.approx(float(v.tar_at_far(plain, far)))


@given(pairs)
def test_bounds_and_monotony(rows):
    points = curve_of(rows)
    assert (np.diff(points.fmr) >= 0).all() and (np.diff(points.fnmr) <= 0).all()
    assert 0 <= v.eer(points) <= 1
    assert v.tar_at_far(points, 0.01) <= v.tar_at_far(points, 0.1) <= 1


def test_a_case_by_hand():
    points = curve_of([(9, True), (8, False), (7, True), (6, True), (5, False), (4, False)])
    assert v.tar_at_far(points, 0.0) == pytest.approx(1 / 3)
    assert v.tar_at_far(points, 1 / 3) == pytest.approx(1.0)
    assert v.threshold_at_fmr(points, 1 / 3) == 6.0
    assert v.threshold_at_fmr(points, 0.0) == 9.0
    assert v.eer(points) == pytest.approx(1 / 3)


def test_separated_scores_have_no_error():
    points = curve_of([(3, True), (2, True), (1, False)])
    assert v.eer(points) == 0 and v.tar_at_far(points, 0.0) == 1


def test_no_threshold_accepts_too_many_among_ties():
    points = curve_of([(1, True), (1, False), (1, False), (0, False)])
    assert v.tar_at_far(points, 0.5) == 0  # the tied score would accept two impostors of three
    assert v.threshold_at_fmr(points, 0.5) == np.inf


def test_one_kind_of_pair_is_refused():
    with pytest.raises(errors.DataError, match="2 genuine and 0 impostor pairs"):
        v.sort_scores([1.0, 2.0], [True, True])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_must_be_finite(bad):
    with pytest.raises(errors.DataError, match="1 of 3 scores are NaN or infinite"):
        v.sort_scores([1.0, bad, 0.0], [True, False, False])


def test_histogram_densities_integrate_to_one(simulated_pairs):
    table = v.histogram(simulated_pairs, ["fp32", "w4a4"], bins=20)
    assert len(table) == 2 * 2 * 20
    area = (table["density"] * (table["high"] - table["low"])).groupby(
        [table["variant"], table["genuine"]]
    )
    np.testing.assert_allclose(area.sum(), 1)


def test_det_points_lie_on_the_full_curve(simulated_pairs):
    full = v.curve(v.sort_scores(simulated_pairs["score_fp32"], simulated_pairs["genuine"]))
    thinned = v.det_points(simulated_pairs, ["fp32"])
    on_curve = set(zip(full.fmr, full.fnmr, strict=True))
    assert set(zip(thinned["fmr"], thinned["fnmr"], strict=True)) <= on_curve
    assert len(thinned) <= 202 < len(full.fmr)
    assert thinned["fmr"].max() == 1 and thinned["fnmr"].max() == 1
