import pandas as pd
import pytest
import torch

from studylib import distill
from studylib.compress import quantize
from studylib.faces import Faces
from tests.compress.test_quantize import Tiny, images, tiny  # noqa: F401 - fixtures


def as_faces(images):  # noqa: F811
    names = [f"i{k}" for k in range(len(images))]
    return Faces(images, pd.DataFrame({"item": names, "subject": names}), "noise")


def train(student, teacher, images, **options):  # noqa: F811
    faces = as_faces(images)
    return distill.match_embeddings(student, faces, distill.targets(teacher, faces), **options)


def student_of(teacher, faces, precision="w3a3", **options):
    student = quantize.prepare(teacher, precision, **options)
    quantize.calibrate(student, faces)
    return student


def error(student, teacher, faces):
    difference = torch.nn.functional.normalize(student(faces)) - torch.nn.functional.normalize(
        teacher(faces)
    )
    return difference.square().mean().item()


@pytest.mark.parametrize("clip_grad", [True, False])
@pytest.mark.parametrize("train_norm", [True, False])
def test_training_brings_the_student_nearer(tiny, images, clip_grad, train_norm):  # noqa: F811
    student = student_of(tiny, images, clip_grad=clip_grad)
    before = error(student, tiny, images)
    log = train(student, tiny, images, steps=80, batch_size=4, lr=0.05, train_norm=train_norm)
    assert error(student, tiny, images) < 0.6 * before
    assert log["loss"].tail(10).mean() < log["loss"].head(10).mean()


def test_schedule_and_length_of_the_log(tiny, images):  # noqa: F811
    student = student_of(tiny, images)
    log = train(student, tiny, images, steps=11, batch_size=4, lr=0.1)
    assert log["step"].tolist() == list(range(11))
    assert log["lr"].tolist() == [0.1] * 10 + [pytest.approx(0.01)]


def test_the_teacher_stays_and_the_student_repeats_bit_for_bit(tiny, images):  # noqa: F811
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    outputs = []
    for _ in range(2):
        student = student_of(tiny, images)
        train(student, tiny, images, steps=5, batch_size=4, seed=3)
        outputs.append(student(images))
        assert not student.training
    assert torch.equal(*outputs)
    assert all(torch.equal(v, before[k]) for k, v in tiny.state_dict().items())
    assert not tiny.training


def test_ranges_widen_only_during_the_range_steps(tiny, images):  # noqa: F811
    for range_steps, moves in ((0, False), (5, True)):
        student = student_of(tiny, images // 4)
        before = [q.high.item() for q in quantize.activation_quantizers(student)]
        train(student, tiny, images, steps=5, batch_size=4, range_steps=range_steps)
        after = [q.high.item() for q in quantize.activation_quantizers(student)]
        assert (before != after) == moves


def test_frozen_normalisation_keeps_its_statistics(tiny, images):  # noqa: F811
    for train_norm in (True, False):
        student = student_of(tiny, images)
        before = student.norm.running_mean.clone()
        train(student, tiny, images, steps=2, batch_size=4, train_norm=train_norm)
        assert torch.equal(before, student.norm.running_mean) != train_norm


def test_every_face_is_seen_once_before_any_is_seen_again():
    chosen, mirrored = zip(*distill._draws(8, 3, 4, seed=0), strict=True)
    assert [len(c) for c in chosen] == [3] * 4
    assert len({*chosen[0].tolist(), *chosen[1].tolist()}) == 6  # the two left over are dropped
    assert len({*chosen[2].tolist(), *chosen[3].tolist()}) == 6
    assert set(torch.cat(mirrored).tolist()) == {0, 1}


def test_targets_are_the_embeddings_of_the_face_and_of_its_mirror(tiny, images):  # noqa: F811
    wanted = distill.targets(tiny, as_faces(images))
    normalize = torch.nn.functional.normalize
    torch.testing.assert_close(wanted[:, 0], normalize(tiny(images)))
    torch.testing.assert_close(wanted[:, 1], normalize(tiny(images.flip(-1))))
