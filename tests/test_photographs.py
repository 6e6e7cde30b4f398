"""Sets of equal size, and what tables of planted differences are said to show."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from studylib import charts_fairness, charts_tradeoff, errors, photographs, results
from studylib.datasets import packed
from studylib.faces import Faces
from studylib.metrics import testing, uncertainty, verification
from studylib.photographs import EVERYBODY, SETS, TEACHER, UNTRAINED

SEEDS = [0, 1, 2]
NETWORKS = [TEACHER, *(f"{name}-{s}" for name in (*SETS, UNTRAINED) for s in SEEDS)]
NAMES = {"people": "Other people", "groups": "Others, by race"}


def faces(n, *, per_person=1, origin="noise", size=8):
    rng = np.random.default_rng(n)
    pixels = torch.from_numpy(rng.integers(0, 256, (n, 3, size, size), np.uint8))
    table = pd.DataFrame({"item": [f"{origin}{i}" for i in range(n)]})
    return Faces(pixels, table.assign(subject=[f"p{i // per_person}" for i in range(n)]), origin)


def scored(skill, *, people=110, each=4, groups=None, seed=0, noise=0.02):
    """All pairs of some people; a network's scores part the kinds by its skill: set -> shift.

    `skill[set]` is a number, or a function of a pair's group.
    """
    subject = np.repeat(np.arange(people), each)
    a, b = np.triu_indices(len(subject), 1)
    rng = np.random.default_rng(seed)
    genuine = subject[a] == subject[b]
    table = pd.DataFrame({"subject_a": subject[a], "subject_b": subject[b], "genuine": genuine})
    groups = np.full(people, "x") if groups is None else np.asarray(groups)
    table["race_a"], table["race_b"] = groups[subject[a]], groups[subject[b]]
    base = rng.normal(0, 1, len(a))
    for name in NETWORKS:
        of = skill[name.rpartition("-")[0] or name]
        shift = table["race_a"].map(of).to_numpy(float) if callable(of) else of
        own = rng.normal(0, noise, len(a))
        table[f"score_{name}"] = np.tanh((base + own + np.where(genuine, shift, 0)) / 6)
    return table


def in_folds(table, seed=0, n=1200):
    """Some of the pairs, half of them genuine, in no order of people."""
    drawn = table.groupby("genuine").sample(n // 2, random_state=seed)
    return drawn.sample(frac=1, random_state=seed).reset_index(drop=True)


ALIKE = {name: 2.0 for name in (TEACHER, *SETS)} | {UNTRAINED: 0.2}
GIVEN = {"resamples": 200, "seed": 0}


@pytest.fixture(scope="module")
def gap():
    """A clear synthetic gap over everybody."""
    table = in_folds(scored(ALIKE | {"generated": 1.0, "mix": 1.9, TEACHER: 4.0}))
    return [photographs.folded("people", table, NETWORKS, **GIVEN)]


def row(table, one, other, group=EVERYBODY):
    chosen = table[(table["one"] == one) & (table["other"] == other) & (table["group"] == group)]
    assert len(chosen) == 1
    return chosen.iloc[0]


# --- the faces -----------------------------------------------------------------------------------


def test_grey_is_the_usual_brightness():
    images = torch.zeros(4, 3, 4, 4, dtype=torch.uint8)
    for channel in range(3):
        images[channel, channel] = 255
    images[3] = 255
    table = pd.DataFrame({"item": list("rgbw"), "subject": list("rgbw")})
    grey = photographs.greyed(Faces(images, table, "noise"), 4).images
    assert grey.shape == (4, 3, 4, 4) and grey.dtype == torch.uint8
    assert grey[:, 0, 0, 0].tolist() == [76, 150, 29, 255]  # of 0.299, 0.587, 0.114
    assert (grey == grey[:, :1]).all()


def test_what_is_grey_stays_so_and_sizes_change():
    once = photographs.greyed(faces(3), 8)
    again = photographs.greyed(once, 8)
    assert torch.equal(once.images, again.images) and again.table.equals(once.table)
    assert photographs.greyed(once, 4).images.shape == (3, 3, 4, 4)


@given(
    real=st.integers(4, 30), made=st.integers(4, 30), share=st.floats(0.3, 0.7), seed=st.integers(0)
)
def test_all_sets_are_of_one_size(real, made, share, seed):
    pool, chosen = photographs.pool(faces(real), faces(made, origin="orl"), share, seed)
    n = min(real, made)
    assert len(pool) == 2 * n and pool.table["item"].is_unique and list(chosen) == list(SETS)
    domains = {name: pool.table["domain"].iloc[rows].tolist() for name, rows in chosen.items()}
    assert domains["real"] == ["real"] * n and domains["generated"] == ["synthetic"] * n
    assert domains["mix"].count("synthetic") == round(share * n)
    assert len(set(chosen["mix"])) == len(chosen["mix"]) == n
    again = photographs.pool(faces(real), faces(made, origin="orl"), share, seed)
    assert torch.equal(pool.images, again[0].images)
    assert (chosen["mix"] == again[1]["mix"]).all()


def test_the_pool_holds_the_faces_that_its_rows_name():
    real, made = faces(6), faces(5, origin="orl")
    pool, _ = photographs.pool(real, made, 0.4, 0)
    both = {}
    for part in (real, made):
        both |= dict(zip(part.table["item"], part.images, strict=True))
    for item, image in zip(pool.table["item"], pool.images, strict=True):
        assert torch.equal(image, both[item])


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_mix_of_one_kind_is_refused(share):
    wanted = errors.BAD_SHARE.format(what="synthetic_share", value=share)
    with pytest.raises(errors.ParameterError, match=re.escape(wanted)):
        photographs.pool(faces(9), faces(9), share, 0)


@pytest.mark.parametrize("n", [2, 3])
def test_so_few_faces_make_no_mix(n):
    assert photographs.generated_in_mix(4, 0.3) == 1
    with pytest.raises(errors.ParameterError, match="synthetic_share"):
        photographs.generated_in_mix(n, 0.1)


RECIPE = {"size": 32, "weight": 1.0, "batch_size": 4, "lr": 0.1, "milestones": [1]}
SMALL = {"depth": [1, 1, 1, 1], "width": 0.125}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": 0.0}, errors.NOT_ABOVE_ZERO.format(what="weight", value=0.0)),
        ({"weight": -1}, errors.NOT_ABOVE_ZERO.format(what="weight", value=-1)),
        ({"lr": 0.0}, errors.NOT_ABOVE_ZERO.format(what="lr", value=0.0)),
        ({"batch_size": 1}, errors.BAD_SIZE.format(what="batch_size", least=2, value=1)),
        ({"architecture": "nothing"}, "nothing"),
        ({"settings": SMALL | {"wings": 2}}, "wings"),
    ],
)
def test_a_rehearsal_refuses_what_the_training_would(wrong, message):
    given = {"architecture": "iresnet", "settings": SMALL} | RECIPE
    assert photographs.rehearse(**given) is None
    with pytest.raises(errors.ParameterError, match=re.escape(message)):
        photographs.rehearse(**given | wrong)


def test_fingerprints_are_of_the_faces():
    sets = {"one": faces(3), "none": None, "other": faces(4, origin="orl")}
    found = photographs.fingerprints(sets)
    assert found["set"].tolist() == ["one", "other"] and found["faces"].tolist() == [3, 4]
    assert found["origin"].tolist() == ["noise", "orl"]
    assert found["sha256"].tolist() == [packed.fingerprint(sets[k]) for k in ("one", "other")]
    sets["one"].images[0, 0, 0, 0] ^= 1
    again = photographs.fingerprints(sets)["sha256"]
    assert (again == found["sha256"]).tolist() == [False, True]


def test_people_with_one_face_are_left_out():
    some = faces(7, per_person=2)  # the last has one
    assert photographs.repeated(some).table["item"].tolist() == some.table["item"].tolist()[:6]


def test_folds_have_people_of_their_own():
    tested = faces(120, per_person=4)
    pairs = photographs.pairs_of_people(tested, 200, 0)
    assert len(pairs) == 200 and pairs["genuine"].sum() == 100 and "group" not in pairs
    subjects = tested.table["subject"].to_numpy()
    a, b = subjects[pairs["a"]], subjects[pairs["b"]]
    assert ((a == b) == pairs["genuine"]).all()
    folk = [set(a[pairs["fold"] == k]) | set(b[pairs["fold"] == k]) for k in range(10)]
    assert all(not one & other for one, other in itertools.combinations(folk, 2))


def test_closeness_is_the_mean_cosine():
    rows = [
        F.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(k))) for k in b"ab"
    ]
    wanted = F.cosine_similarity(*rows).mean().item()
    assert photographs.closeness(*rows) == pytest.approx(wanted, abs=1e-6)
    assert photographs.closeness(rows[0], rows[0]) == pytest.approx(1, abs=1e-6)


# --- what is measured ----------------------------------------------------------------------------


def test_accuracy_is_that_of_ten_folds(gap):
    test, table = gap[0], in_folds(scored(ALIKE | {"generated": 1.0, "mix": 1.9, TEACHER: 4.0}))
    for k, name in enumerate(NETWORKS):
        distances = 2 - 2 * table[f"score_{name}"]
        wanted = verification.ten_fold(distances, table["genuine"]).accuracy.mean()
        assert test.drawn.values[k, 0, 0] == pytest.approx(wanted, abs=1e-12)
    assert test.people == 110 and test.pairs == 1200 and test.drawn.values.shape == (13, 1, 201)
    middle = test.drawn.values[:, 0, 1:].mean(1)
    assert np.abs(middle - test.drawn.values[:, 0, 0]).max() < 0.02


def test_groups_are_measured_by_their_own_pairs():
    groups = np.array(["many"] * 20 + ["some"] * 6 + ["few"] * 4)
    table = scored(ALIKE, people=30, groups=groups)
    tests = photographs.by_group("groups", table, "race", NETWORKS, fewest=6, **GIVEN)
    assert [t.group for t in tests] == [EVERYBODY, "many", "some"]
    assert [t.people for t in tests] == [30, 20, 6]
    own = table[(table["race_a"] == "some") & (table["race_b"] == "some")]
    assert tests[2].pairs == len(own) and tests[0].pairs == len(table)
    for test, part in ((tests[0], table), (tests[2], own)):
        wanted = roc_auc_score(part["genuine"], part["score_mix-1"])
        found = test.drawn.values[NETWORKS.index("mix-1"), 0, 0]
        assert found == pytest.approx(wanted, abs=1e-12)
    alone = photographs.by_group("groups", table, None, NETWORKS, fewest=4, **GIVEN)
    assert [t.group for t in alone] == [EVERYBODY]
    with pytest.raises(errors.ParameterError, match="fewest must be at least 4, got 3"):
        photographs.by_group("groups", table, "race", NETWORKS, fewest=3, **GIVEN)


def test_levels_are_means_over_seeds(gap):
    level = photographs.levels(gap, SEEDS).set_index("set")
    values = dict(zip(NETWORKS, gap[0].drawn.values[:, 0, 0], strict=True))
    for name in (*SETS, UNTRAINED):
        wanted = np.mean([values[f"{name}-{s}"] for s in SEEDS])
        assert (
            level.loc[name, "value"] == pytest.approx(wanted) and level.loc[name, "networks"] == 3
        )
    assert level.loc[TEACHER, "value"] == values[TEACHER] and level.loc[TEACHER, "networks"] == 1
    assert (level["low"] < level["value"]).all() and (level["value"] < level["high"]).all()
    assert level["high"].max() <= 1


def test_without_an_error_the_interval_is_wilsons():
    table = in_folds(scored(ALIKE))
    for name in NETWORKS:
        table[f"score_{name}"] = np.where(table["genuine"], 0.9, 0.1)
    tests = [photographs.folded("people", table, NETWORKS, **GIVEN)]
    level = photographs.levels(tests, SEEDS)
    least = uncertainty.wilson(0, 1200)[1]
    assert (level["value"] == 1).all() and (level["high"] == 1).all()
    assert np.allclose(1 - level["low"], least, rtol=0.05) and (1 - level["low"] > least).all()
    same = photographs.contrasts(tests, SEEDS)
    assert (same["value"] == 0).all() and (same["p_holm"] == 1).all()
    assert np.allclose(same["high"], least, rtol=0.05)


def test_hardly_an_error_is_not_taken_for_certainty():
    table = scored(ALIKE, people=30)
    table[f"score_{TEACHER}"] = np.where(table["genuine"], 0.9, 0.1)
    impostor = table.index[~table["genuine"]][0]
    table.loc[impostor, f"score_{TEACHER}"] = 0.95  # one of some 7,000
    tests = photographs.by_group("groups", table, None, NETWORKS, fewest=4, **GIVEN)
    teacher = photographs.levels(tests, SEEDS).set_index("set").loc[TEACHER]
    assert photographs.CEILING < teacher["value"] < 1
    genuine = int(table["genuine"].sum())
    assert teacher["value"] - teacher["low"] >= uncertainty.wilson(0, genuine)[1]


def test_a_planted_gap_is_found_and_none_is_not(gap):
    found = photographs.contrasts(gap, SEEDS)
    planted = row(found, "generated", "real")
    assert planted["value"] < -0.08 and planted["high"] < 0 and planted["p_holm"] < 0.05
    values = dict(zip(NETWORKS, gap[0].drawn.values[:, 0, 0], strict=True))
    wanted = np.mean([values[f"generated-{s}"] - values[f"real-{s}"] for s in SEEDS])
    assert planted["value"] == pytest.approx(wanted)
    assert row(found, "real", TEACHER)["value"] < -0.05
    none = [photographs.folded("people", in_folds(scored(ALIKE)), NETWORKS, **GIVEN)]
    equal = photographs.contrasts(none, SEEDS)
    among = equal[~equal["other"].isin([TEACHER, UNTRAINED])]
    assert (among["p_holm"] > 0.05).all() and (among["low"] < 0).all() and (among["high"] > 0).all()


def test_trainings_that_differ_widen_the_interval(gap):
    test = gap[0]
    values = test.drawn.values.copy()
    values[NETWORKS.index("generated-0")] -= 0.1
    values[NETWORKS.index("generated-1")] += 0.1
    apart = [test._replace(drawn=test.drawn._replace(values=values))]
    before, after = (
        row(photographs.contrasts(t, SEEDS), "generated", "real") for t in (gap, apart)
    )
    assert after["value"] == pytest.approx(before["value"])
    assert after["high"] - after["low"] > 4 * (before["high"] - before["low"])
    assert before["p"] < 0.05 < after["p"]


def test_families_are_what_is_asked_at_once():
    groups = np.array(["many"] * 14 + ["some"] * 8 + ["other"] * 8)
    table = scored(ALIKE, people=30, groups=groups)
    tests = photographs.by_group("groups", table, "race", NETWORKS, fewest=5, **GIVEN)
    found = photographs.contrasts(tests, SEEDS)
    sizes = found.groupby("family")["tests"].agg(["size", "first"])
    assert sizes.to_dict("index") == {
        "groups, everybody, sets": {"size": 3, "first": 3},
        "groups, everybody, teacher": {"size": 3, "first": 3},
        "groups, everybody, untrained": {"size": 3, "first": 3},
        "groups, groups, sets": {"size": 9, "first": 9},
        "groups, groups, teacher": {"size": 9, "first": 9},
        "groups, groups, untrained": {"size": 9, "first": 9},
    }
    for _, part in found.groupby("family"):
        assert np.allclose(part["p_holm"], testing.holm(part["p"]))
    apart = photographs.between_groups(tests, SEEDS)
    assert set(apart["beside"]) == {"many"} and set(apart["group"]) == {"other", "some"}
    assert (apart["tests"] == 6).all() and (apart["p_holm"] > 0.05).all()
    assert photographs.between_groups(tests[:1], SEEDS).empty


def test_a_gap_of_one_group_is_told_from_the_largest_groups():
    groups = np.array(["many"] * 20 + ["some"] * 16)
    skill = ALIKE | {"generated": lambda group: 0.4 if group == "some" else 2.0}
    table = scored(skill, people=36, each=3, groups=groups)
    tests = photographs.by_group("groups", table, "race", NETWORKS, fewest=5, **GIVEN)
    apart = photographs.between_groups(tests, SEEDS)
    planted = row(apart, "generated", "real", "some")
    gaps = photographs.contrasts(tests, SEEDS)
    wanted = [row(gaps, "generated", "real", g)["value"] for g in ("some", "many")]
    assert planted["value"] == pytest.approx(wanted[0] - wanted[1])
    assert planted["value"] < -0.1 and planted["p_holm"] < 0.05
    assert row(apart, "mix", "real", "some")["p_holm"] > 0.05
    level = photographs.levels(tests, SEEDS)
    said = photographs.findings(level, gaps, apart, {"groups": "Others"}, 0.01)
    assert "It is another gap than in the largest group (many) in: some." in said
    assert re.search(r"The gap by group, in points: many .*; 20 people\), some -", said)


# --- what is said --------------------------------------------------------------------------------


def told(tests, margin=0.01):
    level, found = photographs.levels(tests, SEEDS), photographs.contrasts(tests, SEEDS)
    return photographs.findings(
        level, found, photographs.between_groups(tests, SEEDS), {"people": "Other people"}, margin
    )


def test_a_gap_is_said_with_its_numbers(gap):
    said = told(gap, margin=0.2)
    planted = row(photographs.contrasts(gap, SEEDS), "generated", "real")
    assert f"as many photographs, is {100 * planted['value']:+.1f} points" in said
    assert "it is there, and the teacher's embeddings do not close it" in said
    assert "is **supported** by these students" in said and "a loss of 20.0 points" in said
    assert "no proof" not in said and "by group" not in said and "taken alone" not in said


@pytest.mark.parametrize(
    ("skill", "margin", "words"),
    [
        ({"generated": 3.5}, 0.2, "here the generated faces teach more"),
        ({}, 0.2, "not resolved, so it may be smaller or larger, or none"),
        ({"mix": 0.7}, 0.001, "is **contradicted** by these students"),
        ({}, 0.0001, "is **not resolved** by these students"),
        ({UNTRAINED: 1.9, "generated": 1.9, "real": 4.0}, 0.2, "it is there, and the teacher's"),
    ],
)
def test_every_outcome_has_its_words(skill, margin, words):
    table = in_folds(scored(ALIKE | skill))
    assert words in told([photographs.folded("people", table, NETWORKS, **GIVEN)], margin)


def test_a_test_that_cannot_tell_learning_from_none_gives_no_verdict():
    """Generated faces alone are above untrained: the mix and photographs are both named."""
    skill = ALIKE | {UNTRAINED: 2.0, "generated": 3.5}
    tests = [photographs.folded("people", in_folds(scored(skill)), NETWORKS, **GIVEN)]
    found = photographs.contrasts(tests, SEEDS)
    clear = {name: row(found, name, UNTRAINED)["p_holm"] < 0.05 for name in SETS}
    assert clear == {"real": False, "generated": True, "mix": False}
    said = told(tests)
    assert re.search(r"taught on: photographs [+-].*; the mix [+-].*With 110 people that is", said)
    assert "taught on: generated" not in said and "; generated faces" not in said
    assert 0.001 < row(found, "real", UNTRAINED)["high"] < 0.01
    assert "So this test cannot judge the gap" in said
    assert "So this test does not judge the gap" in told(tests, margin=0.001)
    assert "The synthetic gap" not in said and "**supported**" not in said


def test_worse_than_untrained_is_not_learnt():
    skill = ALIKE | {UNTRAINED: 3.5, "real": 1.0}
    tests = [photographs.folded("people", in_folds(scored(skill)), NETWORKS, **GIVEN)]
    worse = row(photographs.contrasts(tests, SEEDS), "real", UNTRAINED)
    assert worse["value"] < 0 and worse["p_holm"] < 0.05
    assert "cannot judge the gap: its interval for what photographs taught ends below 1.0" in told(
        tests
    )


def rows_of(numbers):
    """Tables of one test of everybody: pair -> value, low, high and p after Holm, in points."""
    asked = (
        *photographs.AMONG_SETS,
        *photographs.BESIDE_TEACHER,
        *photographs.BESIDE_UNTRAINED,
    )
    about = {"test": "people", "group": EVERYBODY, "metric": photographs.ACCURACY, "people": 20}
    compared = pd.DataFrame(
        about
        | {"one": one, "other": other, "tests": 3, "p_holm": p}
        | {"value": value / 100, "low": low / 100, "high": high / 100}
        for one, other in asked
        for value, low, high, p in [numbers.get((one, other), (9, 8, 10, 0.001))]
    )
    level = pd.DataFrame({"set": name, "value": 0.7, "low": 0.6, "high": 0.8} for name in
                         (TEACHER, *SETS, UNTRAINED))  # fmt: skip
    return level.assign(**about), compared


def said_of(numbers, margin=0.01):
    level, compared = rows_of(numbers)
    apart = pd.DataFrame(columns=["group", "beside", "one", "other", "p_holm"])
    return photographs.findings(level, compared, apart, {"people": "Others"}, margin)


@pytest.mark.parametrize(
    ("high", "words"),
    [(14.0, "does not judge the gap, though"), (0.9, "cannot judge the gap: its interval")],
)
def test_a_gap_that_is_not_resolved_is_not_told_as_none(high, words):
    """Only an interval that ends below the margin says that there is too little to judge by."""
    said = said_of({("real", UNTRAINED): (0.5, -1.0, high, 0.3)})
    assert f"So this test {words}" in said and "does not show" not in said
    assert "With 20 people that is no proof that they learnt nothing." in said
    assert said_of({("real", UNTRAINED): (0.5, -1.0, high, 0.3)}, margin=0.2).count("cannot") == 1


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        (("real", UNTRAINED), (7.8, 1.7, 14.0, 0.069)),
        (("generated", "real"), (-6.4, -12.0, -0.8, 0.075)),
    ],
)
def test_an_interval_off_zero_beside_not_resolved_is_explained(pair, found):
    words = ", off zero for this difference taken alone; p = "
    assert said_of({}).count(words) == 0
    value, low, high, p = found
    said = said_of({pair: found})
    assert f"{value:+.1f} points ({low:+.1f} to {high:+.1f}{words}{p}" in said
    assert said.count(words) == 1
    assert words not in said_of({pair: (value, -20, 20, p)})


def test_the_mix_is_told_beside_generated_faces_too():
    said = said_of({("mix", "generated"): (6.4, 4.1, 8.6, 0.004)})
    assert "The mix minus generated faces alone is +6.4 points (+4.1 to +8.6; p = 0.004" in said
    assert "in a family of 3): resolved." in said
    said = said_of({("mix", "generated"): (6.4, -4.1, 8.6, 0.4)})
    assert "in a family of 3): not resolved." in said


def test_what_is_learnt_is_enough_for_a_verdict_where_one_set_fails():
    skill = ALIKE | {UNTRAINED: 0.5, "generated": 0.5}
    said = told([photographs.folded("people", in_folds(scored(skill)), NETWORKS, **GIVEN)])
    assert "students taught on: generated faces" in said and "; the mix" not in said
    assert "it is there, and the teacher's embeddings do not close it" in said


def test_groups_that_cannot_tell_learning_from_none_get_no_gap():
    groups = np.array(["many"] * 20 + ["some"] * 16)
    skill = ALIKE | {UNTRAINED: lambda group: 2.0 if group == "some" else 0.2, "generated": 0.8}
    table = scored(skill, people=36, each=3, groups=groups)
    tests = photographs.by_group("groups", table, "race", NETWORKS, fewest=5, **GIVEN)
    level, found = photographs.levels(tests, SEEDS), photographs.contrasts(tests, SEEDS)
    apart = photographs.between_groups(tests, SEEDS)
    said = photographs.findings(level, found, apart, {"groups": "Others"}, 0.01)
    assert "photographs are not resolved above untrained ones: some." in said
    assert re.search(r"The gap by group, in points: many [^,]*20 people\)\. Each interval", said)
    assert re.search(r"taken alone; after Holm's .* family of 6 the gap is resolved in", said)
    assert "another gap than" not in said


def test_the_figures_take_the_tables(gap):
    level, found = photographs.levels(gap, SEEDS), photographs.contrasts(gap, SEEDS)
    drawn = photographs.figure(found, NAMES)
    assert drawn["panel"].tolist() == [
        "generated minus real",
        "mix minus real",
        "mix minus generated",
    ]
    assert set(drawn["setting"]) == {"Other people"}
    chart = charts_tradeoff.gaps(drawn, source="x", legend="measure", axis="points").to_dict()
    assert "generated minus real Other people: -" in chart["description"]
    shown = photographs.shown(level, NAMES)
    assert shown["group"].tolist() == [TEACHER, *SETS, UNTRAINED]
    chart = charts_fairness.group_intervals(shown, source="x", metric_title="share").to_dict()
    assert "accuracy, 10 folds; Other people" in chart["description"]


# --- the stored results --------------------------------------------------------------------------


def test_tables_without_untrained_networks_are_refused():
    """As versions before those stored them; and those of other notebooks."""
    level, compared = rows_of({})
    tables = {"levels": level, "contrasts": compared}
    assert photographs.check_stored(tables, "here") is None
    older = {"levels": level, "contrasts": compared[compared["other"] != UNTRAINED]}
    others = {"rates": level}, {"levels": level.drop(columns="set"), "contrasts": compared}
    for wrong, lacking in ((older, "contrasts"), *((other, "levels") for other in others)):
        with pytest.raises(errors.DataError) as caught:
            photographs.check_stored(wrong, "here")
        wanted = errors.OTHER_STORED.format(folder="here", table=lacking)
        assert str(caught.value) == wanted


def test_the_stored_tables_agree_with_each_other():
    tables, record = results.read("book/results/kd_photoreal")
    photographs.check_stored(tables, "book/results/kd_photoreal")
    asked = record["parameters"]
    assert asked["real_set"] == "lfw_people" and asked["group_set"] == "london"
    assert asked["real_root"] is asked["group_root"] is asked["teachers_dir"] is None
    assert not [w for w in ("/home", "/tmp", "Users") if w in json.dumps(record)]
    level, compared, apart = (tables[k] for k in ("levels", "contrasts", "between_groups"))
    assert min(t["people"].min() for t in (level, compared, apart)) >= asked["fewest"] == 5
    by = level.set_index(["test", "group", "set"])["value"]
    one, other = (
        [by[row.test, row.group, getattr(row, side)] for row in compared.itertuples()]
        for side in ("one", "other")
    )
    wanted = np.subtract(one, other)
    np.testing.assert_allclose(compared["value"], wanted, atol=1e-12)
    for table in (compared, apart):
        for _, part in table.groupby("family"):
            np.testing.assert_allclose(part["p_holm"], testing.holm(part["p"]), atol=1e-12)
            assert (part["tests"] == len(part)).all()
    inside = (compared["low"] <= compared["value"]) & (compared["value"] <= compared["high"])
    assert inside.all() and set(level["set"]) == {TEACHER, *SETS, UNTRAINED}
    said = photographs.findings(level, compared, apart, NAMES, asked["margin"])
    assert "nan" not in said and said.count("The synthetic gap") == 1
    assert said.count("So this test does not judge the gap") == 1  # London, for want of people
    beside = compared[compared["other"] == UNTRAINED]
    assert len(beside) == 3 * compared["group"].nunique() + 3  # everybody of either test
