import pytest
import torch

from studylib import calibration, errors


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
    with pytest.raises(errors.ParameterError, match=r"calibration source 'fake'. .* noise, real"):
        calibration.faces("fake", 4, real=None, seed=0)


def test_nobody_set_aside():
    with pytest.raises(errors.ParameterError, match="set spare to the share of people"):
        calibration.faces("real", 4, real=None, seed=0)


def test_no_faces_asked_for():
    with pytest.raises(errors.ParameterError, match="n_calibration must be at least 1, got 0"):
        calibration.faces("noise", 0, real=None, seed=0)
