import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from studylib import align, calibration, errors, recognition
from studylib.synthetic import generated, simfaces
from tests.fixtures import fr_trees


def test_real_faces_are_drawn_from_those_set_aside(orl):
    drawn = calibration.faces("real", 12, real=orl, seed=1)
    assert len(drawn) == 12 and drawn.origin == "orl"
    assert set(drawn.table["item"]) <= set(orl.table["item"])
    assert len(calibration.faces("real", 10_000, real=orl, seed=1)) == 400


def test_noise_is_seeded_and_uniform():
    one, again, other = (calibration.faces("noise", 20, real=None, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.images, again.images) and not torch.equal(one.images, other.images)
    assert one.images.shape == (20, 3, 112, 112) and one.images.dtype == torch.uint8
    assert one.images.float().mean().item() == pytest.approx(127.5, abs=0.5)
    assert one.origin == "noise"


def test_unknown_source():
    with pytest.raises(errors.ParameterError, match=r"calibration source 'fake'. .* noise, .*real"):
        calibration.faces("fake", 4, real=None, seed=0)


def test_nobody_set_aside():
    with pytest.raises(errors.ParameterError, match="set spare to the share of people"):
        calibration.faces("real", 4, real=None, seed=0)


def test_no_faces_asked_for():
    with pytest.raises(errors.ParameterError, match="n_calibration must be at least 1, got 0"):
        calibration.faces("noise", 0, real=None, seed=0)


def test_a_generator_draws_the_spare_people_and_nobody_twice():
    drawn = calibration.faces("generator", 12, real=None, seed=3, size=32)
    spare = recognition.people(12, 1, use="spare", size=32, seed=3)
    assert drawn.table["subject"].tolist() == spare.table["subject"].tolist()
    assert drawn.table["subject"].is_unique and set(drawn.table["domain"]) == {"generator"}
    assert drawn.images.shape == (12, 3, 32, 32) and not torch.equal(drawn.images, spare.images)


def test_the_camera_sees_the_same_people():
    drawn, generated_ = (
        calibration.faces(source, 12, real=None, seed=3, size=32)
        for source in ("camera", "generator")
    )
    assert drawn.table["subject"].equals(generated_.table["subject"])
    assert set(drawn.table["domain"]) == {"camera"}


def test_what_real_faces_are_depends_on_who_is_evaluated():
    assert calibration.chosen("real", "simfaces") == "camera"
    assert calibration.chosen("noise", "simfaces") == "noise"
    assert calibration.chosen("real", "orl") == "real"
    assert calibration.chosen("bupt_balancedface", "rfw") == "bupt_balancedface"
    for name in ("rfw", "ijbc"):
        with pytest.raises(errors.ParameterError, match="only sets whose pairs are not fixed"):
            calibration.chosen("real", name)
    with pytest.raises(errors.DataError, match="no data set named 'nowhere'"):
        calibration.chosen("real", "nowhere")


def test_a_set_of_identities_gives_a_few_of_its_pictures(tmp_path):
    root = fr_trees.identity_tree(tmp_path / "bupt")
    about = {"real": None, "size": 32, "root": root}
    drawn, again = (calibration.faces("bupt_balancedface", 5, seed=2, **about) for _ in "ab")
    assert drawn.images.shape == (5, 3, 32, 32) and torch.equal(drawn.images, again.images)
    assert drawn.origin == "bupt_balancedface" and drawn.table["item"].is_unique
    races = drawn.table["item"].str.partition("/")[0].str.lower()
    assert drawn.table["race"].tolist() == races.tolist()
    with Image.open(root / drawn.table["item"][0]) as picture:
        small = align.resize(np.asarray(picture.convert("RGB")), size=32, grey=False)
    assert torch.equal(drawn.images[0], small)


def test_a_broken_picture_of_a_set_is_named(tmp_path):
    root = fr_trees.identity_tree(tmp_path / "mine")
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    with pytest.raises(errors.DataError, match="of 'identity_folder' cannot be decoded"):
        calibration.faces("identity_folder", 2, real=None, seed=0, root=root)


def test_unlabelled_faces_need_their_folder(tmp_path):
    with pytest.raises(errors.DataError, match="'unlabelled' is not embedded: pass data_root"):
        calibration.faces("unlabelled", 2, real=None, seed=0)


@pytest.fixture(scope="module")
def grouped():
    return simfaces.faces(40, 2, size=32, seed=0)


def test_noise_of_another_size():
    noise = calibration.faces("noise", 3, real=None, seed=1, size=48)
    assert noise.images.shape == (3, 3, 48, 48) and noise.images.dtype == torch.uint8


def test_generated_faces_of_another_size_are_the_same_faces_shrunk():
    large = generated.faces(2, seed=0)
    small = calibration.faces("synthetic", 2, real=None, seed=0, size=56)
    assert torch.equal(calibration.faces("synthetic", 2, real=None, seed=0).images, large.images)
    assert small.images.shape == (2, 3, 56, 56) and small.table.equals(large.table)
    means = torch.nn.functional.avg_pool2d(large.images.float(), 2)
    assert (small.images.float() - means).abs().mean() < 3


def test_a_composition_has_its_shares_and_its_size(grouped):
    shares = {"A": 0.5, "B": 0.25, "C": 0.25}
    drawn = calibration.composed(grouped, 16, shares, seed=3)
    assert drawn.table["group"].value_counts().to_dict() == {"A": 8, "B": 4, "C": 4}
    assert drawn.table["item"].is_unique and drawn.origin == grouped.origin
    where = grouped.table.set_index("item").index.get_indexer(drawn.table["item"])
    assert torch.equal(drawn.images, grouped.images[torch.from_numpy(where)])
    again, other = (calibration.composed(grouped, 16, shares, seed=s) for s in (3, 4))
    assert torch.equal(again.images, drawn.images) and not again.table.equals(other.table)


def test_a_composition_is_not_sorted_by_group(grouped):
    names = calibration.composed(grouped, 30, {"A": 0.5, "B": 0.5}, seed=0).table["group"]
    assert (names != names.shift()).sum() > 5


def test_a_groups_draw_does_not_depend_on_the_other_groups(grouped):
    with_b = calibration.composed(grouped, 10, {"A": 0.5, "B": 0.5}, seed=0).table
    with_c = calibration.composed(grouped, 10, {"C": 0.5, "A": 0.5}, seed=0).table
    drawn = [set(t.loc[t["group"] == "A", "item"]) for t in (with_b, with_c)]
    assert drawn[0] == drawn[1]


def test_other_group_columns_compose_too(grouped):
    drawn = calibration.composed(grouped, 6, {"f-like": 1.0}, seed=0, column="gender")
    assert set(drawn.table["gender"]) == {"f-like"} and len(drawn) == 6


@settings(max_examples=100)
@given(st.integers(1, 500), st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_counts_are_whole_sum_up_and_lie_next_to_the_shares(n, parts):
    shares = {str(i): part / sum(parts) for i, part in enumerate(parts)}
    counts = calibration._counts(n, shares)
    assert sum(counts.values()) == n
    assert all(abs(counts[g] - n * share) < 1 + 1e-5 for g, share in shares.items())


def test_compositions_that_cannot_be(grouped):
    def message(*args, **options):
        with pytest.raises(errors.ParameterError) as caught:
            calibration.composed(grouped, *args, seed=0, **options)
        return str(caught.value)

    assert message(4, {"A": 0.5}) == errors.BAD_SHARES.format(total=0.5)
    assert message(4, {"A": 1.5, "B": -0.5}) == errors.NOT_A_FRACTION.format(what="A", value=1.5)
    assert message(0, {"A": 1.0}).startswith("n_calibration must be at least 1")
    assert message(4, {"E": 1.0}).startswith("Unknown group 'E'. Choose one of: A, B")
    assert message(4, {"x": 1.0}, column="race").startswith("Unknown group column 'race'")
    count = (grouped.table["group"] == "A").sum()
    assert message(count + 1, {"A": 1.0}) == errors.FEW_OF_GROUP.format(
        group="A", found=count, wanted=count + 1, n=count + 1
    )
