import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

from studylib import distill, errors, models, train_recognition
from studylib.datasets import packed
from studylib.distill import Teaching
from studylib.faces import Faces
from studylib.models import margins
from studylib.train_recognition import CHECKPOINT, METRICS, NETWORK

SIZE, PEOPLE, WIDTH = 32, 5, 16
SETTINGS = {"depth": (1, 1, 1, 1), "width": 0.0625, "size": SIZE, "embedding": WIDTH}
TIMES = ["images_per_s", "seconds"]


def people(n=40, seed=0, noise=30.0):
    """Faces of noise around one blocky pattern a person, the same patterns for every seed."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(9).normal(0, 40, (PEOPLE, 3, 4, 4))
    patterns = patterns.repeat(SIZE // 4, 2).repeat(SIZE // 4, 3)
    label = np.arange(n) % PEOPLE
    pixels = 128 + patterns[label] + rng.normal(0, noise, (n, 3, SIZE, SIZE))
    table = pd.DataFrame(
        {"item": [str(i) for i in range(n)], "subject": label.astype(str), "label": label}
    ).assign(group=np.where(label < 2, "few", "many"))
    images = torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))
    return Faces(images, table, "noise", tuple("abcde"))


def network(seed=0, dropout=0.0):
    return models.build("iresnet", **SETTINGS, dropout=dropout, seed=seed)


def head(loss="arcface", **options):
    return margins.Head(PEOPLE, WIDTH, loss, **{"scale": 8.0, **options})


def fit(backbone=None, centres=None, data=None, **options):
    backbone, centres = backbone or network(), centres or head()
    options = {"epochs": 2, "batch_size": 16, "seed": 0, **options}
    history = train_recognition.fit(
        backbone, centres, people() if data is None else data, **options
    )
    return history, {**backbone.state_dict(prefix="b."), **centres.state_dict(prefix="h.")}


def assert_same(one, other):
    """Histories (but for their times) and weights, bit for bit."""
    pd.testing.assert_frame_equal(*(each[0].drop(columns=TIMES) for each in (one, other)))
    assert one[1].keys() == other[1].keys()
    for name, value in one[1].items():
        assert torch.equal(value, other[1][name]), name


def test_it_learns_and_says_how():
    backbone, seen = network(), []
    history, _ = fit(backbone, data=people(160), epochs=6, milestones=(3, 6), log=seen.append)
    assert tuple(history) == train_recognition.HISTORY
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert history["step"].tolist() == [10, 20, 30, 40, 50, 60]
    assert history["lr"].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01, 0.001])
    assert history["loss"].iloc[-1] < 0.5 * history["loss"].iloc[0]
    assert history["accuracy"].iloc[-1] > 0.9 > history["accuracy"].iloc[0]
    np.testing.assert_allclose(history["images_per_s"] * history["seconds"], 160)
    assert seen == history.to_dict("records")
    assert not backbone.training


def test_the_recipes_end_after_as_many_steps_as_the_published_checkpoints():
    """MS1MV2 has 5,822,653 faces; steps as in the names of the checkpoints."""
    steps = {
        name: recipe["epochs"] * (5_822_653 // recipe["batch_size"])
        for name, recipe in train_recognition.RECIPES.items()
    }
    assert steps == {"quantface": 181_952, "elasticface": 295_672}


class Linear(nn.Module):
    """A network without normalisation: a few steps of it can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(WIDTH, 12, generator=torch.Generator().manual_seed(0))
        )

    def forward(self, faces):
        return F.avg_pool2d(faces.float() / 255 - 0.5, SIZE // 2).flatten(1) @ self.weight.T


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_steps_are_those_of_sgd_with_the_networks_gradient_clipped(clip_norm):
    """Whole-set batches, so that the order of faces does not matter."""
    faces, by_hand = people(), Linear()
    weight, centres = by_hand.weight, head().weight.detach().clone().requires_grad_()
    labels, speed, losses = torch.tensor(faces.table["label"]), [0, 0], []
    for step in range(4):
        cosines = F.normalize(by_hand(faces.images)) @ F.normalize(centres).T
        hit = F.one_hot(labels, PEOPLE).bool()
        logits = 8 * torch.where(hit, torch.cos(torch.acos(cosines) + 0.5), cosines)
        loss = -logits.log_softmax(1)[hit].mean()
        losses.append(loss.item())
        gradients = list(torch.autograd.grad(loss, [weight, centres]))
        if clip_norm and gradients[0].norm() > clip_norm:
            gradients[0] *= clip_norm / gradients[0].norm()
        for i, p in enumerate((weight, centres)):
            speed[i] = 0.9 * speed[i] + gradients[i] + 5e-4 * p.detach()
            p.data -= (0.1 if step < 2 else 0.01) * speed[i]
    trained, theirs = Linear(), head()
    options = {"epochs": 4, "batch_size": len(faces), "milestones": (3,), "flip": False}
    history, _ = fit(trained, theirs, faces, clip_norm=clip_norm, **options)
    assert history["loss"].tolist() == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(trained.weight, weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(theirs.weight, centres, atol=1e-5, rtol=1e-4)


def test_accuracy_is_of_the_logits_with_their_margin():
    """A cosine of 0.3 is the largest, but not with a margin of 0.35 taken off it."""

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([0.3, 0.0, 0.0, (1 - 0.09) ** 0.5]))

        def forward(self, faces):
            return self.bias.expand(len(faces), 4)

    def accuracy(margin):
        centres = margins.Head(3, 4, "cosface", margin=margin)
        centres.weight.data.copy_(torch.eye(4)[:3])
        faces = people(20)
        table = faces.table.assign(label=[0] * 15 + [1] * 5)
        faces = Faces(faces.images, table, "noise")
        history, _ = fit(Fixed(), centres, faces, epochs=1, batch_size=20, lr=1e-9)
        return history["accuracy"].tolist()

    assert accuracy(0.0) == [0.75]
    assert accuracy(0.35) == [0.0]


def test_a_run_repeats_bit_for_bit_and_leaves_the_generator_alone():
    results = []
    for global_seed, seed in ((1, 4), (2, 4), (3, 5)):
        parts = network(dropout=0.4), head("elastic_arcface")
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        results.append(fit(*parts, seed=seed))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert_same(*results[:2])
    assert not torch.equal(results[0][1]["b.fc.weight"], results[2][1]["b.fc.weight"])


def test_dropout_draws_anew_in_every_step():
    seen = []
    backbone = network(dropout=0.5)
    backbone.drop.register_forward_hook(lambda m, x, y: seen.append(y == 0) if m.training else None)
    fit(backbone)
    assert len(seen) == 4 and not any(torch.equal(seen[0], other) for other in seen[1:])


class Watched(Linear):
    """Keeps the faces of each training step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, faces):
        if self.training:
            self.seen.append(faces.clone())
        return super().forward(faces)


@pytest.mark.parametrize("flip", [True, False])
def test_half_of_the_faces_are_mirrored_others_in_every_epoch(flip):
    faces, backbone = people(80), Watched()
    fit(backbone, data=faces, flip=flip, batch_size=80, lr=1e-9)
    plain = {image.numpy().tobytes() for image in faces.images}
    turned = {image.flip(-1).contiguous().numpy().tobytes() for image in faces.images}
    kinds = []
    for batch in backbone.seen:
        raw = [image.contiguous().numpy().tobytes() for image in batch]
        assert all(image in plain or image in turned for image in raw)
        kinds.append({image for image in raw if image in turned})
    assert [len(kind) for kind in kinds] == [0, 0] if not flip else kinds[0] != kinds[1]
    assert not flip or all(25 <= len(kind) <= 55 for kind in kinds)


def test_packed_faces_train_as_those_in_memory(tmp_path):
    faces = people()
    assert_same(fit(data=faces), fit(data=packed.from_faces(faces, tmp_path / "packed")))


# --- teaching ------------------------------------------------------------------------------------


def taught(n=40, views=2, size=WIDTH, seed=0, **options):
    """A teaching by random embeddings that are alike for each person; two groups."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(PEOPLE, 1, size))[np.arange(n) % PEOPLE]
    rows = rows + 0.3 * rng.normal(size=(n, views, size))
    rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float16)
    return Teaching(rows, **{"groups": people(n).table["group"], **options})


@pytest.mark.parametrize("label_weight", [0.5, None])
def test_steps_minimise_both_losses_by_their_weights(label_weight):
    """Whole-set batches; None: no head at all."""
    faces, by_hand = people(), Linear()
    weight, centres = by_hand.weight, head().weight.detach().clone().requires_grad_()
    wanted = taught(views=1).wanted[:, 0].astype(np.float32)
    wanted = F.normalize(torch.from_numpy(wanted))
    labels, speed, losses, differences = torch.tensor(faces.table["label"]), [0, 0], [], []
    for _ in range(4):
        embeddings = by_hand(faces.images)
        cosines = F.normalize(embeddings) @ F.normalize(centres).T
        hit = F.one_hot(labels, PEOPLE).bool()
        logits = 8 * torch.where(hit, torch.cos(torch.acos(cosines) + 0.5), cosines)
        losses.append(F.cross_entropy(logits, labels))
        differences.append((F.normalize(embeddings) - wanted).square().mean())
        total = 30 * differences[-1] + (label_weight or 0) * losses[-1]
        gradients = list(torch.autograd.grad(total, [weight, centres]))
        for i, p in enumerate((weight, centres)):
            speed[i] = 0.9 * speed[i] + gradients[i] + 5e-4 * p.detach()
            p.data -= 0.1 * speed[i]
    options = {"epochs": 4, "batch_size": len(faces), "flip": False, "clip_norm": None, "seed": 0}
    trained, theirs = Linear(), head() if label_weight else None
    teaching = taught(views=1, weight=30.0, label_weight=label_weight or 1.0, groups=None)
    history = train_recognition.fit(trained, theirs, faces, teaching=teaching, **options)
    assert tuple(history) == (*train_recognition.HISTORY, "kd")
    assert history["kd"].tolist() == pytest.approx([d.item() for d in differences], rel=1e-4)
    torch.testing.assert_close(trained.weight, weight, atol=1e-5, rtol=1e-3)
    if label_weight:
        assert history["loss"].tolist() == pytest.approx([x.item() for x in losses], rel=1e-4)
        torch.testing.assert_close(theirs.weight, centres, atol=1e-5, rtol=1e-3)
    else:
        assert history[["loss", "accuracy"]].isna().all(axis=None)


def test_a_student_learns_its_teacher_without_labels():
    faces = people(160)
    teacher, student = network(1), network(2)
    with torch.inference_mode():
        views = [F.normalize(teacher.eval()(x)) for x in (faces.images, faces.images.flip(-1))]
    teaching = Teaching(torch.stack(views, 1), weight=1e3)
    faces = Faces(faces.images, faces.table.drop(columns="label"), "noise")
    options = {"epochs": 6, "batch_size": 16, "seed": 0, "lr": 0.05}
    history = train_recognition.fit(student, None, faces, teaching=teaching, **options)
    assert history["kd"].iloc[-1] < 0.35 * history["kd"].iloc[0]
    cos = F.cosine_similarity(student(faces.images), teaching_rows(teaching)).mean()
    assert cos > 0.8


def teaching_rows(teaching, view=0):
    return torch.from_numpy(teaching.wanted[:, view].astype(np.float32))


@pytest.mark.parametrize(("views", "flip"), [(1, True), (2, True), (1, False), (2, False)])
def test_mirrored_faces_get_the_embedding_that_is_theirs(views, flip):
    """The student is its own teacher: nothing to learn, but for mirrored faces with one view."""
    faces, backbone = people(80), Linear()
    with torch.inference_mode():
        told = [F.normalize(backbone(x)) for x in (faces.images, faces.images.flip(-1))]
    teaching = Teaching(torch.stack(told[:views], 1), "cosine")
    options = {"epochs": 1, "batch_size": 80, "lr": 1e-9, "seed": 0, "flip": flip}
    kd = train_recognition.fit(backbone, None, faces, teaching=teaching, **options)["kd"].item()
    unlike = (1 - (told[0] * told[1]).sum(1)).mean().item()
    assert unlike > 0.05
    if flip and views == 1:
        assert 0.2 * unlike < kd < 0.8 * unlike
    else:
        assert kd == pytest.approx(0, abs=1e-6)


def test_rows_reach_the_faces_they_belong_to_from_disk_as_from_memory(tmp_path):
    """Packed faces, joined ones and a memory map; each face's embedding goes with it."""
    faces, teaching = people(), taught()
    np.save(tmp_path / "wanted.npy", teaching.wanted)
    mapped = np.load(tmp_path / "wanted.npy", mmap_mode="r")
    whole = packed.from_faces(faces, tmp_path / "packed")
    rows = np.arange(25), np.arange(25, 40)
    joined = packed.Joined((whole, whole), rows, faces.table, "noise")
    groups = {"first": taught().wanted, "last": mapped}
    by_group = distill.PerGroup(groups, ["first"] * 9 + ["last"] * 31, aligned=0)
    base = fit(data=faces, teaching=teaching)
    assert list(base[0])[-3:] == ["kd", "kd_few", "kd_many"]
    for data, wanted in ((whole, mapped), (joined, mapped), (faces, by_group)):
        assert_same(base, fit(data=data, teaching=taught_by(wanted)))
    other = fit(data=faces, teaching=taught_by(taught().wanted[::-1]))
    assert not torch.equal(base[1]["b.fc.weight"], other[1]["b.fc.weight"])


def taught_by(wanted):
    return Teaching(wanted, groups=people().table["group"])


def test_the_history_tells_groups_and_multipliers():
    options = {"balance": "constrained", "settings": {"bound": 0.0}, "loss": "cosine"}
    history, _ = fit(teaching=taught(**options))
    told = ["kd", "kd_few", "kd_many", "multiplier_few", "multiplier_many"]
    assert list(history)[-5:] == told
    assert (history[["multiplier_few", "multiplier_many"]].max(axis=1) > 0).all()
    assert (history["kd_few"] - history["kd_many"]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("teaching", "options", "kind", "message"),
    [
        (taught(39), {}, errors.DataError, errors.TAUGHT_ROWS.format(rows=39, faces=40)),
        (
            taught(size=8),
            {},
            errors.ParameterError,
            errors.OTHER_TEACHER_SIZE.format(student=WIDTH, teacher=8),
        ),
        (taught(loss="logits"), {"head": None}, errors.ParameterError, errors.NO_TAUGHT_CLASSES),
        (None, {"head": None}, errors.ParameterError, errors.NOTHING_TO_LEARN),
    ],
)
def test_a_teaching_that_does_not_fit_is_refused(teaching, options, kind, message):
    parts = {"backbone": network(), "head": head(), "data": people(), **options}
    with pytest.raises(kind) as caught:
        train_recognition.fit(**parts, teaching=teaching, epochs=1, batch_size=16, seed=0)
    assert str(caught.value) == message


# --- checkpoints ---------------------------------------------------------------------------------


class Cut(Exception):
    pass


def stopped(backbone, after):
    """Stop the training in the middle of the step after this many."""
    calls = []

    def count(module, inputs, outputs):
        calls.append(module.training)
        if sum(calls) > after:
            raise Cut

    backbone.register_forward_hook(count)
    return backbone


HEADS = {
    "adaface": {"h": 0.5},
    "curricularface": {},
    "elastic_cosface": {"partial": 0.5},
}
TEACHINGS = {  # heads with a teacher
    "arcface": {"loss": "logits", "balance": "constrained", "settings": {"bound": 0.0}},
    "cosface": {"loss": "rkd", "balance": "reweighted"},
}


@pytest.fixture(scope="module", params=[*HEADS, *TEACHINGS])
def uncut(request):
    def parts():
        return network(dropout=0.4), head(request.param, **HEADS.get(request.param, {}))

    told = TEACHINGS.get(request.param)
    teaching = told and taught(**told)
    return parts, teaching, fit(*parts(), epochs=3, teaching=teaching)


@settings(max_examples=3, deadline=None)
@given(cut=st.integers(0, 5), every=st.integers(1, 4))
def test_a_training_cut_anywhere_goes_on_as_if_uncut(tmp_path_factory, uncut, cut, every):
    parts, teaching, whole = uncut
    folder = tmp_path_factory.mktemp("run")
    options = {"epochs": 3, "folder": folder, "every": every, "teaching": teaching}
    backbone, centres = parts()
    with pytest.raises(Cut):
        fit(stopped(backbone, cut), centres, **options)
    resumed = parts()
    stopped(resumed[0], 6 - (max(cut // every * every, cut // 2 * 2)))  # not one step more
    assert_same(whole, fit(*resumed, **options))
    assert sorted(p.name for p in folder.iterdir()) == [CHECKPOINT, METRICS]


def test_a_finished_training_is_read_and_more_epochs_prolong_it(tmp_path):
    short = fit(epochs=2, folder=tmp_path)
    pd.testing.assert_frame_equal(short[0], pd.read_parquet(tmp_path / METRICS))
    again = fit(stopped(network(), 0), epochs=2, folder=tmp_path)
    assert_same(short, again)
    pd.testing.assert_frame_equal(short[0], again[0])  # with its times
    longer = fit(stopped(network(), 2), epochs=3, folder=tmp_path)
    assert_same(longer, fit(epochs=3))
    pd.testing.assert_frame_equal(longer[0], pd.read_parquet(tmp_path / METRICS))


def refused(kind, folder, pattern, **options):
    with pytest.raises(kind) as caught:
        fit(stopped(options.pop("backbone", network()), 0), folder=folder, **options)
    head, tail = pattern.format(path=folder / CHECKPOINT, problem="|").split("|")
    assert str(caught.value).startswith(head) and str(caught.value).endswith(tail)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lr": 0.05}, "its lr: 0.1, now: 0.05"),
        ({"batch_size": 8}, "its batch_size: 16, now: 8"),
        ({"milestones": (2,)}, "its milestones: [], now: [2]"),
        ({"momentum": 0.5}, "its momentum: 0.9, now: 0.5"),
        ({"weight_decay": 0.0}, "its weight_decay: 0.0005, now: 0.0"),
        ({"clip_norm": None}, "its clip_norm: 5.0, now: None"),
        ({"flip": False}, "its flip: True, now: False"),
        ({"seed": 1}, "its seed: 0, now: 1"),
        ({"sync_norm": False}, "its sync_norm: True, now: False"),
        ({"epochs": 1}, "it has done 2 epochs, now: 1"),
        ({"data": people(seed=1)}, "its SHA-256 of faces and labels: "),
        ({"backbone": network(seed=1)}, "its SHA-256 of network and weights at the start: "),
        ({"backbone": network(dropout=0.1)}, "its SHA-256 of network and weights at the start: "),
        ({"centres": head(margin=0.4)}, "its head: "),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path_factory, options, told):
    folder = tmp_path_factory.getbasetemp() / "other-training"
    if not folder.exists():
        fit(folder=folder)
    before = (folder / CHECKPOINT).read_bytes()
    assert told in refused(errors.ParameterError, folder, errors.OTHER_TRAINING, **options)
    assert (folder / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(
    ("teaching", "told"),
    [
        (None, "its teaching: {"),
        (taught(weight=3.0), "its teaching: {"),
        (taught(balance="reweighted"), "its teaching: {"),
        (taught(seed=1), "its SHA-256 of the teacher's embeddings: "),
        (taught(views=1), "its SHA-256 of the teacher's embeddings: "),
        (taught(groups=["few", "many"] * 20), "its SHA-256 of the teacher's embeddings: "),
    ],
)
def test_a_checkpoint_of_another_teaching_is_refused(tmp_path_factory, teaching, told):
    folder = tmp_path_factory.getbasetemp() / "other-teaching"
    if not folder.exists():
        fit(folder=folder, teaching=taught())
    pattern = errors.OTHER_TRAINING
    assert told in refused(errors.ParameterError, folder, pattern, teaching=teaching)


def test_a_taught_training_is_not_taken_up_by_one_alone_nor_the_other_way_round(tmp_path):
    fit(folder=tmp_path)
    text = refused(errors.ParameterError, tmp_path, errors.OTHER_TRAINING, teaching=taught())
    assert "its teaching: None, now: {" in text


def test_a_training_without_labels_goes_on_too(tmp_path):
    def run(epochs, folder=None):
        given = {"data": people(), "epochs": epochs, "batch_size": 16, "seed": 0}
        backbone = network()
        train_recognition.fit(backbone, None, teaching=taught(), folder=folder, **given)
        return backbone.state_dict()

    run(1, tmp_path)
    resumed, whole = run(3, tmp_path), run(3)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    history = pd.read_parquet(tmp_path / METRICS)
    assert history["kd"].notna().all() and history["loss"].isna().all()


def test_other_labels_are_another_training(tmp_path):
    faces = people()
    fit(data=faces, folder=tmp_path)
    other = faces.table.assign(label=faces.table["label"].to_numpy()[::-1])
    other = Faces(faces.images, other, "noise", faces.classes)
    refused(errors.ParameterError, tmp_path, errors.OTHER_TRAINING, data=other)


@pytest.mark.parametrize("damage", ["cut", "text", "foreign", "changed", "header"])
def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path, damage):
    fit(folder=tmp_path)
    path = tmp_path / CHECKPOINT
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(raw[:-100])
    elif damage == "text":
        path.write_text("no checkpoint")
    elif damage == "foreign":
        save_file({"x": torch.zeros(2)}, path)
    elif damage == "changed":
        raw[-1] ^= 1
        path.write_bytes(raw)
    else:
        save_file(load_file(path), path, {"studylib": "[]"})
    refused(errors.DataError, tmp_path, errors.NOT_A_CHECKPOINT)


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    first = fit(epochs=1, folder=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(tensors, filename, note):
        filename.write_bytes(b"half")
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("studylib.compress.size.save_file", full)
        with pytest.raises(OSError, match="no space"):
            fit(epochs=2, folder=tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, METRICS]
    assert_same(first, fit(epochs=1, folder=tmp_path))


# --- several processes ---------------------------------------------------------------------------


@pytest.fixture
def alone():
    """A group of one process, this one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5, 5)])
def test_our_batch_norm_is_torchs(alone, shape):
    generator = torch.Generator().manual_seed(0)
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    inputs = torch.randn(shape, generator=generator) * 3 + 100
    weights = torch.rand(4, generator=generator), torch.rand(4, generator=generator)
    found = []
    for whole in (False, True):
        norm, x = kind(4), inputs.clone().requires_grad_()
        norm.load_state_dict({"weight": weights[0], "bias": weights[1]}, strict=False)
        with train_recognition._whole_batch_norms(norm, torch.device("cpu"), whole):
            assert ("forward" in vars(norm)) == whole
            y = norm(x)
        assert "forward" not in vars(norm)
        (y**3).sum().backward()
        found.append((y, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)


def test_a_gpus_batch_norm_would_share_parameters_and_buffers():
    """What SyncBatchNorm changes on a GPU has to be what the network holds."""
    norm = nn.BatchNorm2d(4)
    twin = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    ours, theirs = norm.state_dict(keep_vars=True), twin.state_dict(keep_vars=True)
    assert all(ours[name] is theirs[name] for name in ours) and len(ours) == 5


def config(tmp_path, name, **options):
    """A configuration of a training on packed faces; returns the file and the folder it names."""
    packed.from_faces(people(64), tmp_path / "packed")
    written = {
        **{"data": str(tmp_path / "packed"), "folder": str(tmp_path / name), "device": "cpu"},
        **{"network": "iresnet", "settings": {**SETTINGS, "dropout": 0.0}, "seed": 3},
        **{"head": {"loss": "elastic_cosface", "partial": 0.9, "scale": 8.0}},
        **{"epochs": 2, "batch_size": 16, "lr": 0.02, "milestones": [2], **options},
    }
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(written))
    return path, tmp_path / name


# Between two trainings the processes stay together: torchrun's let nobody join a second time.
SCRIPT = """
import json, sys
from studylib import train_recognition
with train_recognition._group():
    for path in sys.argv[1:]:
        train_recognition.train(json.load(open(path)))
"""


def in_processes(n, *paths):
    """Run configurations one after the other, each process doing its part of all of them."""
    script = paths[0].with_name("script.py")
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={n}", str(script), *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as started:
        try:
            told, _ = started.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            started.terminate()  # torchrun then ends the processes that it started
            raise
    assert started.returncode == 0, told[-3000:]


ALONE = {"two": {}, "apart": {"sync_norm": False}}
TAUGHT = {  # every loss, both balances, no head, a teacher for each group
    "embedding": {"teaching": {"groups": "group", "balance": "constrained"}},
    "cosine": {"teaching": {"loss": "cosine", "groups": "group", "balance": "reweighted"}},
    "rkd": {"teaching": {"loss": "rkd", "mirrored": False}},
    "similarity": {"teaching": {"loss": "similarity"}, "head": None},
    "logits": {"teaching": {"loss": "logits", "label_weight": 0.5}},
    "each": {"teaching": {"groups": "group", "settings": {}}},
}


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    """A folder of trainings that two processes made, and how they were asked for."""
    folder = tmp_path_factory.mktemp("double")
    of = {name: str(folder / f"{name}.safetensors") for name in ("few", "many")}
    for seed, name in enumerate(of):
        models.save(network(seed + 7), of[name], {"architecture": "iresnet", "settings": SETTINGS})
    # 4 of 64 faces are left over in each epoch; the rate is low, as rounding grows with it.
    shared = {"teacher_cache": str(folder / "cache"), "batch_size": 12, "lr": 0.002}
    asked = {
        kind: {**shared, "teacher": of if kind == "each" else of["few"], **options}
        for kind, options in TAUGHT.items()
    }
    both = {**ALONE, **asked}
    in_processes(2, *(config(folder, name, **options)[0] for name, options in both.items()))
    return folder, asked


def test_two_processes_reach_the_same_losses_and_weights_as_one(double, tmp_path):
    """A training of 8 steps, with margins, negative classes and batch normalisation at work."""
    assert train_recognition.main([str(config(tmp_path, "one")[0])]) == 0
    one = pd.read_parquet(tmp_path / "one" / METRICS)
    two, apart = (pd.read_parquet(double[0] / name / METRICS) for name in ALONE)
    assert two["step"].tolist() == [4, 8]
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-5)
    assert one["accuracy"].tolist() == two["accuracy"].tolist()
    assert (abs(one["loss"] - apart["loss"]) > 1e-3).any()  # each with its own faces' statistics
    folders = tmp_path / "one", double[0] / "two"
    ours, theirs = (load_file(folder / CHECKPOINT) for folder in folders)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-4, rtol=1e-3, msg=name)
    network, about = models.read(folders[1] / NETWORK)
    assert about["settings"] == json.loads(json.dumps({**SETTINGS, "dropout": 0.0}))
    assert about["trained"]["origin"] == "noise" and "folder" not in about["trained"]
    torch.testing.assert_close(
        network(people().images),
        models.load(folders[0] / NETWORK)(people().images),
        atol=1e-3,
        rtol=1e-3,
    )


@pytest.mark.parametrize("kind", TAUGHT)
def test_two_processes_teach_as_one_does(double, tmp_path, kind):
    """Every face counts once, and pairs of faces on two processes count as those on one.

    Weights and momentum are compared as whole vectors: rounding may take a value over the kink of
    an activation, and then one of them changes by more than rounding does.
    """
    assert train_recognition.main([str(config(tmp_path, kind, **double[1][kind])[0])]) == 0
    one, two = (pd.read_parquet(folder / kind / METRICS) for folder in (tmp_path, double[0]))
    assert two["step"].tolist() == [5, 10] and list(one) == list(two)
    told = [name for name in one if name == "loss" or name.startswith(("kd", "multiplier"))]
    np.testing.assert_allclose(one[told], two[told], rtol=5e-4, atol=1e-6)
    assert one["kd"].nunique() == 2 and (kind != "similarity" or one["loss"].isna().all())
    ours, theirs = (load_file(folder / kind / CHECKPOINT) for folder in (tmp_path, double[0]))
    assert ours.keys() == theirs.keys()
    for part, most in (("momentum.", 0.01), ("backbone.", 1e-3), ("head.", 1e-3), ("term.", 1e-3)):
        value, other = (whole(tensors, part) for tensors in (ours, theirs))
        assert (value - other).norm() <= most * value.norm(), part


def whole(tensors, part):
    """All tensors of a checkpoint's part as one vector, which may be empty."""
    found = [value.flatten() for name, value in tensors.items() if name.startswith(part)]
    return torch.cat([torch.zeros(0), *found]).double()


def test_compile_hands_the_network_to_torch(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda model: seen.append(model) or model)
    backbone = network()
    assert_same(fit(backbone, compile=True), fit())
    assert seen == [backbone]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("compile", [False, True])
def test_a_gpu_trains_in_bfloat16_and_learns(compile):
    history, weights = fit(data=people(160), epochs=4, device="cuda", compile=compile)
    assert history["loss"].iloc[-1] < 0.7 * history["loss"].iloc[0]
    assert all(value.is_cuda and value.dtype != torch.bfloat16 for value in weights.values())


# --- what is said --------------------------------------------------------------------------------


def test_a_terminal_sees_a_bar_and_nothing_else_does(monkeypatch, capsys):
    fit()
    assert capsys.readouterr() == ("", "")
    terminal = Console(file=sys.stdout, force_terminal=True, width=100)
    monkeypatch.setattr(train_recognition, "Console", lambda stderr: terminal)
    fit()
    shown = capsys.readouterr().out
    assert "epoch 2/2" in shown and "images/s" in shown and "0:00:00" in shown


def unlabelled():
    faces = people()
    return Faces(faces.images, faces.table.drop(columns="label"), "orl")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"epochs": 0},
            errors.ParameterError,
            errors.BAD_SIZE.format(what="epochs", least=1, value=0),
        ),
        (
            {"every": 0},
            errors.ParameterError,
            errors.BAD_SIZE.format(what="every", least=1, value=0),
        ),
        (
            {"batch_size": 1},
            errors.ParameterError,
            errors.BAD_SIZE.format(what="batch_size", least=2, value=1),
        ),
        (
            {"batch_size": 41},
            errors.ParameterError,
            errors.BATCH_TOO_LARGE.format(found=40, batch_size=41),
        ),
        ({"lr": 0.0}, errors.ParameterError, errors.NOT_ABOVE_ZERO.format(what="lr", value=0.0)),
        ({"data": unlabelled()}, errors.DataError, errors.NO_LABELS.format(origin="orl")),
        (
            {"centres": margins.Head(4, WIDTH)},
            errors.DataError,
            errors.CODE_RANGE.format(
                what="label", allowed="from 0 to 3 (the head has 4 classes)", low=0, high=4
            ),
        ),
        (
            {"centres": margins.Head(PEOPLE, 8)},
            errors.ParameterError,
            errors.OTHER_EMBEDDING.format(found=WIDTH, wanted=8),
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(options, kind, message):
    with pytest.raises(kind) as caught:
        fit(**options)
    assert str(caught.value) == message


def test_a_training_that_diverges_stops_before_its_checkpoint(tmp_path):
    with pytest.raises(errors.ParameterError) as caught:
        fit(Linear(), lr=1e30, clip_norm=None, batch_size=8, folder=tmp_path)
    assert str(caught.value) == errors.DIVERGED.format(loss=float("nan"), epoch=1, lr=1e30)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, errors.UNKNOWN_NAME.split("{")[0]),
        ({"epochs": "3"}, "The parameter 'epochs' is '3', expected"),
        ({"epochs": True}, "The parameter 'epochs' is True, expected"),
        ({"flip": 1}, "The parameter 'flip' is 1, expected"),
        ({"recipe": "none"}, "Unknown recipe 'none'. Choose one of: elasticface, quantface."),
        ({"device": "cuda"}, "is 'cuda', but process 0 of this machine finds 0 GPUs. Use device="),
        ({"device": "tpu"}, "Unknown device 'tpu'. Choose one of: auto, cpu, cuda."),
        ({"teaching": {"loss": "rkd"}}, errors.MISSING_PARAMETER.format(name="teacher")),
        ({"teacher": "sface", "teaching": {"margin": 1}}, "Unknown key of the teaching 'margin'."),
        (
            {"teacher": "sface", "teaching": {"groups": "race"}},
            "Unknown column of the faces 'race'. Choose one of: group, item, label, subject.",
        ),
        ({"teacher": {"few": "sface"}}, errors.MISSING_PARAMETER.format(name="groups")),
        ({"head": 3}, "The parameter 'head' is 3, expected"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence(
    tmp_path, capsys, monkeypatch, options, message
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert train_recognition.main([str(config(tmp_path, "run", **options)[0])]) == 1
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told and told.count("\n") == 1


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, capsys, content):
    path = tmp_path / "config.json"
    if content:
        path.write_text(content)
    assert train_recognition.main([str(path)]) == 1
    assert capsys.readouterr().err.startswith(
        errors.BAD_CONFIG.format(path=path, problem="|", keys="").split("|")[0]
    )


def test_a_configuration_needs_data_and_a_folder():
    with pytest.raises(errors.ParameterError, match="'folder'"):
        train_recognition.train({"data": "somewhere"})


def test_the_recipe_fills_in_what_a_configuration_leaves_open(tmp_path, monkeypatch):
    asked = {}

    def recorded(backbone, centres, data, **options):
        asked.update(options, shape=tuple(centres.weight.shape), loss=centres.loss)

    monkeypatch.setattr(train_recognition, "fit", recorded)
    monkeypatch.setattr(models, "save", lambda *given: None)
    path, folder = config(tmp_path, "run")
    written = json.loads(path.read_text())
    for name in ("epochs", "milestones"):
        del written[name]
    train_recognition.train({**written, "clip_norm": None})
    assert asked == {
        **{"epochs": 16, "milestones": (8, 14), "batch_size": 16, "lr": 0.02, "seed": 3},
        **{"folder": str(folder), "device": torch.device("cpu"), "shape": (PEOPLE, WIDTH)},
        **{"loss": "elastic_cosface", "clip_norm": None, "teaching": None},
    }
