import pytest
import torch

from studylib import distill
from studylib.compress import quantize
from tests.compress.test_quantize import Tiny, images, tiny  # noqa: F401 - fixtures


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
    log = distill.match_embeddings(
        student, tiny, images, steps=80, batch_size=4, lr=0.05, train_norm=train_norm
    )
    assert error(student, tiny, images) < 0.6 * before
    assert log["loss"].tail(10).mean() < log["loss"].head(10).mean()


def test_schedule_and_length_of_the_log(tiny, images):  # noqa: F811
    student = student_of(tiny, images)
    log = distill.match_embeddings(student, tiny, images, steps=11, batch_size=4, lr=0.1)
    assert log["step"].tolist() == list(range(11))
    assert log["lr"].tolist() == [0.1] * 10 + [pytest.approx(0.01)]


def test_the_teacher_stays_and_the_student_repeats_bit_for_bit(tiny, images):  # noqa: F811
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    outputs = []
    for _ in range(2):
        student = student_of(tiny, images)
        distill.match_embeddings(student, tiny, images, steps=5, batch_size=4, seed=3)
        outputs.append(student(images))
        assert not student.training
    assert torch.equal(*outputs)
    assert all(torch.equal(v, before[k]) for k, v in tiny.state_dict().items())
    assert not tiny.training


def test_ranges_widen_only_during_the_range_steps(tiny, images):  # noqa: F811
    for range_steps, moves in ((0, False), (5, True)):
        student = student_of(tiny, images // 4)
        before = [q.high.item() for q in quantize.activation_quantizers(student)]
        distill.match_embeddings(
            student, tiny, images, steps=5, batch_size=4, range_steps=range_steps
        )
        after = [q.high.item() for q in quantize.activation_quantizers(student)]
        assert (before != after) == moves


def test_frozen_normalisation_keeps_its_statistics(tiny, images):  # noqa: F811
    for train_norm in (True, False):
        student = student_of(tiny, images)
        before = student.norm.running_mean.clone()
        distill.match_embeddings(
            student, tiny, images, steps=2, batch_size=4, train_norm=train_norm
        )
        assert torch.equal(before, student.norm.running_mean) != train_norm


def test_progress_is_told_each_step(tiny, images):  # noqa: F811
    told = []
    student = student_of(tiny, images)
    log = distill.match_embeddings(
        student, tiny, images, steps=3, batch_size=99, progress=lambda *s: told.append(s)
    )
    assert told == list(zip(log["step"], log["loss"], strict=True))


def test_every_face_is_seen_once_before_any_is_seen_again():
    faces = torch.arange(8, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 1, 1)
    batches = [b[:, 0, 0, 0].tolist() for b in distill._batches(faces, 3, 4, seed=0)]
    assert [len(b) for b in batches] == [3] * 4
    assert len({*batches[0], *batches[1]}) == 6  # six of eight; what is left is dropped
    assert len({*batches[2], *batches[3]}) == 6
