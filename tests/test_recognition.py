import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from studylib import datasets, embed, errors, recognition
from studylib.faces import Faces
from tests.fixtures import fr_files, fr_trees


def test_people_are_identities_in_the_asked_shares():
    faces = recognition.people(25, 3, use="train", shares="skewed", size=32)
    assert faces.images.shape == (75, 3, 32, 32)
    assert faces.classes == ()
    per_group = faces.table.drop_duplicates("subject")["group"].value_counts()
    assert per_group.to_dict() == {"A": 19, "B": 3, "C": 2, "D": 1}
    # labels are 0..24, one for each subject
    by_subject = faces.table.groupby("subject")["label"].agg(["nunique", "first"])
    assert (by_subject["nunique"] == 1).all()
    assert sorted(by_subject["first"]) == list(range(25))


def test_nobody_is_used_twice():
    seen = [
        recognition.people(20, 1, use=use, size=32, seed=seed).subjects
        for use in recognition.USES
        for seed in range(3)
    ]
    assert len(set(np.concatenate(seen))) == 9 * 20


def test_shares_are_whole_and_get_more_unequal():
    for shares in recognition.SHARES.values():
        assert sum(shares.values()) == pytest.approx(1)
    largest = [max(shares.values()) for shares in recognition.SHARES.values()]
    assert largest == sorted(largest)


@pytest.fixture(scope="module")
def test_faces():
    return recognition.people(80, 6, use="test", size=32)


def test_pairs_have_the_layout_of_rfw(test_faces):
    pairs = recognition.pairs_within_groups(test_faces, per_group=400, seed=1)
    assert list(pairs.columns) == ["a", "b", "genuine", "fold", "group"]
    blocks = pd.DataFrame(
        [
            {"group": group, "fold": fold, "genuine": genuine}
            for group in "ABCD"
            for fold in range(10)
            for genuine in (True, False)
        ]
    )
    expected = blocks.loc[blocks.index.repeat(20)].reset_index(drop=True)
    pd.testing.assert_frame_equal(pairs[["group", "fold", "genuine"]], expected)

    a, b = (test_faces.table.iloc[pairs[side]].reset_index(drop=True) for side in "ab")
    assert ((a["subject"] == b["subject"]) == pairs["genuine"]).all()
    assert (a["group"] == pairs["group"]).all() and (b["group"] == pairs["group"]).all()
    assert not pairs.duplicated(["a", "b"]).any()
    assert (pairs["a"] < pairs["b"]).all()
    folds = pd.concat([a.assign(fold=pairs["fold"]), b.assign(fold=pairs["fold"])])
    assert (folds.groupby("subject")["fold"].nunique() == 1).all()  # people are in one fold


def test_the_seed_alone_decides_the_pairs(test_faces):
    first, again, other = (
        recognition.pairs_within_groups(test_faces, per_group=200, seed=s) for s in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first[["a", "b"]].equals(other[["a", "b"]])


def test_what_cannot_be_drawn_is_refused(test_faces):
    # a fold of a group has two people of six pictures: 30 genuine and 36 impostor pairs
    recognition.pairs_within_groups(test_faces, per_group=600)
    few = errors.TOO_FEW_PAIRS.format(group="A", found=30, kind="genuine", wanted=31)
    with pytest.raises(errors.ParameterError, match=f"^{few}$"):
        recognition.pairs_within_groups(test_faces, per_group=620)
    for value in (0, 30, -20):
        with pytest.raises(errors.ParameterError) as caught:
            recognition.pairs_within_groups(test_faces, per_group=value)
        assert str(caught.value) == errors.BAD_PAIR_COUNT.format(value=value, step=20)
    with pytest.raises(errors.ParameterError, match="Unknown group shares 'fair'"):
        recognition.people(4, 1, use="train", shares="fair", size=32)
    with pytest.raises(errors.ParameterError, match="Unknown use of identities 'sale'"):
        recognition.people(4, 1, use="sale", size=32)


def test_a_training_set_is_simulated_or_packed(tmp_path):
    settings = {"n_people": 12, "per_person": 2, "size": 32}
    faces = recognition.training_set("simfaces", shares="global", **settings)
    assert recognition.counts(faces).to_dict("index") == {
        "A": {"identities": 5, "pictures": 10},
        "B": {"identities": 4, "pictures": 8},
        "C": {"identities": 2, "pictures": 4},
        "D": {"identities": 1, "pictures": 2},
        "all": {"identities": 12, "pictures": 24},
    }
    root = fr_trees.identity_tree(tmp_path / "mine", groups=(), people=3, count=2)
    packed = recognition.training_set("identity_folder", root, size=32)
    assert packed.folder == tmp_path / "mine-packed-32"
    assert recognition.counts(packed).to_dict("index") == {"all": {"identities": 3, "pictures": 6}}
    for people in (faces, packed):
        shown = recognition.some(people, 4, seed=0)
        assert shown.images.shape == (4, 3, 32, 32)
        assert shown.table["item"].isin(people.table["item"]).all()


def test_photographs_are_resized_and_get_a_group(tmp_path):
    path = fr_files.benchmark(tmp_path / "lfw.bin")
    faces, pairs = recognition.test_set("lfw", path, size=48)
    assert faces.images.shape[1:] == (3, 48, 48) and faces.images.dtype == torch.uint8
    whole, same = recognition.test_set("lfw", path, size=112)
    assert set(pairs["group"]) == {"everybody"} and pairs.equals(same)
    pictures = [Image.fromarray(face) for face in whole.images.permute(0, 2, 3, 1).numpy()]
    resized = [p.resize((48, 48), Image.Resampling.BILINEAR) for p in pictures]
    small = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)
    assert (faces.images.int() - small.int()).abs().max() <= 1  # Pillow rounds twice


def flat(size: int) -> torch.nn.Module:
    """A network whose embedding is the picture: cosines can be worked out by hand."""
    return torch.nn.Sequential(torch.nn.Flatten(), Centred(size))


class Centred(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        assert x.shape[1] == 3 * self.size**2
        return x.float() - 127.5


def cosine(one, two) -> float:
    one, two = (x.double() - 127.5 for x in (one, two))
    return float((one * two).sum() / one.norm() / two.norm())


def test_a_trial_of_simulated_people():
    asked = {"n_people": 80, "per_person": 3, "per_group": 60, "data_seed": 4}
    trial = recognition.trial("simfaces", size=32, **asked)
    faces, pairs = recognition.test_set(
        "simfaces", n_people=80, per_person=3, per_group=60, size=32, seed=4
    )
    assert torch.equal(trial.faces.images, faces.images) and trial.fixed.equals(pairs)
    assert trial.pairs[["genuine", "fold", "group"]].equals(pairs[["genuine", "fold", "group"]])
    assert trial.spare is None
    found = recognition.scores(flat(32), trial)
    a, b = (faces.images[pairs[side].iloc[7]] for side in "ab")
    both = [x.double() + x.flip(-1) - 127.5 for x in (a, b)]  # 2 * 127.5 less once
    assert found[7] == pytest.approx(cosine(*both), abs=1e-5)
    assert recognition.shown(trial) is trial.faces


def test_a_trial_of_all_pairs_keeps_people_aside(own_pictures):
    trial = recognition.trial("folder", own_pictures, size=48, spare=0.34, seed=0)
    assert trial.faces.images.shape[-1] == trial.spare.images.shape[-1] == 48
    assert not set(trial.faces.subjects) & set(trial.spare.subjects)
    n = len(trial.faces)
    assert trial.fixed is None and len(trial.pairs) == n * (n - 1) / 2
    found = recognition.scores(flat(48), trial)  # as they are: mirrored ones are not added
    assert found[0] == pytest.approx(cosine(*trial.faces.images[:2]), abs=1e-5)


def test_a_trial_of_templates(tmp_path):
    trial = recognition.trial("ijbc", fr_trees.ijbc_tree(tmp_path), size=48)
    templates = datasets.load_templates("ijbc", tmp_path)
    genuine = trial.pairs["subject_a"].astype(str) == trial.pairs["subject_b"].astype(str)
    assert genuine[trial.pairs["genuine"]].all()
    assert trial.pairs["item_a"].astype(int).tolist() == [
        templates.ids[a] for a in templates.pairs["a"]
    ]
    rows = embed.embed_templates(flat(48), templates, size=48)
    expected = embed.score_pairs(rows, templates.pairs).numpy()
    assert recognition.scores(flat(48), trial).tolist() == expected.tolist()
    assert trial.spare is None and len(trial.faces.subjects) < len(templates.ids)
    some = recognition.shown(trial)
    assert len(some) == min(16, len(templates)) and some.origin == "ijbc"


def test_a_training_set_is_no_trial(tmp_path):
    with pytest.raises(errors.DataError, match="open_identities"):
        recognition.trial("ms1mv2", tmp_path, size=48)


def test_agreement_counts_equal_decisions_by_group():
    # Of each group's 200 pairs the second network misjudges the last `wrong` ones, the first none.
    wrong = {"A": 20, "B": 60}
    rows = [
        {
            "subject_a": f"{group}{k % 40}",
            "subject_b": f"{group}{k % 40 if k % 2 else (k + 1) % 40}",
            "genuine": k % 2 == 1,
            "group": group,
            "score_one": float(k % 2),
            "score_two": float((k % 2) ^ (k >= 200 - wrong[group])),
        }
        for group in "AB"
        for k in range(200)
    ]
    pairs = pd.DataFrame(rows)
    found = recognition.agreement(pairs, "score_one", "score_two", resamples=200)
    assert found["group"].tolist() == ["A", "B", "all"]
    assert found["value"].tolist() == pytest.approx([0.9, 0.7, 0.8])
    assert found["n"].tolist() == [200, 200, 400]
    assert (found["low"] < found["value"]).all() and (found["value"] < found["high"]).all()
    # a network agrees with itself on another scale; the interval still says that pairs are few
    same = recognition.agreement(
        pairs.assign(score_two=3 * pairs["score_one"] - 1), "score_one", "score_two", resamples=200
    )
    assert (same["value"] == 1).all() and (same["low"] < 1).all()


def test_people_who_are_only_ever_second_are_resampled_within_their_own_group():
    # Whoever is second is first where the sides are swapped, and the interval is the same.
    rng = np.random.default_rng(0)
    rows = [
        {
            "subject_a": f"{group}{k}",
            "subject_b": f"{group}second{k % 4}",
            "genuine": k % 2 == 1,
            "group": group,
            "score_one": float(k % 2),
            "score_two": float((k % 2) ^ (rng.random() < wrong)),
        }
        for group, wrong in (("A", 0.05), ("B", 0.4))
        for k in range(60)
    ]
    pairs = pd.DataFrame(rows)
    swapped = pairs.rename(columns={"subject_a": "subject_b", "subject_b": "subject_a"})
    told = {"resamples": 2000, "seed": 0}
    ours, theirs = (
        recognition.agreement(p, "score_one", "score_two", **told) for p in (pairs, swapped)
    )
    bounds = [found[["low", "high"]].to_numpy() for found in (ours, theirs)]
    np.testing.assert_allclose(bounds[0], bounds[1], atol=0.02)


def test_likeness_is_the_mean_cosine_by_group():
    table = pd.DataFrame({"item": list("abcd"), "subject": ["p", "q", "r", "s"]})
    faces = Faces(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), table.assign(group=list("xxyy")), "")
    rows = torch.eye(4)
    wanted = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0.6, 0.8], [0, 0, 0.8, 0.6]])
    found = recognition.likeness(rows, wanted, faces, resamples=200)
    assert found["value"].tolist() == pytest.approx([0.5, 0.6, 0.55])
    assert found["n"].tolist() == [2, 2, 4]
    # of two people as often one twice as each once: cosines from 0 to 1, and always 0.6
    assert found[["low", "high"]].to_numpy()[:2].tolist() == pytest.approx(
        np.array([[0.0, 1.0], [0.6, 0.6]])
    )
    alone = Faces(faces.images, table, "")
    assert recognition.likeness(rows, wanted, alone)["group"].tolist() == ["everybody", "all"]
