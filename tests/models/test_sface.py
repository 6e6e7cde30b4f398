import numpy as np
import onnxruntime
import pytest
import torch

from studylib import assets, embed, errors, models
from studylib.metrics import verification


def test_parity_with_onnx_runtime_on_64_faces(sface, orl):
    faces = orl.images[::6][:64]
    session = onnxruntime.InferenceSession(assets.float_onnx("sface"))
    [theirs] = session.run(None, {"data": faces.numpy().astype(np.float32)})
    with torch.inference_mode():
        ours = sface(faces).numpy()
    worst = np.abs(ours - theirs).max(1) / np.linalg.norm(theirs, axis=1)
    assert len(faces) == 64 and worst.max() < 1e-5


def test_parameters_are_those_of_the_file(sface):
    n_convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in sface.modules())
    assert n_convolutions == 27
    assert sum(p.numel() for p in sface.parameters()) == 9_642_880


def error_rates(sface, faces):
    pairs = embed.all_pairs(faces)
    scores = embed.score_all_pairs(embed.embed(sface, faces))
    points = verification.curve(verification.sort_scores(scores, pairs["genuine"]))
    return len(pairs), pairs["genuine"].sum(), verification.eer(points), points


def test_orl_all_pairs(sface, orl):
    n, genuine, eer, points = error_rates(sface, orl)
    assert (n, genuine) == (79_800, 1_800)
    assert eer <= 0.003
    assert verification.tar_at_far(points, 1e-3) >= 0.99


def test_london_all_pairs(sface, london_root):
    from studylib import datasets

    faces, _ = datasets.load("london", london_root)
    n, genuine, eer, _ = error_rates(sface, faces)
    assert (n, genuine) == (20_706, 102)
    assert eer <= 0.003


def test_unknown_network():
    with pytest.raises(
        errors.ParameterError, match=r"Unknown network 'sfaze'. Choose one of: dlib, sface"
    ):
        models.load("sfaze")
