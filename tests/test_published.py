"""Published figures: the readers refuse other files, tables come out to the last digit."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from studylib import errors, published
from studylib.published import Estimate, Setting

FOLDER = Path(__file__).parents[1] / "book" / "published"
PRINTED = Path(__file__).parent / "fixtures" / "fer_tables.txt"


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return published.read_fer(FOLDER)


def _printed() -> list[tuple[str, list[str], list[list[str]]]]:
    tables = []
    for line in PRINTED.read_text(encoding="utf-8").splitlines():
        if line.startswith(">"):
            _, dataset, *groups = line.split()
            tables.append((dataset, groups, []))
        elif not line.startswith("#"):
            tables[-1][2].append(line.split())
    return tables


@pytest.mark.parametrize(("dataset", "groups", "rows"), _printed())
def test_every_printed_table_comes_out_to_the_last_digit(runs, dataset, groups, rows):
    table = published.printed(published.fer_table(runs, dataset, groups))
    ours = [[str(cell) for cell in row] for row in table.to_numpy()]
    assert [[cell.replace(" ±", "±") for cell in row] for row in ours] == rows


def test_all_logged_runs_and_settings_are_there(runs):
    per_run = runs.drop_duplicates(["dataset", "name", "run"])
    assert per_run.groupby("dataset").size().to_dict() == {"ckplus": 76, "rafdb": 94}
    assert len(published.settings(runs, "ckplus", ["overall"])) == 26
    assert len(published.settings(runs, "rafdb", ["overall"])) == 34


def test_groups_of_an_attribute_make_up_the_whole(runs):
    for dataset, attribute in (("ckplus", "gender"), ("rafdb", "race"), ("rafdb", "age")):
        names = ["overall", *published.GROUPS[attribute]]
        for one in published.settings(runs, dataset, names):
            np.testing.assert_array_equal(one.correct[:, 0], one.correct[:, 1:].sum(1))
            assert one.n[0] == one.n[1:].sum()


@pytest.fixture
def copies(tmp_path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "published"))


def _change(folder: Path, name: str, change) -> None:
    table = pd.read_csv(folder / name)
    change(table).to_csv(folder / name, index=False)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (published.FER_RUNS, lambda t: t.drop(columns="n_correct"), "it lacks n_correct"),
        (published.FER_RUNS, lambda t: t.head(0), "it lacks rows"),
        (
            published.FER_RUNS,
            lambda t: t.assign(n_correct=t["n_test"] + 1),
            "a row has more correct answers than images, or fewer than none",
        ),
        (
            published.FER_RUNS,
            lambda t: t.assign(n_test=t["n_test"] + (t.index == 7)),
            "a group changes its size from run to run",
        ),
        (
            published.FER_RUNS,
            lambda t: pd.concat([t, t.tail(1)]),
            "a run's group is counted twice",
        ),
        (
            published.FER_RUNS,
            lambda t: t.assign(method="distilled"),
            "it names a method that the study does not have",
        ),
        (published.QUANTFACE, lambda t: t.drop(columns="lfw"), "it lacks lfw"),
        (published.QUANTFACE, lambda t: t.assign(lfw=101.0), "a value is not a percentage"),
        (published.RFW, lambda t: t.assign(asian=-1.0), "a value is not a percentage"),
        (published.STATED, lambda t: t.drop(columns="times"), "it lacks times"),
    ],
)
def test_an_altered_table_is_refused(copies, name, change, problem):
    _change(copies, name, change)
    readers = {
        published.FER_RUNS: published.read_fer,
        published.QUANTFACE: published.read_quantface,
        published.RFW: published.read_rfw,
        published.STATED: published.read_stated,
    }
    with pytest.raises(errors.DataError) as caught:
        readers[name](copies)
    said = errors.PUBLISHED_TABLE.format(file=copies / name, problem=problem)
    assert str(caught.value) == said


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(errors.DataError) as caught:
        published.read_rfw(tmp_path)
    assert str(caught.value) == errors.PUBLISHED_TABLE.format(
        file=tmp_path / published.RFW, problem="it cannot be read (FileNotFoundError)"
    )


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(errors.DataError) as caught:
        published.read_fer(tmp_path / "nowhere")
    assert str(caught.value) == errors.NO_PUBLISHED.format(folder=tmp_path / "nowhere")


def test_rows_of_rfw_say_whether_they_were_published():
    """Two quoted, the four that the release prints, and our four from its scores."""
    table = published.read_rfw(FOLDER)
    kinds = ["published, quoted", "published", "ours"]
    assert table["figures"].tolist() == [kinds[0]] * 2 + [kinds[1]] * 4 + [kinds[2]] * 4


def test_a_shown_table_has_a_caption_and_no_index():
    html = published.captioned(pd.DataFrame({"a": [0.123]}), "What it is", 1).to_html()
    assert "<caption>What it is</caption>" in html and html.count("<th ") == 1 and "0.1<" in html


def test_an_unknown_group_is_refused(runs):
    with pytest.raises(errors.ParameterError, match="race=asian"):
        published.settings(runs, "ckplus", ["race=asian"])


def _setting(correct, n, method="pruned") -> Setting:
    return Setting("x", method, 1.0, np.asarray(n), np.asarray(correct))


def test_a_single_network_has_the_binomial_interval():
    found = published.estimate([_setting([[160, 90]], [200, 150])], [1, -1])
    p = np.array([0.8, 0.6])
    assert found.value == pytest.approx(0.2)
    assert found.test == pytest.approx((p * (1 - p) / [200, 150]).sum())
    assert found.runs == 0


def test_runs_alone_have_students_interval():
    setting = _setting([[70], [80], [78]], [100])
    alone = published.estimate([setting], [1.0])._replace(test=0.0)
    expected = stats.t.interval(0.95, 2, np.mean([0.7, 0.8, 0.78]), stats.sem([0.7, 0.8, 0.78]))
    np.testing.assert_allclose(alone.interval(), expected)
    ours, theirs = alone.p_above(0.6), stats.ttest_1samp([0.7, 0.8, 0.78], 0.6).pvalue / 2
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_p_is_the_level_at_which_the_interval_touches_the_bound():
    found = Estimate(0.08, 0.02**2, 0.015**2, 143.0, 2.0)
    low, _ = found.interval(1 - found.p_above(0.01), two_sided=False)
    assert low == pytest.approx(0.01, abs=1e-9)
    low, _ = found.interval(1 - found.p())
    assert low == pytest.approx(0.0, abs=1e-9)
    assert found.p_below(0.01) == pytest.approx(1 - found.p_above(0.01))


def test_more_variance_never_makes_a_p_smaller():
    """Pooled degrees of freedom (Welch) fail this with three runs."""
    p = [
        Estimate(0.263, test, 0.042**2, 100.0, 2.0).p() for test in (0.0, 0.01**2, 0.05**2, 0.1**2)
    ]
    assert p == sorted(p) and p[0] < p[-1]


def test_an_exact_change_is_certain():
    exact = Estimate(0.0, 0.0, 0.0, 10.0)
    assert (exact.p_above(-0.01), exact.p_above(0.01), exact.p()) == (0.0, 1.0, 1.0)


def test_averaging_settings_shrinks_the_runs_alone():
    one = _setting([[70], [80], [75]], [100])
    single, four = (published.estimate([one] * k, [1.0]) for k in (1, 4))
    assert four.test == pytest.approx(single.test)
    assert four.runs == pytest.approx(single.runs / 4)
    assert four.runs_df == pytest.approx(8)


@given(
    arrays.arrays(
        np.int8, st.tuples(st.integers(5, 40), st.integers(1, 4)), elements=st.integers(0, 1)
    ),
    st.data(),
)
def test_the_favourable_reading_is_a_bound_for_any_outcomes(outcomes, data):
    """Images' outcomes are made up here, so their true variance is known."""
    n = len(outcomes)
    before = data.draw(arrays.arrays(np.int8, n, elements=st.integers(0, 1)))
    after = _setting(outcomes.sum(0)[:, None], [n])
    base = _setting([[before.sum()]], [n], "baseline")
    true = np.var(outcomes.mean(1) - before) / n
    assert published.estimate([after], [1.0], base=base, favourable=True).test <= true + 1e-12
    apart = published.estimate([after], [1.0], base=base).test
    if np.cov(outcomes.mean(1), before)[0, 1] >= 0:
        assert apart >= true - 1e-12


def _coverage(*, luck: float, tie: float, frames: int, effect: float, studies: int = 2000) -> float:
    """Share of studies whose interval holds the true change of the gap of two like groups, 0.

    An image is right if a score exceeds a threshold: part of it the image's ease (the same before
    and after), part a reaction to compression (the same in all runs), and each run's luck with the
    group. `frames` images in a row react as one.
    """
    rng, n, held = np.random.default_rng(5), np.array([240, 144]), []
    for _ in range(studies):
        shift = rng.normal(0, luck, (3, 2))
        before, after = np.zeros(2, int), np.zeros((3, 2), int)
        for g, size in enumerate(n):
            ease, own, reaction = rng.normal(size=(3, size // frames)).repeat(frames, 1)
            before[g] = (tie * ease + np.sqrt(1 - tie**2) * own > -0.6).sum()
            score = tie * ease + np.sqrt(1 - tie**2) * reaction
            after[:, g] = (score + shift[:, [g]] > -0.6).sum(1)
        base = _setting(before[None], n, "baseline")
        found = published.estimate([_setting(after, n)], [1, -1], base=base, design_effect=effect)
        low, high = found.interval()
        held.append(low <= 0 <= high)
    return np.mean(held)


@pytest.mark.parametrize(("frames", "effect"), [(1, 1.0), (3, 3.0)])
def test_intervals_of_unrelated_outcomes_cover_as_they_say(frames, effect):
    assert 0.935 < _coverage(luck=0.0, tie=0.0, frames=frames, effect=effect) < 0.965


@pytest.mark.parametrize(("luck", "tie"), [(0.15, 0.0), (0.6, 0.0), (0.15, 0.7)])
def test_intervals_are_cautious_with_runs_and_related_outcomes(luck, tie):
    assert _coverage(luck=luck, tie=tie, frames=1, effect=1.0) > 0.94


def test_intervals_that_take_frames_as_independent_are_too_short():
    assert _coverage(luck=0.0, tie=0.0, frames=3, effect=1.0) < 0.85


def test_the_design_effect_of_ckplus_is_that_of_its_frames():
    """Simulated: one frame alone and three that always agree, against independent images."""
    rng = np.random.default_rng(0)
    right = rng.random((4000, 60, 2)) < 0.7
    share = (right[..., 0].sum(1) + 3 * right[..., 1].sum(1)) / 240
    assert share.var() / (0.7 * 0.3 / 240) == pytest.approx(published.FRAMES, rel=0.1)


def test_the_front_is_what_nothing_beats(runs):
    table = published.tradeoff(runs, "ckplus", published.GROUPS["gender"])
    for _, part in table.groupby("group"):
        for row in part.itertuples():
            better = (part["size_mb"] <= row.size_mb) & (part["value"] >= row.value)
            better &= (part["size_mb"] < row.size_mb) | (part["value"] > row.value)
            assert row.front == (not better.any())
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_gaps_of_ckplus(runs):
    table = published.gaps(runs, "ckplus", ("gender=male", "gender=female"))
    by = table.set_index(["panel", "setting"])["value"]
    assert by["the gap", "fp32"] == pytest.approx(100 / 144 - 161 / 240)
    change = by["the gap", "c64"] - by["the gap", "fp32"]
    assert by["its change", "c64"] == pytest.approx(change)
    assert (table["inner_low"] >= table["low"]).all()


def test_sources_name_each_kind_of_chance(runs):
    by_name = {s.name: s for s in published.settings(runs, "ckplus", published.GROUPS["gender"])}
    table = published.sources(by_name["c64"], [-1, 1], "ckplus")
    assert table["source"].tolist() == ["runs alone", *["test set alone"] * 3, *["both"] * 3]
    width = table["high"] - table["low"]
    assert width[6] > width[5] > width[4] > max(width[0], width[1])
    assert "runs alone" not in set(published.sources(by_name["w8"], [-1, 1], "ckplus")["source"])


def test_quantface_drops_are_means_over_the_five_benchmarks():
    table = published.quantface_drops(published.read_quantface(FOLDER))
    by = table.set_index(["architecture", "precision"])
    row = by.loc[("iresnet18", "w6a6")]
    losses = np.array([0.12, 1.13, 0.51, 0.38, 0.68]) / 100
    assert row["value"] == pytest.approx(-losses.mean())
    assert row["least"] == pytest.approx(-0.0012) and row["most"] == pytest.approx(-0.0113)
    assert set(by.index.get_level_values("precision")) == {"w8a8", "w6a6"} and len(by) == 8


def test_our_benchmarks_stand_below_the_published_ones():
    columns = ["network", "architecture", "source", "precision", "benchmark", "accuracy"]
    ours = pd.DataFrame(
        [
            ("a", "iresnet50", "real", "fp32", "lfw", 0.995),
            ("a", "iresnet50", "noise", "fp32", "cfp_fp", 0.9),
            ("a", "iresnet50", "real", "w8a8", "lfw", 0.99),
            ("b", "iresnet34", "noise", "w4a4", "cplfw", 0.7),
        ],
        columns=columns,
    )
    quantface = published.read_quantface(FOLDER)
    table = published.benchmarks_beside(quantface, ours)
    assert len(table) == 12 + 3
    by = table.set_index(["architecture", "precision", "figures"])
    assert by.loc[("iresnet50", "fp32", "published"), "lfw"] == "99.80"
    mine = by.loc[("iresnet50", "fp32", "ours, a")]
    assert mine.tolist() == ["99.50", "90.00", *["not run"] * 3]
    assert by.loc[("iresnet50", "w8a8", "ours, a (real)"), "lfw"] == "99.00"
    assert by.loc[("iresnet50", "w6a6", "published (ours: not run)"), "cplfw"] == "90.38"
    assert table["precision"].tolist()[:3] == ["fp32", "w8a8", "w6a6"]
    assert table.iloc[-1]["cplfw"] == "70.00"  # of an architecture that was not published
    alone = published.benchmarks_beside(quantface, ours[:0])
    assert len(alone) == 12 and set(alone["figures"]) == {"published (ours: not run)"}
