"""Mixtures of real and synthetic training sets: whose identities, how many, in which groups."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studylib import errors, mixtures, recognition
from studylib.datasets import packed
from studylib.datasets.packed import Joined
from studylib.faces import Faces
from tests.fixtures import fr_trees


def people(groups: dict[str, list[int]], start: str = "p") -> pd.DataFrame:
    """A table with a person for each number, who has so many pictures."""
    rows = [
        {"subject": f"{start}{group}{k}", "group": group}
        for group, pictures in groups.items()
        for k, n in enumerate(pictures)
        for _ in range(n)
    ]
    table = pd.DataFrame(rows)
    return table.assign(item=[f"{s}-{i}" for i, s in enumerate(table["subject"])])


REAL = people({"A": [4] * 10, "B": [4] * 20})
FAKE = people({"A": [7] * 20, "B": [7] * 20}, "f")


def found(table, rows) -> dict[str, tuple[int, int]]:
    """Identities and pictures of each group among the rows."""
    by = table.iloc[rows].groupby("group")
    return {group: (part["subject"].nunique(), len(part)) for group, part in by}


def drawn(name, share, real=REAL, fake=FAKE, seed=0):
    ours, theirs = mixtures.draw(name, share, real, fake, seed=seed)
    return found(real, ours), found(fake, theirs)


def test_each_mixture_counts_what_it_says():
    # 30 % of a set's own people, in every group
    assert drawn("mix", 0.3) == ({"A": (7, 28), "B": (14, 56)}, {"A": (6, 42), "B": (6, 42)})
    # as many people as the real set has: 10 and 20
    assert drawn("mix_equal_ids", 0.3) == (
        {"A": (7, 28), "B": (14, 56)},
        {"A": (3, 21), "B": (6, 42)},
    )
    # as many pictures, 40 and 80: 12 and 24 of them synthetic, in sevens 14 and 21
    assert drawn("mix_equal_images", 0.3) == (
        {"A": (7, 28), "B": (14, 56)},
        {"A": (2, 14), "B": (3, 21)},
    )


def test_the_ends_are_the_sets_themselves():
    for name in mixtures.MIXTURES:
        ours, theirs = mixtures.draw(name, 0.0, REAL, FAKE)
        assert ours.tolist() == list(range(len(REAL))) and len(theirs) == 0
    ours, theirs = mixtures.draw("mix", 1.0, REAL, FAKE)
    assert len(ours) == 0 and theirs.tolist() == list(range(len(FAKE)))
    assert drawn("mix_equal_ids", 1.0)[1] == {"A": (10, 70), "B": (20, 140)}


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(mixtures.MIXTURES),
    shares=st.tuples(*[st.floats(0, 1)] * 2).map(sorted),
    seed=st.integers(0, 5),
)
def test_draws_are_nested(name, shares, seed):
    low, high = (mixtures.draw(name, share, REAL, FAKE, seed=seed) for share in shares)
    assert set(high[0]) <= set(low[0]) and set(low[1]) <= set(high[1])
    for table, rows in ((REAL, low[0]), (FAKE, low[1])):  # with all their pictures
        whole = table["subject"].isin(table["subject"].iloc[rows])
        assert np.flatnonzero(whole).tolist() == rows.tolist()


@settings(max_examples=40, deadline=None)
@given(
    share=st.floats(0, 1),
    sizes=st.lists(st.integers(1, 9), min_size=12, max_size=12),
)
def test_pictures_are_met_within_half_a_person(share, sizes):
    real, fake = people({"A": [5] * 12}), people({"A": [9, *sizes] * 2}, "f")
    if len(fake) < 60:
        return
    ours, theirs = mixtures.draw("mix_equal_images", share, real, fake)
    assert abs(len(theirs) - 60 * share) <= 9 / 2 + 0.5
    assert abs(len(ours) - 60 * (1 - share)) <= 5 / 2 + 0.5


def test_another_seed_draws_other_people():
    first, again, other = (mixtures.draw("mix", 0.5, REAL, FAKE, seed=s) for s in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    # the order of rows is not what decides
    mixed = REAL.sample(frac=1, random_state=3).reset_index(drop=True)
    rows, _ = mixtures.draw("mix", 0.5, mixed, FAKE)
    assert set(mixed["item"].iloc[rows]) == set(REAL["item"].iloc[first[0]])


def test_a_synthetic_set_without_groups_is_drawn_at_large():
    ours, theirs = mixtures.draw("mix_equal_ids", 0.3, REAL, FAKE.drop(columns="group"))
    assert found(REAL, ours) == {"A": (7, 28), "B": (14, 56)}
    assert FAKE["subject"].iloc[theirs].nunique() == 9


def test_names_may_be_numbers():
    numbered = [t.assign(subject=pd.factorize(t["subject"])[0]) for t in (REAL, FAKE)]
    ours, theirs = mixtures.draw("mix_equal_ids", 0.3, *numbered)
    assert found(REAL, ours) == {"A": (7, 28), "B": (14, 56)}
    assert found(FAKE, theirs) == {"A": (3, 21), "B": (6, 42)}


def test_a_share_of_each_set_is_not_the_share_of_synthetic_people():
    given = {"n_people": 40, "per_person": 2, "n_synthetic": 16, "per_synthetic": 3, "size": 32}
    mix = mixtures.training_set("mix", 0.5, **given)
    assert mixtures.realised(mix) == 8 / (20 + 8)
    assert mixtures.realised(mixtures.training_set("real", **given)) == 0
    assert mixtures.realised(mixtures.training_set("synthetic", **given)) == 1


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(errors.ParameterError, match="Unknown mixture 'real'"):
        mixtures.draw("real", 0.3, REAL, FAKE)
    with pytest.raises(errors.ParameterError, match="Unknown training set 'both'"):
        mixtures.training_set("both")
    with pytest.raises(errors.ParameterError, match="share"):
        mixtures.training_set("mix", 30)
    few = errors.FEW_SYNTHETIC.format(group="B", found=6, wanted=10, unit="identities")
    with pytest.raises(errors.ParameterError) as caught:
        mixtures.draw("mix_equal_ids", 0.5, REAL, people({"A": [7] * 9, "B": [7] * 6}, "f"))
    assert str(caught.value) == few
    with pytest.raises(errors.DataError) as caught:
        mixtures.draw("mix", 0.5, REAL, people({"A": [7] * 9, "C": [7] * 6}, "f"))
    assert str(caught.value) == errors.OTHER_GROUPS_MIXED.format(
        real=["A", "B"], synthetic=["A", "C"]
    )
    with pytest.raises(errors.ParameterError) as caught:
        mixtures.training_set("mix", real_set="bupt_balancedface")
    assert str(caught.value) == errors.MIXED_KINDS.format(
        real="bupt_balancedface", synthetic="simfaces"
    )


SMALL = {"n_people": 20, "per_person": 3, "size": 32, "seed": 2}


def test_simulated_sets():
    asked = {"n_synthetic": 40, "per_synthetic": 2, **SMALL}
    real, fake, mix = (mixtures.training_set(name, **asked) for name in mixtures.SETS[:3])
    camera = recognition.people(20, 3, use="train", size=32, seed=2)
    assert torch.equal(real.images, camera.images)
    assert len(real) == 60 and len(fake) == 80
    # 30 % of five people a group is one or two: 1.5 is rounded up
    assert mixtures.counts(mix).to_dict("records") == [
        {"domain": domain, "group": group, "identities": k, "pictures": n}
        for domain, k, n in (("real", 3, 9), ("synthetic", 3, 6))
        for group in "ABCD"
    ]
    # a row keeps its picture, its person and its group
    for domain, whole in (("real", real), ("synthetic", fake)):
        part = mix.take((mix.table["domain"] == domain).to_numpy())
        place = whole.table.set_index("item").index.get_indexer(part.table["item"])
        assert torch.equal(part.images, whole.images[torch.from_numpy(place)])
        assert part.table["group"].tolist() == whole.table["group"].iloc[place].tolist()
    codes = mix.table.groupby("subject", observed=True)["label"].agg(["nunique", "first"])
    assert (codes["nunique"] == 1).all() and sorted(codes["first"]) == list(range(24))


def test_generated_people_are_nobodys_twins():
    asked = {"seed": 0, "size": 32, "n_people": 8, "per_person": 1}
    names = []
    for seed in (0, 1):
        for name in mixtures.DOMAINS:
            table = mixtures.training_set(name, **asked | {"seed": seed}).table
            names += table["subject"].str.partition("/")[2].tolist()
    names += recognition.people(8, 1, use="test", size=32).table["subject"].tolist()
    assert len(set(names)) == 40


@pytest.fixture
def trees(tmp_path):
    real = fr_trees.identity_tree(tmp_path / "real", people=4, count=3)
    fake = fr_trees.identity_tree(tmp_path / "fake", people=4, count=2)
    return {"real_root": real, "synthetic_root": fake}


def test_sets_of_pictures_are_joined_where_they_lie(tmp_path, trees):
    sets = {"real_set": "bupt_balancedface", "synthetic_set": "identity_folder"}
    mix = mixtures.training_set("mix", 0.5, **sets, **trees, size=32)
    assert isinstance(mix, Joined)
    assert [part.folder.name for part in mix.parts] == ["real-packed-32", "fake-packed-32"]
    assert mixtures.counts(mix).to_dict("records") == [
        {"domain": domain, "group": race.lower(), "identities": 2, "pictures": n}
        for domain, n in (("real", 6), ("synthetic", 4))
        for race in fr_trees.RACES
    ]
    # both trees name their people alike, and yet nobody is somebody else
    assert sorted(set(mix.labels)) == list(range(16)) and len(mix) == 40
    assert mix.table["item"].is_unique
    for k in (0, 23, 24, 39):
        domain, _, item = mix.table["item"].iloc[k].partition("/")
        part = mix.parts[domain == "synthetic"]
        row = part.table["item"].tolist().index(item)
        assert torch.equal(mix.batch([k])[0], part.batch([row])[0])
    assert mix.origin == "bupt_balancedface and identity_folder"


def test_only_what_is_needed_is_packed(tmp_path, trees):
    sets = {"real_set": "identity_folder", "synthetic_set": "identity_folder"}
    given = {**sets, **trees, "size": 32, "packed_dir": tmp_path / "packed"}
    alone = mixtures.training_set("synthetic", **given | {"real_set": "simfaces"})
    assert len(alone) == 32 and set(alone.table["domain"]) == {"synthetic"}
    assert [path.name for path in (tmp_path / "packed").iterdir() if path.is_dir()] == ["synthetic"]


def test_a_folder_of_identities_without_groups(tmp_path, trees):
    flat = fr_trees.identity_tree(tmp_path / "flat", groups=(), people=16, count=2)
    sets = {"real_set": "bupt_balancedface", "synthetic_set": "identity_folder"}
    given = sets | {"real_root": trees["real_root"], "synthetic_root": flat, "size": 32}
    table = mixtures.counts(mixtures.training_set("mix_equal_ids", 0.5, **given))
    assert table.query("domain == 'synthetic'")["group"].tolist() == [mixtures.UNKNOWN]
    assert table["identities"].tolist() == [2, 2, 2, 2, 8]


def test_faces_and_packed_ones_give_the_same_mixture(tmp_path):
    of = {
        domain: mixtures.training_set(domain, n_people=8, per_person=2, size=32)
        for domain in mixtures.DOMAINS
    }
    lying = {d: packed.from_faces(faces, tmp_path / d) for d, faces in of.items()}
    memory, disk = (mixtures.joined("mix", 0.5, kind.get) for kind in (of, lying))
    assert isinstance(memory, Faces) and isinstance(disk, Joined)
    pd.testing.assert_frame_equal(memory.table, disk.table)
    assert torch.equal(memory.images, disk.batch(np.arange(len(disk))))


def test_some_faces_of_a_domain_are_shown_under_their_own_sets_name(tmp_path, trees):
    sets = {"real_set": "bupt_balancedface", "synthetic_set": "identity_folder"}
    mix = mixtures.training_set("mix", 0.5, **sets, **trees, size=32)
    for domain, origin in zip(mixtures.DOMAINS, sets.values(), strict=True):
        shown = mixtures.some(mix, domain, 5, seed=1)
        assert len(shown) == 5 and shown.origin == origin
        assert shown.table["item"].str.startswith(f"{domain}/").all()
        place = mix.table.set_index("item").index.get_indexer(shown.table["item"])
        assert torch.equal(shown.images, mix.batch(place))
    rendered = mixtures.training_set("synthetic", **SMALL)
    assert mixtures.some(rendered, "synthetic", 5, seed=1).origin == "simfaces"
