import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from studylib import errors, qat, teacher_cache
from studylib.compress import quantize
from studylib.datasets import packed
from studylib.faces import Faces
from tests.compress.test_quantize import Tiny, images, quantface, tiny  # noqa: F401 - fixtures


def as_faces(images):  # noqa: F811
    names = [f"i{k}" for k in range(len(images))]
    return Faces(images, pd.DataFrame({"item": names, "subject": names}), "noise")


def train(student, teacher, images, **options):  # noqa: F811
    faces = as_faces(images)
    return qat.match_embeddings(student, faces, qat.targets(teacher, faces), **options)


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
    chosen, mirrored = zip(*qat._draws(8, 3, 4, seed=0), strict=True)
    assert [len(c) for c in chosen] == [3] * 4
    assert len({*chosen[0].tolist(), *chosen[1].tolist()}) == 6  # the two left over are dropped
    assert len({*chosen[2].tolist(), *chosen[3].tolist()}) == 6
    assert set(np.concatenate(mirrored).tolist()) == {0, 1}


def test_targets_are_the_embeddings_of_the_face_and_of_its_mirror(tiny, images):  # noqa: F811
    wanted = qat.targets(tiny, as_faces(images))
    normalize = torch.nn.functional.normalize
    torch.testing.assert_close(wanted[:, 0], normalize(tiny(images)))
    torch.testing.assert_close(wanted[:, 1], normalize(tiny(images.flip(-1))))


def test_the_real_schedule_is_constant(tiny, images):  # noqa: F811
    log = train(student_of(tiny, images), tiny, images, steps=11, batch_size=4, schedule="real")
    assert log["lr"].tolist() == [0.1] * 11


@pytest.mark.parametrize(("schedule", "steps"), [("real", 2), ("synthetic", 22)])
def test_without_a_number_of_steps_the_schedule_counts_its_passes(tiny, images, schedule, steps):  # noqa: F811
    log = train(student_of(tiny, images), tiny, images, steps=None, batch_size=3, schedule=schedule)
    assert len(log) == steps == qat.schedule_steps(8, 3, schedule)
    assert (log["lr"] < 0.05).sum() == (2 if schedule == "synthetic" else 0)


def test_both_of_the_papers_schedules_come_to_as_many_steps():
    """5,822,653 faces once, 528,227 eleven times, in batches of 512."""
    assert qat.schedule_steps(5_822_653, qat.BATCH, "real") == 11_372
    assert qat.schedule_steps(528_227, qat.BATCH, "synthetic") == 11 * 1_031 == 11_341
    assert qat.schedule_steps(5, 512, "real") == 1  # a batch of all there are


def test_the_papers_settings():
    assert qat.QUANTFACE._asdict() == {
        "observer": "minmax",
        "clip_grad": False,
        "range_steps": 299,
        "train_norm": True,
        "dropout": True,
        "weight_decay": 5e-4,
    }
    assert (qat.LR, qat.BATCH, qat.MOMENTUM) == (0.1, 512, 0.9)
    assert (qat.WEIGHT_DECAY, qat.MAX_GRADIENT_NORM) == (5e-4, 5.0)
    assert all(qat.SOUND._asdict()[k] != v for k, v in qat.QUANTFACE._asdict().items())


@pytest.mark.parametrize("decay", [0.0, 5e-4])
def test_weight_decay_alone_moves_a_network_that_is_right_already(tiny, images, decay):  # noqa: F811
    """Its first gradient is zero: what is left is a step of SGD with Nesterov momentum."""
    faces = as_faces(images)
    sound = qat.SOUND._replace(weight_decay=decay)
    given = {"steps": 1, "batch_size": 8, "lr": 1.0, "schedule": "real"}
    student, _ = qat.quantise(tiny, "fp32", faces, settings=sound, **given)
    kept = 1 - 1.9 * decay
    assert torch.allclose(student.conv.weight, kept * tiny.conv.weight, atol=2e-6)


class Published(nn.Module):
    """QuantFace's quantised network, written independently of the library for one architecture."""

    def __init__(self, tiny, bits):  # noqa: F811
        super().__init__()
        self.net, self.bits = copy.deepcopy(tiny), bits
        self.ranges = {"act": [torch.zeros(()), torch.zeros(())]}
        self.ranges["add"] = list(self.ranges["act"])
        self.live = True

    def weight(self, layer):
        w = layer.weight
        shape = (-1, *[1] * (w.dim() - 1))
        flat = w.detach().flatten(1)
        return quantface(w, flat.amin(1).view(shape), flat.amax(1).view(shape), self.bits)[0]

    def activation(self, name, x):
        if self.live:
            low, high = self.ranges[name]
            self.ranges[name] = [
                torch.min(low, x.detach().min()),
                torch.max(high, x.detach().max()),
            ]
        return quantface(x, *self.ranges[name], self.bits)[0]

    def forward(self, x):
        net = self.net
        slopes = net.act.weight
        slopes, _ = quantface(slopes, slopes.detach().min(), slopes.detach().max(), self.bits)
        x = net.norm(F.conv2d(x.float() / 64, self.weight(net.conv), net.conv.bias, padding=1))
        x = self.activation("act", F.prelu(x, slopes))
        y = F.conv2d(x, self.weight(net.again), net.again.bias, padding=1)
        return F.linear(
            self.activation("add", y + x).mean((2, 3)), self.weight(net.fc), net.fc.bias
        )


@pytest.mark.parametrize("bits", [8, 6])
def test_training_is_quantfaces_step_by_step(tiny, images, bits):  # noqa: F811
    """Ranges found in the first steps, then frozen; compared with a loop of the test's own."""
    tiny.act.weight.data = torch.tensor([0.1, 0.21, 0.26, 0.43])  # none of them halfway
    faces, wanted = as_faces(images), qat.targets(tiny, as_faces(images))
    settings = qat.QUANTFACE._replace(range_steps=3)
    student, log = qat.quantise(
        tiny, f"w{bits}a{bits}", faces, settings=settings, steps=6, batch_size=4, seed=5
    )
    peer, losses = Published(tiny, bits).train(), []
    sgd = torch.optim.SGD(
        peer.parameters(), 0.1 * 4 / 512, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    for step, (chosen, mirrored) in enumerate(qat._draws(8, 4, 6, seed=5)):
        peer.live = step < 3
        pictures = images[chosen]
        pictures[mirrored > 0] = pictures[mirrored > 0].flip(-1)
        loss = (F.normalize(peer(pictures)) - wanted[chosen, mirrored]).pow(2).mean()
        sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 5.0)
        sgd.step()
        losses.append(loss.item())
    assert log["loss"].tolist() == pytest.approx(losses, rel=1e-3)
    for quantizer, (low, high) in zip(
        quantize.activation_quantizers(student), peer.ranges.values(), strict=True
    ):
        assert quantizer.batches == 3
        assert quantizer.low.item() == pytest.approx(low.item(), rel=1e-4)
        assert quantizer.high.item() == pytest.approx(high.item(), rel=1e-4)
    originals = dict(student.named_parameters())
    for name in ("conv", "again", "fc", "act"):
        ours = originals[f"{name}.parametrizations.weight.original"]
        theirs = peer.net.get_submodule(name).weight
        assert not torch.equal(theirs, tiny.get_submodule(name).weight)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_each_setting_can_be_changed_alone(tiny, images):  # noqa: F811
    faces = as_faces(images)

    def weights_after(**changes):
        settings = qat.QUANTFACE._replace(range_steps=1, **changes)
        student, _ = qat.quantise(tiny, "w3a3", faces, settings=settings, steps=4, lr=0.05)
        return student.conv.parametrizations.weight.original

    usual = weights_after()
    assert torch.equal(usual, weights_after())
    for change in ({"clip_grad": True}, {"train_norm": False}):
        assert not torch.equal(usual, weights_after(**change)), change
    moving = qat.QUANTFACE._replace(observer="ema", range_steps=4)
    widening = moving._replace(observer="minmax")
    ranges = [
        [q.high.item() for q in quantize.activation_quantizers(student)]
        for student, _ in (
            qat.quantise(tiny, "w4a4", faces, settings=s, steps=4, batch_size=2, lr=0.05)
            for s in (moving, widening)
        )
    ]
    assert ranges[0] != ranges[1]


def test_dropout_is_the_students_alone_and_can_be_off(tiny, images):  # noqa: F811
    teacher = nn.Sequential(tiny, nn.Dropout(0.5)).eval()
    for dropout in (True, False):
        student, seen = student_of(teacher, images), []
        student[1].register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(torch.equal(inputs[0], output))
        )
        train(student, teacher, images, steps=2, batch_size=4, dropout=dropout)
        assert seen == [not dropout] * 2
        assert not student.training


def test_the_rate_follows_the_batch(tiny, images):  # noqa: F811
    faces = as_faces(images)
    _, log = qat.quantise(tiny, "w8a8", faces, steps=1, batch_size=4)
    assert log["lr"][0] == pytest.approx(0.1 * 4 / 512)
    _, log = qat.quantise(tiny, "w8a8", faces, steps=1)  # 512, but there are only 8 faces
    assert log["lr"][0] == pytest.approx(0.1 * 8 / 512)


def test_sound_settings_take_ranges_from_the_calibration_set(tiny, images):  # noqa: F811
    dark = as_faces(images // 8)
    student, _ = qat.quantise(
        tiny, "w8a8", as_faces(images), settings=qat.SOUND, calibration=dark, steps=1, lr=0.0
    )
    expected = quantize.prepare(tiny, "w8a8", observer="ema")
    quantize.calibrate(expected, dark.images)
    found, wanted = (
        [(q.low, q.high) for q in quantize.activation_quantizers(m)] for m in (student, expected)
    )
    assert found == wanted


def test_ranges_that_nothing_found(tiny, images):  # noqa: F811
    with pytest.raises(errors.ParameterError) as caught:
        train(quantize.prepare(tiny, "w8a8"), tiny, images, steps=1)
    assert str(caught.value) == errors.NOT_CALIBRATED.format(module="act")


def test_unknown_schedule_and_no_steps(tiny, images):  # noqa: F811
    with pytest.raises(errors.ParameterError, match="Unknown schedule 'fast'"):
        train(student_of(tiny, images), tiny, images, steps=1, schedule="fast")
    with pytest.raises(errors.ParameterError, match="Unknown schedule 'fast'"):
        train(student_of(tiny, images), tiny, images, steps=None, schedule="fast")
    with pytest.raises(errors.ParameterError, match="steps must be at least 1, got 0"):
        train(student_of(tiny, images), tiny, images, steps=0)
    with pytest.raises(errors.ParameterError, match="batch_size must be at least 1, got 0"):
        train(student_of(tiny, images), tiny, images, steps=1, batch_size=0)


def as_packed(images, folder):  # noqa: F811
    faces = as_faces(images)
    table = faces.table.assign(label=range(len(faces)))
    return packed.from_faces(Faces(images, table, "noise"), folder)


def test_packed_faces_and_a_memory_map_train_as_faces_and_targets_do(tiny, images, tmp_path):  # noqa: F811
    pack = as_packed(images, tmp_path / "pack")
    rows = tuple(np.arange(8)[half] for half in (slice(0, 3), slice(3, 8)))
    joined = packed.Joined((pack, pack), rows, pack.table, "noise")
    wanted = qat.targets(tiny, as_faces(images))
    cached = teacher_cache.embeddings(tiny, pack, tmp_path / "cache")
    given = {"settings": qat.SOUND, "calibration": as_faces(images)}
    given |= {"steps": 6, "batch_size": 4, "lr": 0.05, "seed": 2}
    weights = []
    for faces, rows in (
        *((as_faces(images), None), (pack, None), (joined, wanted)),
        *((as_faces(images), wanted.half().numpy()), (pack, cached)),
    ):
        student, _ = qat.quantise(tiny, "w4a4", faces, wanted=rows, **given)
        weights.append(student.conv.parametrizations.weight.original.detach())
    exact, rounded = weights[:3], weights[3:]
    for each in exact:
        torch.testing.assert_close(each, exact[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rounded[0], rounded[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rounded[0], exact[0], rtol=1e-2, atol=1e-3)
    assert not torch.equal(rounded[0], exact[0])
    assert not torch.allclose(exact[0], tiny.conv.weight, atol=1e-3)


def test_embeddings_of_other_faces_or_of_one_view(tiny, images):  # noqa: F811
    student, wanted = student_of(tiny, images), qat.targets(tiny, as_faces(images))
    for wrong in (wanted[:7], wanted[:, :1], wanted[:, 0].half().numpy()):
        with pytest.raises(errors.ParameterError) as caught:
            qat.match_embeddings(student, as_faces(images), wrong, steps=1)
        text = errors.WANTED_SHAPE.format(found=tuple(wrong.shape), faces=8)
        assert str(caught.value) == text


def test_packed_faces_need_a_calibration_set_of_their_own(tiny, images, tmp_path):  # noqa: F811
    pack = as_packed(images, tmp_path / "pack")
    with pytest.raises(errors.ParameterError) as caught:
        qat.quantise(tiny, "w4a4", pack, settings=qat.SOUND, steps=1)
    assert str(caught.value) == errors.NEEDS_CALIBRATION
    _, log = qat.quantise(tiny, "w4a4", pack, steps=1)  # ranges are found while training
    assert len(log) == 1
