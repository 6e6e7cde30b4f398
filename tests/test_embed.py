import numpy as np
import pandas as pd
import torch
from sklearn.metrics.pairwise import cosine_similarity

from studylib import embed
from studylib.faces import Faces


class Pixels(torch.nn.Module):
    """Stands for a network: the left half of a picture, flattened."""

    def forward(self, faces):
        return faces[..., : faces.shape[-1] // 2].flatten(1).float()


def make(n=7):
    images = torch.randint(0, 256, (n, 3, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    table = pd.DataFrame({"item": [f"i{k}" for k in range(n)], "subject": list("aabbcca")[:n]})
    return Faces(images, table.assign(gender=["f", "f", "m", "m", "f", "f", "f"][:n]), "noise")


def test_pairs_and_scores_are_in_one_order():
    faces = make()
    pairs = embed.all_pairs(faces)
    vectors = embed.embed(Pixels(), faces, batch_size=3)
    scores = embed.score_all_pairs(vectors).numpy()
    theirs = cosine_similarity(Pixels()(faces.images).numpy())
    place = {item: k for k, item in enumerate(faces.table["item"])}
    for row, score in zip(pairs.itertuples(), scores, strict=True):
        np.testing.assert_allclose(score, theirs[place[row.item_a], place[row.item_b]], rtol=1e-5)


def test_each_pair_once_with_its_people_and_groups():
    pairs = embed.all_pairs(make())
    assert len(pairs) == 21
    assert len({frozenset(p) for p in zip(pairs["item_a"], pairs["item_b"], strict=True)}) == 21
    same = pairs["subject_a"].astype(str) == pairs["subject_b"].astype(str)
    assert (pairs["genuine"] == same).all() and pairs["genuine"].sum() == 3 + 1 + 1
    assert {"gender_a", "gender_b"} <= set(pairs) and "race_a" not in pairs
    mixed = pairs[(pairs["subject_a"] == "a") & (pairs["subject_b"] == "b")]
    assert set(mixed["gender_a"]) == {"f"} and set(mixed["gender_b"]) == {"m"}


def test_mirrored_embeddings_are_added_before_normalising():
    faces = make()
    plain, flipped = Pixels()(faces.images), Pixels()(faces.images.flip(-1))
    expected = torch.nn.functional.normalize(plain + flipped)
    torch.testing.assert_close(embed.embed(Pixels(), faces, mirror=True), expected)


def test_rows_have_length_one():
    torch.testing.assert_close(embed.embed(Pixels(), make()).norm(dim=1), torch.ones(7))


def protocol():
    """Fixed pairs of the seven faces: some in the other order, one twice."""
    return pd.DataFrame(
        {
            "a": np.array([0, 5, 2, 2, 6], np.int64),
            "b": np.array([1, 4, 3, 6, 2], np.int64),
            "genuine": [True, True, True, False, False],
            "fold": np.array([0, 0, 1, 1, 2], np.int64),
        }
    )


def test_a_protocols_pairs_keep_their_order_and_sides():
    table = embed.pair_table(make(), protocol())
    assert table["item_a"].tolist() == ["i0", "i5", "i2", "i2", "i6"]
    assert table["item_b"].tolist() == ["i1", "i4", "i3", "i6", "i2"]
    assert table["subject_a"].tolist() == list("acbba")
    assert table["gender_b"].tolist() == ["f", "f", "m", "f", "m"]
    assert table["genuine"].tolist() == protocol()["genuine"].tolist()
    assert table["fold"].tolist() == [0, 0, 1, 1, 2] and "group" not in table


def test_a_protocol_has_the_last_word_on_who_is_one_person():
    """In a .bin file people are known from pairs alone; what a list says is what is scored."""
    wrong = protocol().assign(genuine=False, group=list("xxyyy"))
    table = embed.pair_table(make(), wrong)
    assert not table["genuine"].any() and table["group"].tolist() == list("xxyyy")


def test_all_pairs_as_a_protocol_are_the_table_of_all_pairs():
    faces = make()
    first, second = np.triu_indices(len(faces), 1)
    subjects = faces.table["subject"].to_numpy()
    pairs = pd.DataFrame({"a": first, "b": second, "genuine": subjects[first] == subjects[second]})
    pd.testing.assert_frame_equal(embed.pair_table(faces, pairs), embed.all_pairs(faces))
    vectors = embed.embed(Pixels(), faces)
    torch.testing.assert_close(embed.score_pairs(vectors, pairs), embed.score_all_pairs(vectors))


def test_scores_of_a_protocol_in_parts_are_those_in_one(monkeypatch):
    vectors = embed.embed(Pixels(), make())
    whole = embed.score_pairs(vectors, protocol())
    theirs = cosine_similarity(vectors.numpy())[protocol()["a"], protocol()["b"]]
    np.testing.assert_allclose(whole, theirs, rtol=1e-5)
    monkeypatch.setattr(embed, "PART", 2)
    assert torch.equal(embed.score_pairs(vectors, protocol()), whole)
    assert len(embed.score_pairs(vectors, protocol()[:0])) == 0
