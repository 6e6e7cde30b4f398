import numpy as np
import pytest
import torch

from studylib import distill, errors, models, students


def unit(n: int, views: int, dimensions: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(n, views, dimensions))
    return (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dimensions", [16, 128, 512])
def test_the_weight_keeps_the_papers_balance(dimensions):
    """10,000 times the mean of 512 squared differences is 10,000 / 512 times their sum."""
    one, other = (torch.from_numpy(unit(3, 2, dimensions)[:, k]) for k in (0, 1))
    apart = (one - other).square().sum(1)
    weighed = students.weight("embedding", dimensions) * distill.embedding(one, other)
    assert torch.allclose(weighed, 10_000 / 512 * apart, rtol=1e-5)
    for loss in set(distill.LOSSES) - {"embedding"}:
        assert students.weight(loss, dimensions) == distill.WEIGHTS[loss]


def test_names_of_how_a_student_is_taught(tmp_path):
    path = tmp_path / "network.safetensors"
    settings = {"depth": [1, 1, 1, 1], "width": 0.0625, "embedding": 16, "size": 48}
    about = {"architecture": "iresnet", "settings": settings}
    models.save(models.build("iresnet", **settings, seed=0), path, about)
    as_wide = {"size": 48, "dimensions": 16}
    assert students.taught(None, "embedding", None, **as_wide) == "alone"
    assert students.taught(path, "embedding", None, **as_wide) == "kd: embedding"
    assert students.taught(path, "logits", "reweighted", **as_wide) == "kd: logits reweighted"
    wider = {"size": 48, "dimensions": 24}
    assert students.taught(path, "rkd", None, **wider) == "kd: rkd"

    with pytest.raises(errors.ParameterError) as caught:
        students.taught(path, "embedding", None, size=32, dimensions=16)
    assert str(caught.value) == errors.TEACHER_SIZE.format(teacher=path, found=48, wanted=32)
    for loss in students.SAME_SIZE:
        with pytest.raises(errors.ParameterError) as caught:
            students.taught(path, loss, None, **wider)
        text = errors.OTHER_TEACHER_SIZE.format(student=24, teacher=16)
        assert str(caught.value) == text
    with pytest.raises(errors.ParameterError, match="Unknown distillation loss 'envy'"):
        students.taught(None, "envy", None, **as_wide)
    with pytest.raises(errors.ParameterError, match="Unknown balance of the groups 'fair'"):
        students.taught(None, "embedding", "fair", **as_wide)
    with pytest.raises(errors.ParameterError, match="setting of logits 'temprature'"):
        students.taught(path, "logits", None, **as_wide, settings={"temprature": 2})
    with pytest.raises(errors.ParameterError) as caught:
        students.taught(path, "embedding", None, **as_wide, weight=-1.0)
    assert str(caught.value) == errors.NOT_ABOVE_ZERO.format(what="weight", value=-1.0)
    with pytest.raises(errors.DataError, match="gone"):
        students.taught(tmp_path / "gone.safetensors", "embedding", None, **as_wide)


def test_the_lesson_in_a_sentence():
    assert students.lesson(None) == "This student has no teacher."
    wanted = unit(5000, 2, 16).astype(np.float16)
    told = students.lesson(distill.Teaching(wanted, weight=312.5, label_weight=0.5))
    assert told == (
        "The teacher's embeddings of 5,000 faces, as they are and mirrored, in 16 dimensions "
        "(0.3 MB). The student learns from them by the loss *embedding* with the weight 312.5, and "
        "from labels with the weight 0.5."
    )
    groups = ["A", "B"] * 10
    told = students.lesson(
        distill.Teaching(unit(20, 1, 8), "cosine", groups=groups, balance="reweighted")
    )
    assert "faces, as they are, in 8 dimensions" in told
    assert told.endswith("; groups are *reweighted*.")
