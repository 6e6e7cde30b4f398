import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from studylib.metrics import uncertainty as u
from studylib.metrics import verification as v


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_equals_scipy(n, share):
    k = round(share * n)
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    low, high = u.wilson(k, n)
    assert low == pytest.approx(theirs.low, abs=1e-9)
    assert high == pytest.approx(theirs.high, abs=1e-9)


def test_weights_follow_the_people(simulated_pairs):
    weights = np.concatenate(list(u.subject_weights(simulated_pairs, 120, seed=3)))
    assert weights.shape == (120, len(simulated_pairs))
    a, b = simulated_pairs["subject_a"].to_numpy(), simulated_pairs["subject_b"].to_numpy()
    for row in weights[:20]:
        count = {s: row[(a == s) & (b == s)] for s in range(12)}
        assert all(len(set(c)) == 1 for c in count.values())  # a genuine pair counts w_a times
        drawn = np.array([count[s][0] for s in range(12)])
        assert drawn.sum() == 12
        np.testing.assert_array_equal(row[a != b], (drawn[a] * drawn[b])[a != b])


def test_chunks_do_not_change_the_draws(simulated_pairs, monkeypatch):
    whole = np.concatenate(list(u.subject_weights(simulated_pairs, 70, seed=0)))
    monkeypatch.setattr(u, "_CHUNK", 7 * len(simulated_pairs))
    np.testing.assert_array_equal(
        whole, np.concatenate(list(u.subject_weights(simulated_pairs, 70, seed=0)))
    )


def test_rates_hold_the_observed_value_and_repeat(simulated_pairs):
    def rates():
        drawn = u.resample(simulated_pairs, ["fp32", "w4a4"], v.STATISTICS, resamples=200)
        return u.rates(drawn)

    table = rates()
    pd.testing.assert_frame_equal(table, rates())
    assert table["metric"].unique().tolist() == ["EER", "TAR@FAR=1e-2", "TAR@FAR=1e-3"]
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    points = v.curve(v.sort_scores(simulated_pairs["score_fp32"], simulated_pairs["genuine"]))
    assert table["value"].iloc[0] == pytest.approx(float(v.eer(points)))


def test_a_perfect_score_still_has_an_interval():
    table = pd.DataFrame({"subject_a": list("aabbc"), "subject_b": list("aacbc")})
    table["genuine"] = table["subject_a"] == table["subject_b"]
    table = pd.concat([table] * 5, ignore_index=True)
    table["score_fp32"] = table["genuine"].astype(float)
    drawn = u.resample(table, ["fp32"], {"EER": v.eer}, resamples=50)
    row = u.rates(drawn).iloc[0]
    assert row["value"] == 0 and row["low"] == 0
    assert row["high"] == pytest.approx(u.wilson(0, 20)[1])


def test_people_make_the_interval_wider_than_pairs_would(simulated_pairs):
    """People differ here, so treating their pairs as independent claims too much."""
    clustered = simulated_pairs.copy()
    hard = clustered["genuine"] & clustered["subject_a"].isin([0, 1, 2])
    clustered["score_fp32"] = np.where(hard, -1.0, clustered["genuine"].astype(float))
    drawn = u.resample(clustered, ["fp32"], {"TAR": lambda c: v.tar_at_far(c, 0.5)})
    row = u.rates(drawn).iloc[0]
    low, high = u.wilson(54, 72)
    assert row["value"] == pytest.approx(0.75)
    assert row["high"] - row["low"] > 1.5 * (high - low)


def test_differences_are_paired_and_never_exact(simulated_pairs):
    table = simulated_pairs.assign(score_copy=simulated_pairs["score_fp32"])
    drawn = u.resample(table, ["fp32", "copy", "w4a4"], {"EER": v.eer}, resamples=300)
    rows = u.differences(drawn, "fp32").set_index("variant")
    assert "fp32" not in rows.index
    alone = u.resample(table, ["fp32"], {"EER": v.eer}, resamples=5)
    assert list(u.differences(alone, "fp32").columns) == list(rows.reset_index().columns)
    least = float(u.wilson(0, 72)[1])
    assert rows.loc["copy", ["difference", "low", "high"]].tolist() == pytest.approx(
        [0, -least, least]
    )
    assert rows.loc["w4a4", "low"] > 0  # noise makes it worse, beyond doubt


def test_group_rates_count_pairs_within_groups(simulated_pairs):
    rates = u.group_error_rates(simulated_pairs, "race", {"fp32": 0.3}, resamples=50)
    green = rates[(rates["group"] == "green") & (rates["metric"] == "FMR")].iloc[0]
    a, b = (simulated_pairs[f"subject_{k}"] for k in "ab")
    inside = simulated_pairs[(a < 8) & (b < 8) & (a != b)]
    assert green["n_pairs"] == len(inside) == 32 * 31 / 2 - 8 * 6
    assert green["n_subjects"] == 8
    assert green["value"] == pytest.approx((inside["score_fp32"] >= 0.3).mean())
    fnmr = rates[(rates["group"] == "violet") & (rates["metric"] == "FNMR")].iloc[0]
    assert fnmr["n_pairs"] == 4 * 6
    assert (rates["low"] <= rates["value"]).all() and (rates["value"] <= rates["high"]).all()


def test_a_group_of_one_has_no_false_match_rate(simulated_pairs):
    table = simulated_pairs.copy()
    for side in "ab":
        table[f"race_{side}"] = np.where(table[f"subject_{side}"] == 0, "alone", "others")
    rates = u.all_group_error_rates(table, {"fp32": 0.3}, resamples=20)
    assert set(rates.loc[rates["group"] == "race: alone", "metric"]) == {"FNMR"}
    assert set(rates.loc[rates["group"] == "race: others", "metric"]) == {"FMR", "FNMR"}


def test_age_in_years_is_no_grouping_and_no_groups_give_an_empty_table(simulated_pairs):
    ages = simulated_pairs.drop(columns=["race_a", "race_b"])
    ages = ages.assign(age_a=ages["subject_a"] + 20, age_b=ages["subject_b"] + 20)
    rates = u.all_group_error_rates(ages, {"fp32": 0.3}, resamples=20)
    assert rates.empty and list(rates.columns) == u.GROUP_RATES
