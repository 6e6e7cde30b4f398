import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from studylib import datasets, errors, shrink, train
from studylib import expression_changes as changes
from studylib import expression_changes_shown as shown
from studylib import expression_compare as compare
from studylib.compress import cluster, prune, quantize
from studylib.faces import Faces
from studylib.metrics import testing
from studylib.models import mini_xception

VARIANTS = ["fp32", "small"]
CLASSES = ["anger", "happy", "neutral"]


@pytest.fixture
def table():
    """Sixty people, a neutral and a happy picture each; `small` loses smiles of the 20 males."""
    rng = np.random.default_rng(0)
    people = [f"p{i:02d}" for i in range(60)]
    rows = pd.DataFrame({"subject": np.repeat(people, 2), "label": [2, 1] * 60})
    rows["item"] = rows["subject"] + np.array(["/n", "/h"])[[0, 1] * 60]
    rows["gender"] = np.where(rows["subject"] < "p40", "female", "male")
    smile = rows["label"] == 1
    rows["predicted_fp32"] = rows["label"].where(np.arange(120) % 11 > 0, 0)
    lost = smile & (rows["gender"] == "male") & (rows["subject"] >= "p45")
    rows["predicted_small"] = rows["predicted_fp32"].where(~lost, 2)
    rows["probability_fp32"] = rng.uniform(0.4, 0.6, 120)
    moved = np.where(smile & (rows["gender"] == "male"), -0.1, 0.01) + rng.normal(0, 0.01, 120)
    rows["probability_small"] = rows["probability_fp32"] + moved
    return rows


@pytest.fixture
def joined(table):
    return compare.join({"run": table})


def row(found, **wanted):
    mask = np.logical_and.reduce([found[key] == value for key, value in wanted.items()])
    [one] = found[mask].to_dict("records")
    return one


def test_rates_are_the_counted_shares(table, joined):
    found = changes.rates(joined, CLASSES, resamples=200)
    of = (table["gender"] == "male") & (table["label"] == 1)
    right = (table["predicted_small"] == table["label"])[of]
    got = row(found, attribute="gender", group="male", expression="happy", variant="small")
    assert (got["n"], got["people"], got["right"]) == (20, 20, right.sum())
    assert got["value"] == pytest.approx(right.mean())
    assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all()
    assert found["low"].min() >= 0 and found["high"].max() <= 1
    assert len(found) == 2 * 2 * (1 + 2)  # variants, expressions, everybody and two genders
    wide = shown.rates_table(found)
    assert list(wide.index) == ["fp32", "small"] and list(wide.columns) == ["happy", "neutral"]


def test_flips_are_mcnemars(table, joined):
    found = changes.flips(joined, "fp32", "small", CLASSES, resamples=200)
    got = row(found, attribute="gender", group="male", expression="happy")
    before = table["predicted_fp32"] == table["label"]
    after = table["predicted_small"] == table["label"]
    of = (table["gender"] == "male") & (table["label"] == 1)
    assert got["lost"] == (before & ~after)[of].sum() > 10 and got["gained"] == 0
    assert (
        got["other"] == ((table["predicted_fp32"] != table["predicted_small"]) & ~before)[of].sum()
    )
    assert got["change"] == pytest.approx(-got["lost"] / 20)
    assert got["p"] == pytest.approx(float(testing.mcnemar(got["lost"], 0)))
    assert got["high"] < 0 and got["p_holm"] < 0.05
    still = row(found, attribute="gender", group="female", expression="neutral")
    assert (still["lost"], still["gained"], still["p"]) == (0, 0, 1)
    assert still["low"] < -0.05 and still["high"] > 0.05  # nothing seen in 40 is not nothing
    np.testing.assert_array_equal(found["p_holm"], testing.holm(found["p"]))


def test_people_with_several_pictures_are_no_items(table):
    """The same pictures, of half as many people: p no longer comes from McNemar's test."""
    merged = table.assign(subject=table["subject"].str[:2])
    found = changes.flips(compare.join({"r": merged}), "fp32", "small", None, resamples=500)
    whole = row(found, attribute="everybody")
    assert (whole["n"], whole["people"]) == (120, 6)
    assert whole["p"] > float(testing.mcnemar(whole["lost"], whole["gained"]))


def test_shifts_are_students_over_people(table):
    found, between = changes.shifts(table, "fp32", "small", CLASSES)
    of = (table["gender"] == "male") & (table["label"] == 1)
    odds = {v: table[f"probability_{v}"] / (1 - table[f"probability_{v}"]) for v in VARIANTS}
    moved = np.log(odds["small"] / odds["fp32"])[of]
    got = row(found, attribute="gender", group="male", expression="happy")
    test = stats.ttest_1samp(moved, 0)
    interval = test.confidence_interval()
    assert got["shift"] == pytest.approx(moved.mean())
    assert (got["low"], got["high"]) == pytest.approx((interval.low, interval.high))
    assert got["p"] == pytest.approx(test.pvalue)
    assert row(between, expression="happy")["p_holm"] < 1e-6
    assert set(between["people"]) == {20}
    assert row(between, expression="neutral")["p_holm"] > 0.05


def test_a_persons_pictures_count_once_together(table):
    found, _ = changes.shifts(table, "fp32", "small", None)
    whole = row(found, attribute="everybody")
    assert (whole["people"], whole["n"], whole["expression"]) == (60, 120, "all pictures")


def test_no_spread_allows_no_test(table):
    same = table.assign(probability_small=table["probability_fp32"])
    found, between = changes.shifts(same, "fp32", "small", CLASSES)
    assert (found["shift"] == 0).all() and found["p"].isna().all() and between["p"].isna().all()
    text = shown.odds(found, between, "fp32", "small")
    assert "happy: +0.0 % (no interval), not resolved." in text and "resolved" not in text.replace(
        "not resolved", ""
    )


def test_gaps_of_groups(table, joined):
    found = changes.gaps(joined, "fp32", "small", CLASSES, resamples=500)
    happy = row(found, expression="happy")
    accuracy = (table["predicted_fp32"] == table["label"])[table["label"] == 1]
    rates = accuracy.groupby(table["gender"]).mean()
    assert happy["gap"] == pytest.approx(rates.max() - rates.min())
    assert (happy["highest"], happy["lowest"]) == (rates.idxmax(), rates.idxmin())
    after = (table["predicted_small"] == table["label"])[table["label"] == 1]
    rates = after.groupby(table["gender"]).mean()
    moved = rates[happy["highest"]] - rates[happy["lowest"]] - happy["gap"]
    assert happy["change"] == pytest.approx(moved)
    assert abs(happy["change"]) > 0.5 and happy["change_p_holm"] < 0.01
    assert row(found, expression="neutral")["change_p_holm"] == 1
    assert "(the smallest group has 20)" in shown.distances(found, "fp32", "small")
    wide = changes.gaps(joined, "small", "fp32", CLASSES, resamples=500)
    text = shown.distances(wide, "small", "fp32")
    assert (wide["highest_people"] == 40).all() and (wide["lowest_people"] == 20).all()
    assert "small is right more often for female (40 people) than for male (20 people)" in text
    assert "In 1 of the 2 a change of the gap" in text


def test_without_groups_there_is_nothing_to_compare(table):
    alone = compare.join({"r": table.drop(columns="gender")})
    found = changes.gaps(alone, "fp32", "small", CLASSES, resamples=100)
    assert not len(found) and shown.distances(found, "a", "b") == "There are no groups to compare."
    flips = changes.flips(alone, "fp32", "small", CLASSES, resamples=100)
    assert set(flips["attribute"]) == {"everybody"}
    assert "groups and expressions" not in shown.answers(flips, "fp32", "small")
    assert shown.group_sizes(changes.without_few(table.drop(columns="gender"))[1]).startswith(
        "The set says nothing of groups"
    )


def test_sentences_name_what_is_resolved(table, joined):
    flips = changes.flips(joined, "fp32", "small", CLASSES, resamples=300)
    text = shown.answers(flips, "fp32", "small")
    differ = (table["predicted_fp32"] != table["predicted_small"]).sum()
    assert f"On {differ} of 120 pictures the answers of fp32 and small differ." in text
    assert "a change is resolved for gender male (happy, 20 people)." in text
    assert "is inside the interval" in text
    same = changes.flips(joined, "fp32", "fp32", CLASSES, resamples=300)
    assert "On 0 of 120 pictures" in shown.answers(same, "fp32", "fp32")
    assert "In none of the 4 groups" in shown.answers(same, "fp32", "fp32")
    shifts, between = changes.shifts(table, "fp32", "small", CLASSES)
    told = shown.odds(shifts, between, "fp32", "small")
    assert (
        "By gender the changes differ on happy (p below 0.001 after Holm): from male (20 people) -"
        in told
    )


def test_small_groups_get_no_rows_but_still_count(table):
    table.loc[table["subject"] == "p59", "gender"] = "other"
    cut, groups = changes.without_few(table, 5)
    assert len(cut) == 120 and set(cut["gender"].dropna()) == {"female", "male"}
    assert groups.set_index("group")["people"].to_dict() == {"female": 40, "male": 19, "other": 1}
    found = changes.rates(compare.join({"r": cut}), CLASSES, resamples=100)
    assert set(found["group"]) == {"everybody", "female", "male"}
    assert set(found.loc[found["attribute"] == "everybody", "n"]) == {60}
    text = shown.group_sizes(groups)
    assert "Too few for a result of their own: gender other (1)." in text
    assert "So few cannot stand for a population" in text


def test_age_bands():
    ages = pd.DataFrame({"age": ["17", "18", "24", "25", "60", "unknown"]})
    found = changes.with_bands(ages, [18, 25])["age"].tolist()
    assert found == [None, "18-24", "18-24", "25+", "25+", None]
    bands = pd.DataFrame({"age": ["0-3", "4-19"]})
    assert changes.with_bands(bands, [18]) is bands
    for wrong in ([], [30, 18], [18, 18]):
        with pytest.raises(errors.ParameterError) as caught:
            changes.with_bands(ages, wrong)
        assert str(caught.value) == errors.BAD_EDGES.format(value=wrong)


def pictures(classes, labels):
    table = pd.DataFrame({"item": range(len(labels)), "subject": "a", "label": labels})
    return Faces(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), table, "set", classes)


def test_labels_are_matched_by_name():
    found = changes.with_labels_of(pictures(("smiling", "contempt", "neutral"), [0, 1, 2]), CLASSES)
    assert found.table["label"].tolist() == [1, 2] and found.classes == tuple(CLASSES)
    with pytest.raises(errors.DataError) as caught:
        changes.with_labels_of(pictures(("contempt",), [0]), CLASSES)
    assert str(caught.value) == errors.NO_COMMON_CLASS.format(
        origin="set", found="contempt", wanted="anger, happy, neutral"
    )
    plain = pictures((), [0])
    assert changes.with_labels_of(plain, CLASSES) is plain


def test_outcomes_hold_the_probability_of_the_expected_answer():
    faces = pictures(tuple(CLASSES), [2, 1])
    said = {"fp32": torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])}
    found = changes.outcomes(faces, said)
    assert found["predicted_fp32"].tolist() == [2, 0]
    np.testing.assert_allclose(found["probability_fp32"], [0.7, 0.3])
    said["small"] = torch.tensor([[0.1, 0.5, 0.4], [0.5, 0.4, 0.1]])
    faces = Faces(faces.images, faces.table.drop(columns="label"), "set")
    unlabelled = changes.outcomes(faces, said)
    assert unlabelled["label"].tolist() == [2, 0]  # the float network's own answers
    np.testing.assert_allclose(unlabelled["probability_small"], [0.4, 0.5])


class Pixels(nn.Module):
    def forward(self, faces):
        return faces.float()


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 7)]
    return nn.Sequential(Pixels(), *layers).eval()


@pytest.fixture
def noise():
    """Six faces of noise."""
    pixels = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    return Faces(pixels.to(torch.uint8), pictures((), [0] * 6).table, "set")


def test_variants_are_made_without_training(network, noise):
    names = ["fp32", "s50", "c4", "s50+c4", "w8a8"]
    made = changes.compress(network, names, noise)
    assert list(made) == names
    x = noise.images
    assert torch.equal(made["fp32"](x), network(x))
    assert prune.sparsity(made["s50"]).set_index("layer").loc["total", "sparsity"] == 0.5
    assert set(cluster.distinct(made["c4"])["distinct"]) == {4}
    both = made["s50+c4"][5].weight
    assert (both == 0).float().mean() >= 0.5 and len(both.unique()) == 4
    assert all(q.batches > 0 for q in quantize.activation_quantizers(made["w8a8"]))
    before = dict(network.named_parameters())
    assert torch.equal(before["2.bias"], dict(made["s50"].named_parameters())["2.bias"])


def test_a_width_means_what_it_means_in_training(network, noise):
    """The same codes as `shrink` makes of any network: normalisation folded, then rounded."""
    made = changes.compress(network, ["w6", "w8a8"], noise, seed=3)
    folded = quantize.fold_norms(network)
    assert isinstance(made["w6"][2], nn.Identity)
    expected = quantize.finish(quantize.prepare(folded, "w6"))
    assert torch.equal(quantize.finish(made["w6"])[5].weight, expected[5].weight)
    [plan] = [v for v in shrink.expand(["w8a8"], shrink.UNTRAINED) if v.name == "w8a8"]
    static, _ = shrink.make(plan, network, noise, noise, recipe=shrink.UNTRAINED, seed=3)
    x = noise.images
    assert torch.equal(static(x), made["w8a8"](x))


def test_shipped_differs_from_w8_by_its_activations_alone(network, noise):
    made = changes.compress(network, ["shipped", "w8"], noise)
    w8, shipped = made["w8"], made["shipped"]
    assert torch.equal(quantize.finish(w8)[5].weight, quantize.finish(shipped)[5].weight)
    with torch.inference_mode():
        assert not torch.equal(w8(noise.images), shipped(noise.images))


def test_every_normalisation_of_mini_xception_can_be_folded():
    """Also those behind a depthwise and a pointwise convolution: they follow the second alone."""
    network = mini_xception.load()
    folded = quantize.fold_norms(network)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 14
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    faces = datasets.load_pictures("orl", size=mini_xception.SIZE)[0].sample(20, 0)
    with torch.inference_mode():
        torch.testing.assert_close(folded(faces.images), network(faces.images), atol=1e-4, rtol=0)
    plain = train.predict(quantize.dynamic_range(network, activations=True), faces)
    shipped = train.predict(changes.compress(network, ["shipped"], faces)["shipped"], faces)
    torch.testing.assert_close(shipped, plain, atol=0.01, rtol=0)  # rounding may tip a code


@pytest.mark.parametrize("name", ["ft2", "ch50", "ch50+w8"])
def test_what_means_training_is_refused(network, noise, name):
    with pytest.raises(errors.ParameterError) as caught:
        changes.compress(network, ["w8", name], noise)
    assert str(caught.value) == errors.NEEDS_TRAINING.format(name=name)


def test_tables_for_charts(table, joined):
    flips = changes.flips(joined, "fp32", "small", CLASSES, resamples=100)
    assert set(flips["variant"]) == {"small"}
    both = pd.concat([flips.assign(variant="shipped"), flips.assign(variant="s50")])
    drawn = shown.by_variant(both)
    assert drawn["method"].tolist() == ["shipped", "shipped", "pruned", "pruned"]
    assert drawn["value"].equals(drawn["change"]) and set(drawn["panel"]) == {"happy", "neutral"}
    shifts, _ = changes.shifts(table, "fp32", "small", CLASSES)
    assert not len(shown.by_group(shifts, "fp32"))
    drawn = shown.by_group(shifts, "small")
    np.testing.assert_allclose(np.log1p(drawn["value"]), shifts["shift"])
    names = drawn["setting"].tolist()
    assert names[0] == "everybody, 60 people" and "gender male, 20 people" in names
    rates = shown.as_rates(changes.rates(joined, CLASSES, resamples=100), ["small"])
    assert set(rates["group"]) == {"everybody", "gender female", "gender male"}
    assert set(rates["series"]) == {"small"} and set(rates["metric"]) == {"happy", "neutral"}


def test_variants_that_win_one_expression_and_lose_another_are_named(joined):
    """`small` calls smiles neutral; neutral faces that it gains would be bought with them."""
    flips = changes.flips(joined, "fp32", "small", CLASSES, resamples=100)
    assert shown.trades(flips).startswith("No variant wins")
    other = flips["expression"] == "neutral"
    flips.loc[other, ["change", "p_holm"]] = 0.25, 0.001
    text = shown.trades(flips)
    assert "- small: happy -" in text and "neutral +25.0 percentage points" in text
    flips.loc[other, "p_holm"] = 0.2
    assert shown.trades(flips).startswith("No variant wins")
