"""The generator against OpenVINO, which runs the graph it was rebuilt from, and its promises."""

import re
import shutil
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from studylib import assets, errors
from studylib.synthetic import stylegan


@pytest.fixture(scope="module")
def folder():
    return assets.fetch("random-face") / "random_face/data"


@pytest.fixture(scope="module")
def generator(folder):
    return stylegan.load(folder)


@pytest.fixture(scope="module")
def styles(generator):
    return generator.mapping(stylegan.latents(4, seed=3))


@pytest.fixture(scope="module")
def full(generator, styles):
    return generator.synthesis(styles)


@pytest.fixture
def broken(folder, tmp_path):
    """A copy of the mapping's files, for a test to spoil."""
    for suffix in (".xml", ".bin"):
        shutil.copy(folder / f"MappingNetwork{suffix}", tmp_path)
    return tmp_path


def openvino_answer(path, rows):
    openvino = pytest.importorskip("openvino")
    # Without the hint some processors would answer in 16 bits.
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([model(row[None].numpy())[0].copy() for row in rows])


# Tolerances: the two sum in another order. OpenVINO's own picture moves by 9e-5 at single pixels
# when w is scaled by one unit of float32's last place, so parity cannot be asked to be closer.
# These four latents differ by up to 5e-6 (w, which reaches 2.7), 6e-5 (picture) and 6e-7 (picture,
# mean), other latents by up to 3e-4 at single pixels; one level of an 8-bit picture is 8e-3.
def test_mapping_matches_openvino(folder, styles):
    expected = openvino_answer(folder / "MappingNetwork.xml", stylegan.latents(4, seed=3))
    np.testing.assert_allclose(styles.numpy(), expected, rtol=0, atol=2e-5)


def test_synthesis_matches_openvino(folder, styles, full):
    expected = openvino_answer(folder / "SynthesisNetwork.xml", styles)
    assert full.shape == (4, 3, 1024, 1024)
    assert full.dtype == torch.float32
    difference = np.abs(full.numpy() - expected)
    assert difference.max() < 2e-4
    assert difference.mean() < 2e-6


@pytest.mark.parametrize("size", [64, 512])
def test_smaller_pictures_are_means_of_the_full_one(generator, styles, full, size):
    expected = F.avg_pool2d(full, 1024 // size)
    torch.testing.assert_close(generator.synthesis(styles, size), expected, rtol=0, atol=2e-6)


def test_a_longer_draw_begins_with_the_shorter_one():
    longer = stylegan.latents(100, seed=7)
    for n in (1, 3, 64):
        assert torch.equal(stylegan.latents(n, seed=7), longer[:n])
    assert not torch.equal(stylegan.latents(1, seed=8), longer[:1])
    assert abs(longer.mean()) < 0.02
    assert abs(longer.std() - 1) < 0.02


@pytest.mark.parametrize("start", [0, 3, 64])
def test_endless_latents_are_those_of_any_draw(start):
    endless = stylegan.latents_from(start, seed=7)
    assert torch.equal(
        torch.stack(list(islice(endless, 150))), stylegan.latents(214, 7)[start:][:150]
    )


def test_truncation_is_linear_in_psi(generator, styles):
    assert torch.equal(generator.truncate(styles, 0), generator.w_mean.expand(4, 512))
    torch.testing.assert_close(generator.truncate(styles, 1), styles)
    halfway = (styles + generator.w_mean) / 2
    torch.testing.assert_close(generator.truncate(styles, 0.5), halfway)


def test_mean_style_is_near_the_mean_of_other_latents(generator):
    w = generator.mapping(stylegan.latents(4096, seed=99))
    error = (w.mean(0) - generator.w_mean) / (w.std(0) * (2 / 4096) ** 0.5)
    assert error.abs().max() < 5  # standard errors


def test_psi_zero_gives_one_face(generator):
    first, second = stylegan.photographs(generator, stylegan.latents(2, 0), psi=0, size=256)
    assert np.array_equal(first, second)


def test_same_seed_same_bytes(generator):
    first = stylegan.photographs(generator, stylegan.latents(2, seed=5), size=256)
    again = stylegan.photographs(generator, stylegan.latents(2, seed=5), size=256)
    other = stylegan.photographs(generator, stylegan.latents(1, seed=6), size=256)
    assert np.array_equal(first, again)
    assert np.abs(first[0].astype(int) - other[0]).mean() > 10


def test_photographs_are_the_rounded_pictures(generator):
    found = stylegan.photographs(generator, stylegan.latents(2, seed=5), psi=1, size=512)
    assert found.shape == (2, 3, 512, 512) and found.dtype == np.uint8
    exact = (generator(stylegan.latents(2, seed=5), psi=1, size=512).numpy() + 1) * 127.5
    assert np.abs(found - exact.clip(0, 255)).max() < 0.51


def test_load_gives_a_module_for_inference(generator):
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert all(parameter.isfinite().all() for parameter in generator.parameters())


def test_truncated_weights(broken):
    path = broken / "MappingNetwork.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    text = errors.SHORT_WEIGHTS.format(path=path, found=len(whole) - 1, needed=len(whole))
    with pytest.raises(errors.AssetError, match=re.escape(text)):
        stylegan.load(broken)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('type="ReduceMean"', 'type="ReduceMax"', "layer ReduceMean_1 has the unexpected type"),
        ('name="173"', 'name="x"', "it holds no constant named 173"),
        ('element_type="f32"', 'element_type="bf16"', "has the type bf16"),
        ("</net>", "", "no element found"),
    ],
)
def test_another_graph(broken, old, new, problem):
    path = broken / "MappingNetwork.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(errors.AssetError) as caught:
        stylegan.load(broken)
    start, end = errors.WRONG_GRAPH.split("{problem}")
    assert str(caught.value).startswith(start.format(path=path))
    assert problem in str(caught.value)
    assert str(caught.value).endswith(end)


def test_weights_of_another_shape(folder, broken):
    for suffix in (".xml", ".bin"):
        shutil.copy(folder / f"SynthesisNetwork{suffix}", broken)
    path = broken / "MappingNetwork.xml"
    path.write_text(path.read_text().replace('size="2048"', 'size="1024"'))
    problem = "layers.0.bias has 256 values instead of 512"
    text = errors.WRONG_GRAPH.format(path=broken, problem=problem)
    with pytest.raises(errors.AssetError, match=re.escape(text)):
        stylegan.load(broken)


def test_missing_files(tmp_path):
    path = tmp_path / "MappingNetwork.xml"
    text = errors.WRONG_GRAPH.format(path=path, problem="[Errno 2]").split("[Errno 2]")[0]
    with pytest.raises(errors.AssetError, match=re.escape(text)):
        stylegan.load(tmp_path)


def test_half_precision_weights_are_read(folder, generator, broken):
    # The graph as a 16-bit export would store it: every float constant rewritten as f16.
    for suffix in (".xml", ".bin"):
        shutil.copy(folder / f"SynthesisNetwork{suffix}", broken)
    whole = (broken / "MappingNetwork.bin").read_bytes()
    store = bytearray()

    def halved(match):
        shape, offset, size = match[1], int(match[2]), int(match[3])
        start = len(store)
        store.extend(np.frombuffer(whole, "<f4", size // 4, offset).astype("<f2").tobytes())
        return f'element_type="f16" shape="{shape}" offset="{start}" size="{size // 2}"'

    pattern = r'element_type="f32" shape="([^"]*)" offset="(\d+)" size="(\d+)"'
    text = (broken / "MappingNetwork.xml").read_text()
    (broken / "MappingNetwork.xml").write_text(re.sub(pattern, halved, text))
    (broken / "MappingNetwork.bin").write_bytes(store)
    found = stylegan.load(broken).layers[7].weight
    assert torch.equal(found, generator.layers[7].weight.half().float())


def test_unknown_size(generator, styles):
    text = errors.UNKNOWN_NAME.format(
        what="picture size", value=500, choices="64, 128, 256, 512, 1024"
    )
    with pytest.raises(errors.ParameterError, match=re.escape(text)):
        generator.synthesis(styles, 500)
    with pytest.raises(errors.ParameterError, match=re.escape(text)):
        stylegan.photographs(generator, styles, size=500)
