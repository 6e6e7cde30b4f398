"""Simulated faces: exact labels, exact shares, groups that overlap, and pictures that repeat."""

import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from studylib import datasets, errors, sheets
from studylib.synthetic import simcapture, simfaces, simfactors
from studylib.synthetic.simfactors import FACTORS, GROUPS, UNITS

LUMA = torch.tensor([0.299, 0.587, 0.114])
MEAN = torch.tensor([[mean for mean, _ in FACTORS.values()]])
UNSEEN = {"glasses"}  # a habit: whether a picture shows them is drawn with the picture


def drawn(factors=None, units=None, size=64, channels=3):
    """Pictures of rows of factors and units (float, 0..255), all else being plain."""
    n = max(len(rows) for rows in (factors, units) if rows is not None)
    factors = MEAN.expand(n, -1) if factors is None else factors
    units = torch.zeros(n, len(UNITS)) if units is None else units
    return simfaces.portraits(factors, units, size=size, channels=channels).images.float()


@pytest.mark.parametrize("domain", simcapture.DOMAINS)
def test_pictures_repeat_bit_for_bit_whatever_the_batches_and_threads(monkeypatch, domain):
    about = {"size": 33, "channels": 3, "domain": domain, "seed": 3}
    first = simfaces.faces(3, 6, **about)
    threads = torch.get_num_threads()
    try:
        for chunk, used in ((1, 1), (18, 2), (5, 2)):
            monkeypatch.setitem(simfaces._CHUNK, "cpu", chunk * 33**2)
            torch.set_num_threads(used)
            again = simfaces.faces(3, 6, **about)
            assert torch.equal(again.images, first.images)
            pd.testing.assert_frame_equal(again.table, first.table)
    finally:
        torch.set_num_threads(threads)


def test_another_seed_is_other_people_with_other_names():
    a, b = (simfaces.faces(8, 2, size=32, seed=seed) for seed in (1, 11))
    assert not set(a.subjects) & set(b.subjects)
    assert not torch.equal(a.images, b.images)
    assert not simfactors.people(8, seed=1).factors.eq(simfactors.people(8, seed=11).factors).any()


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 90),
    weights=st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any),
)
def test_group_counts_are_the_shares_by_largest_remainder(n, weights):
    shares = {g: w / sum(weights) for g, w in zip(GROUPS, weights, strict=True)}
    table = simfactors.people(n, shares=shares, seed=0).table
    counts = table["group"].value_counts().reindex(list(GROUPS), fill_value=0).to_numpy()
    whole, rest = np.divmod(n * np.array(weights), sum(weights))  # exact, in integers
    more = counts - whole
    assert counts.sum() == n and set(more) <= {0, 1}
    if more.any() and not more.all():
        assert rest[more == 1].min() >= rest[more == 0].max()


def test_genders_and_ages_are_even_in_every_group():
    table = simfactors.people(400, shares={"A": 0.7, "B": 0.1, "C": 0.1, "D": 0.1}, seed=2).table
    cells = table.groupby(["group", "gender", "age"]).size()
    assert cells["A"].tolist() == [28] * 10 and cells["D"].tolist() == [4] * 10
    assert table["subject"].is_unique and table["subject"][7] == "sim2-00007"


def test_without_shift_groups_are_labels_without_any_effect():
    equal, all_a = (
        simfaces.faces(8, 2, size=32, shares=shares, shift=0, seed=5)
        for shares in (None, {"A": 1.0})
    )
    assert torch.equal(equal.images, all_a.images)
    assert set(equal.table["group"]) == set(GROUPS) and set(all_a.table["group"]) == {"A"}
    moved = simfaces.faces(8, 2, size=32, shares={"A": 1.0}, seed=5)
    assert not torch.equal(moved.images, all_a.images)


def test_shift_moves_means_and_leaves_groups_overlapping():
    cast = simfactors.people(4000, seed=0)
    mean, spread = np.array(list(FACTORS.values())).T
    standard = (cast.factors.numpy() - mean) / spread
    group = cast.table["group"].to_numpy()
    for name, look in simfactors._GROUP_LOOK.items():
        found = standard[group == name].mean(0)
        wanted = [look.get(f, 0.0) for f in FACTORS]
        assert np.abs(found - wanted).max() < 0.25  # 1,000 people, sd up to 1.9 with age and gender
    for first, second in (("A", "B"), ("A", "C"), ("B", "C"), ("A", "D")):
        two = np.isin(group, [first, second])
        for column in standard[two].T:
            assert 0.08 < roc_auc_score(group[two] == first, column) < 0.92


def test_half_the_shift_is_half_the_way():
    none, half, full = (simfactors.people(40, shift=s, seed=1) for s in (0, 0.5, 1))
    torch.testing.assert_close(half.factors, (none.factors + full.factors) / 2)
    torch.testing.assert_close(half.rest, (none.rest + full.rest) / 2)
    torch.testing.assert_close(half.gains, (none.gains * full.gains).sqrt())


@pytest.mark.parametrize(("people", "per_person", "classes"), [(11, 3, 7), (4, 8, 8), (5, 3, 7)])
def test_labels_are_balanced_and_exact(people, per_person, classes):
    found = simfaces.faces(people, per_person, size=32, expressions=classes, seed=0)
    counts = found.table["label"].value_counts().reindex(range(classes))
    assert counts.max() - counts.min() <= 1
    assert found.classes == simfactors.EXPRESSIONS[:classes]
    assert found.table["expression"].tolist() == [found.classes[k] for k in found.table["label"]]
    assert found.table["item"].is_unique and len(found.subjects) == people
    neutral = found.table["label"] == 0
    assert found.table.loc[neutral, "intensity"].eq(0).all()
    assert found.table.loc[~neutral, "intensity"].between(0.55, 1).all()


def test_an_expression_of_no_intensity_is_a_neutral_face():
    cast, person = simfactors.people(30, seed=0), np.arange(30)
    intensity = np.zeros(30)
    first, second = (
        simfactors.activations(cast, person, label, intensity, np.random.default_rng(1))
        for label in (person % 7, np.zeros(30, int))
    )
    assert torch.equal(first, second)
    happy, smile = np.full(30, simfactors.EXPRESSIONS.index("happy")), UNITS.index(12)
    full = simfactors.activations(cast, person, happy, intensity + 1, np.random.default_rng(1))
    assert full[:, smile].median() > 0.8 > 0.3 > first[:, smile].median()
    assert full.min() >= 0 and full.max() <= 1.6


def test_poses_go_by_the_recipe():
    half, full = simfactors.posed(np.array([1, 1]), np.array([0.5, 1.0]))
    moved = {unit: amount for unit, amount in zip(UNITS, full, strict=True) if amount}
    recipe = simfactors.RECIPES["anger"]
    assert moved == {unit: simfactors._FULL * amount for unit, amount in recipe.items()}
    np.testing.assert_array_equal(full, 2 * half)
    assert not simfactors.posed(np.array([0]), np.ones(1)).any()


def test_portraits_are_numbered_and_alike_where_their_rows_are():
    found = simfaces.portraits(MEAN.expand(3, -1), torch.zeros(3, len(UNITS)), size=40)
    assert found.subjects == [f"portrait-{i:05d}" for i in range(3)] and found.classes == ()
    assert found.images.shape == (3, 3, 40, 40) and torch.equal(found.images[0], found.images[2])
    left = found.images[0].float().flip(-1)  # frontal and evenly lit: a mirror image of itself
    assert (found.images[0] - left).abs().mean() < 6


def test_every_identity_factor_changes_the_picture():
    rows = MEAN.repeat(len(FACTORS) + 1, 1)
    spread = torch.tensor([spread for _, spread in FACTORS.values()])
    rows[range(1, len(rows)), range(len(FACTORS))] += 2 * spread
    pictures = drawn(factors=rows)
    change = (pictures[1:] - pictures[0]).abs().amax((1, 2, 3))
    unseen = {name for name, most in zip(FACTORS, change, strict=True) if most < 3}
    assert unseen == UNSEEN and len(FACTORS) - len(unseen) >= 25


def test_every_action_unit_moves_its_half_of_the_face():
    units = torch.cat([torch.zeros(1, len(UNITS)), torch.eye(len(UNITS))])
    pictures = drawn(units=units, channels=1)[:, 0]
    change = (pictures[1:] - pictures[0]).abs()
    above = change[:, :32].sum((1, 2)) / change.sum((1, 2))
    left = change[:, :, :32].sum((1, 2)) / change.sum((1, 2))
    for unit, top, side in zip(UNITS, above, left, strict=True):
        if unit <= 9:
            assert top > 0.6, unit
        else:
            assert top < 0.3, unit
        assert 0.45 < side < 0.55 or (unit == 14 and side < 0.35), unit


@pytest.mark.parametrize("size", [32, 45, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_and_channels(size, channels):
    found = simfaces.faces(2, 2, size=size, channels=channels, seed=0)
    assert found.images.shape == (4, channels, size, size) and found.images.dtype == torch.uint8
    assert found.images.float().std((1, 2, 3)).min() > 15  # no empty picture


def test_grey_pictures_are_the_luma_of_the_colour_ones():
    people = simfactors.people(12, seed=0).factors
    grey, colour = (drawn(factors=people, size=48, channels=c) for c in (1, 3))
    luma = (colour * LUMA[:, None, None]).sum(1, keepdim=True)
    # they part where a channel is over-exposed, which clips it alone
    shown = (colour < 250).all(1, keepdim=True)
    assert shown.float().mean() > 0.8 and (grey - luma)[shown].abs().quantile(0.99) < 3


def test_a_larger_picture_is_the_same_picture():
    people = simfactors.people(8, seed=0).factors
    small, large = (drawn(factors=people, size=s, channels=1) for s in (32, 128))
    assert (torch.nn.functional.avg_pool2d(large, 4) - small).abs().mean() < 4


def test_the_generator_domain_is_narrower_between_and_within_people():
    person = np.repeat(np.arange(200), 10)
    spread = {}
    for domain in simcapture.DOMAINS:
        taken, _ = simcapture.draw(person, np.full(2000, 0.2), domain, np.random.default_rng(0))
        varied = taken[[name for name in simcapture._VARIES if name != "texture"]]
        spread[domain] = varied.std(), varied.groupby(person).std().mean()
        assert taken["glasses"].mean() == pytest.approx(0.2, abs=0.03)
    for whole, within in zip(spread["generator"], spread["camera"], strict=True):
        assert (whole < within).all()
    generator = spread["generator"]
    assert (generator[1] < 0.65 * generator[0]).all()  # most of it is a person's own


def test_the_generator_leaves_its_traces():
    board = simcapture.checkerboard(6, 0.02, "cpu")
    assert board.mean() == 1 and board[0, 0] == board[1, 1] == pytest.approx(0.98)
    assert board[0, 1] == pytest.approx(1.02)
    grey = {"size": 64, "seed": 0}
    rough = []
    for domain in simcapture.DOMAINS:
        pixels = simfaces.faces(24, 2, domain=domain, **grey).images.float()[:, 0]
        alternating = simcapture.checkerboard(64, 1.0, "cpu") - 1
        rough.append((pixels * alternating).mean((1, 2)).mean().item())
    assert rough[1] > 5 * abs(rough[0])


@pytest.mark.parametrize("quality", [20, 50, 90])
def test_compression_is_close_to_jpeg(quality):
    picture = drawn(factors=MEAN, channels=1)
    ours = simcapture.compress(picture, torch.tensor([float(quality)])).round().clamp(0, 255)
    data = io.BytesIO()
    Image.fromarray(picture[0, 0].byte().numpy()).save(data, "JPEG", quality=quality)
    peer = torch.from_numpy(np.asarray(Image.open(data)).astype(np.float32))
    # another DCT rounds a coefficient in a few blocks the other way
    assert (ours[0, 0] - peer).abs().mean() < 0.2 * (picture[0, 0] - peer).abs().mean()


def test_blur_is_a_gaussian():
    pictures = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    blurred = simcapture.blur(pictures, torch.tensor([0.8, 0.0]))
    peer = gaussian_filter(pictures[0, 0].numpy(), 0.8, radius=2, mode="nearest")
    torch.testing.assert_close(blurred[0, 0], torch.from_numpy(peer), atol=1e-5, rtol=0)
    torch.testing.assert_close(blurred[1], pictures[1])


def linear_accuracy(pictures, labels, first):
    """Of logistic regression on pixels: learnt on the first pictures, tested on the rest."""
    pixels = pictures.flatten(1).numpy() / 255
    model = LogisticRegression(C=0.01, max_iter=200).fit(pixels[:first], labels[:first])
    return model.score(pixels[first:], labels[first:])


def test_pixels_alone_tell_expressions_far_from_well():
    faces = simfaces.faces(120, 7, size=32, seed=0)
    taken = linear_accuracy(faces.images, faces.table["label"].to_numpy(), 560)
    cast, rng = simfactors.people(120, seed=0), np.random.default_rng(1)
    person, label = np.repeat(np.arange(120), 7), np.tile(np.arange(7), 120)
    units = simfactors.activations(cast, person, label, rng.uniform(0.55, 1, 840), rng)
    plain = simfaces.portraits(cast.factors[person], units, size=32, channels=1).images
    assert 1 / 7 < taken < 0.45
    assert linear_accuracy(plain, label, 560) > taken + 0.15  # the camera hides what is there


@pytest.mark.parametrize("channels", [1, 3])
def test_a_contact_sheet_shows_them_with_credit(channels):
    sheet = sheets.contact_sheet(simfaces.faces(5, 2, size=32, channels=channels, seed=0))
    assert sheet.picture.size == (5 * 34 + 2, 36)
    assert "5 of 10 faces. Simulated faces" in repr(sheet) and "CC BY 4.0" in repr(sheet)


def test_there_is_nothing_to_read_from_disk():
    with pytest.raises(errors.DataError, match=re.escape(errors.NO_FILES.format(name="simfaces"))):
        datasets.check("simfaces")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 31}, errors.BAD_FACE_SIZE.format(value=31)),
        ({"size": 129}, errors.BAD_FACE_SIZE.format(value=129)),
        ({"channels": 2}, errors.NOT_ONE_OF.format(what="channels", known=(1, 3), value=2)),
        ({"expressions": 6}, errors.NOT_ONE_OF.format(what="expressions", known=(7, 8), value=6)),
        ({"domain": "film"}, "'film'"),
        ({"intensity": (0.6, 0.5)}, errors.BAD_INTENSITY.format(value=(0.6, 0.5))),
        ({"intensity": (0.6, 1.5)}, errors.BAD_INTENSITY.format(value=(0.6, 1.5))),
        ({"intensity": (-0.1, 0.5)}, errors.BAD_INTENSITY.format(value=(-0.1, 0.5))),
        ({"shares": {"A": 0.5, "B": 0.4}}, errors.BAD_SHARES.format(total=0.9)),
        ({"shares": {"E": 1.0}}, "'E'"),
        ({"shares": {"A": 1.5, "B": -0.5}}, "The share of A"),
        ({"shift": -1}, "shift"),
        ({"seed": -1}, "seed"),
        ({"n_people": 0}, "people"),
        ({"per_person": 0}, "pictures"),
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong, message):
    about = {"n_people": 2, "per_person": 2, "seed": 0} | wrong
    with pytest.raises(errors.ParameterError, match=re.escape(message)):
        simfaces.faces(**about)
