import copy

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.lr_scheduler import ReduceLROnPlateau

from studylib import errors, models, train
from studylib.faces import Faces
from studylib.vision import torchvision

CLASSES = ("a", "b", "c")
SIZE = 16


def labelled(n, seed=0, noise=40.0, classes=CLASSES, size=SIZE):
    """Faces of noise around one blocky pattern a class, the same patterns for every seed."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(9).normal(0, 40, (len(classes), 4, 4))
    patterns = patterns.repeat(size // 4, 1).repeat(size // 4, 2)
    label = np.arange(n) % len(classes)
    pixels = 128 + patterns[label] + rng.normal(0, noise, (n, size, size))
    images = torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))[:, None]
    names = [f"{seed}-{i}" for i in range(n)]
    table = pd.DataFrame({"item": names, "subject": names, "label": label})
    return Faces(images, table, "noise", classes)


def network(seed=0, classes=3, **options):
    options = {"pixels": "unit", "norm_momentum": 0.9, "seed": seed, **options}
    return models.fer_cnn(classes, SIZE, 0.125, **options)


def fit(model, faces=None, chosen_on=None, **options):
    faces = labelled(96) if faces is None else faces
    chosen_on = labelled(60, seed=1) if chosen_on is None else chosen_on
    return train.fit(model, faces, chosen_on, **{"epochs": 2, "seed": 0, **options})


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_it_learns_and_says_how():
    model = network()
    history = fit(model, labelled(480), epochs=8, lr=2e-3)
    assert tuple(history) == train.HISTORY
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["loss"].iloc[-1] < 0.7 * history["loss"].iloc[0]
    assert history["chosen_accuracy"].max() > 0.9
    assert (history["images_per_s"] > 0).all()
    assert not model.training


def test_a_run_repeats_bit_for_bit_and_leaves_the_generator_alone():
    states, histories = [], []
    for global_seed, seed in ((1, 4), (2, 4), (3, 5)):
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        model = network()
        torch.random.set_rng_state(before)
        histories.append(fit(model, seed=seed).drop(columns="images_per_s"))
        assert torch.equal(torch.random.get_rng_state(), before)
        states.append(weights(model))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    pd.testing.assert_frame_equal(histories[0], histories[1])
    assert not torch.equal(states[0]["dense7.weight"], states[2]["dense7.weight"])


class Linear(nn.Module):
    """A network without dropout or normalisation: one step of it can be worked out by hand."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(SIZE * SIZE, len(CLASSES))

    def forward(self, faces):
        return self.fc(faces.float().flatten(1) / 255)


def test_steps_are_those_of_adam_on_the_cross_entropy():
    """Whole-set batches, so that the order of faces does not matter; Keras's epsilon of 1e-7."""
    faces, model = labelled(30), Linear()
    by_hand = copy.deepcopy(model)
    history = fit(model, faces, epochs=3, lr=1e-2, batch_size=64, flip=False, rotation=0)
    mean, square, losses = {}, {}, []
    truth = torch.tensor(faces.table["label"].to_numpy())
    for t in range(1, 4):
        log_p = by_hand(faces.images).log_softmax(1)
        loss = -log_p[torch.arange(30), truth].mean()
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, by_hand.parameters())
        for p, grad in zip(by_hand.parameters(), gradients, strict=True):
            mean[p] = 0.9 * mean.get(p, 0) + 0.1 * grad
            square[p] = 0.999 * square.get(p, 0) + 0.001 * grad**2
            step = mean[p] / (1 - 0.9**t) / ((square[p] / (1 - 0.999**t)).sqrt() + 1e-7)
            p.data -= 1e-2 * step
    assert history["loss"].tolist() == pytest.approx(losses, rel=1e-4)
    assert history["lr"].tolist() == [1e-2] * 3
    # The last epoch need not be the best on the faces to choose on; then the weights are older.
    last = Linear()
    fit(last, faces, epochs=3, lr=1e-2, batch_size=64, flip=False, rotation=0, select="last")
    torch.testing.assert_close(last.fc.weight, by_hand.fc.weight, atol=1e-4, rtol=1e-3)


def accuracy(model, faces):
    return (train.predict(model, faces).argmax(1).numpy() == faces.table["label"]).mean()


def scripted(monkeypatch, accuracies, losses=None):
    """Let the faces to choose on say what the test needs, whatever the network learned."""
    losses = losses or np.linspace(2, 1, len(accuracies))
    said = [
        {"chosen_loss": float(loss), "chosen_accuracy": accuracy}
        for loss, accuracy in zip(losses, accuracies, strict=True)
    ]
    monkeypatch.setattr(train, "_verdict", lambda *given: said.pop(0))


@pytest.mark.parametrize(("select", "kept"), [("best", 2), ("last", 5)])
def test_best_keeps_the_first_best_epoch_and_last_the_last(monkeypatch, select, kept):
    accuracies = [0.2, 0.8, 0.5, 0.8, 0.6]
    scripted(monkeypatch, accuracies)
    model, stopped = network(), network()
    assert fit(model, epochs=5, select=select)["chosen_accuracy"].tolist() == accuracies
    scripted(monkeypatch, accuracies[:kept])
    fit(stopped, epochs=kept, select="last")
    expected = stopped.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_an_epoch_is_kept_even_if_none_is_ever_right(monkeypatch):
    scripted(monkeypatch, [0.0, 0.0])
    model, stopped = network(), network()
    fit(model, epochs=2)
    scripted(monkeypatch, [0.0])
    fit(stopped, epochs=1, select="last")
    assert torch.equal(model.dense7.weight, stopped.dense7.weight)


def test_history_holds_the_plain_loss_and_accuracy_on_the_faces_to_choose_on():
    chosen_on = labelled(50, seed=3)
    model = network()
    row = fit(model, chosen_on=chosen_on, epochs=1).iloc[0]
    p = train.predict(model, chosen_on)[np.arange(50), chosen_on.table["label"]]
    assert row["chosen_loss"] == pytest.approx(-p.log().mean().item(), rel=1e-5)
    assert row["chosen_accuracy"] == accuracy(model, chosen_on)


def keras_rates(losses, lr=5e-4, factor=0.1, patience=2, min_delta=1e-4, min_lr=1e-5):
    """The rate of each epoch under Keras's ReduceLROnPlateau, from its documented rules."""
    best, waited, rates = float("inf"), 0, []
    for loss in losses:
        rates.append(lr)
        if loss < best - min_delta:
            best, waited = loss, 0
            continue
        waited += 1
        if waited >= patience:
            lr, waited = max(lr * factor, min_lr), 0
    return rates


@given(st.lists(st.integers(0, 12), min_size=1, max_size=30))
def test_the_rate_falls_as_in_keras(levels):
    losses = [1 + 0.6e-4 * level for level in levels]  # some fall by less than 1e-4
    optimiser = torch.optim.Adam([torch.zeros(1, requires_grad=True)], 5e-4)
    plateau = ReduceLROnPlateau(optimiser, **train.PLATEAU)
    rates = []
    for loss in losses:
        rates.append(optimiser.param_groups[0]["lr"])
        plateau.step(loss)
    assert rates == pytest.approx(keras_rates(losses))


def test_the_rate_follows_the_faces_to_choose_on(monkeypatch):
    """Two falls; the second stops at the least rate."""
    losses = [1.0, 1.0, 0.99995, 0.5, 0.6, 0.7, 0.4, 0.4]
    scripted(monkeypatch, [0.5] * 8, losses)
    rates = fit(network(), epochs=8)["lr"].tolist()
    assert rates == pytest.approx([5e-4] * 3 + [5e-5] * 3 + [1e-5] * 2) == keras_rates(losses)


def test_after_each_step():
    seen = []
    fit(network(), labelled(70), batch_size=32, epochs=3, after_step=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


class Mask(nn.Module):
    def __init__(self, keep):
        super().__init__()
        self.register_buffer("keep", keep)

    def forward(self, weight):
        return weight * self.keep


def test_parametrised_weights_are_trained_beneath_their_masks():
    model = network()
    keep = torch.rand(model.dense5.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    parametrize.register_parametrization(model.dense5, "weight", Mask(keep))
    before = model.dense5.weight.detach().clone()
    opened = []

    def after_step(step):
        if step == 2:
            model.dense5.parametrizations.weight[0].keep[0] = True
            opened.append(step)

    fit(model, epochs=2, after_step=after_step, select="last")
    weight = model.dense5.weight.detach()
    assert opened == [2]
    assert ((weight == 0) == ~model.dense5.parametrizations.weight[0].keep).all()
    assert (weight[0] != 0).all()
    assert not torch.equal(weight[keep], before[keep])


def test_every_face_is_used_once_an_epoch_and_the_rest_is_left_over():
    generator = torch.Generator().manual_seed(0)
    orders = []
    for _ in range(2):
        order, mirrored, angles = train._batches(70, 32, True, 10.0, generator)
        assert order.shape == mirrored.shape == angles.shape == (2, 32)
        assert order.unique().numel() == 64 and set(order.flatten().tolist()) <= set(range(70))
        orders.append(order)
    assert not torch.equal(*orders)
    assert set(orders[0].flatten().tolist()) != set(orders[1].flatten().tolist())


def test_fewer_faces_than_a_batch_make_one_batch():
    order, *_ = train._batches(5, 32, True, 10.0, torch.Generator())
    assert sorted(order.flatten().tolist()) == [0, 1, 2, 3, 4] and len(order) == 1


def test_draws_of_the_augmentation():
    def drawn(flip, rotation):
        generator = torch.Generator().manual_seed(1)
        return train._batches(40_000, 32, flip, rotation, generator)

    order, mirrored, angles = drawn(True, 10.0)
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.01)
    assert angles.abs().max() <= 10 and angles.abs().max() > 9.99
    assert angles.mean() == pytest.approx(0, abs=0.1)
    assert angles.std() == pytest.approx(10 / 3**0.5, rel=0.01)  # uniform
    plain, unmirrored, level = drawn(False, 0.0)
    assert torch.equal(plain, order) and not unmirrored.any() and not level.any()


def smooth(shape, seed=0):
    pixels = np.random.default_rng(seed).uniform(0, 255, shape)
    return scipy.ndimage.gaussian_filter(pixels, (0, 0, 2, 2)).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 1, 48, 48), (2, 3, 20, 31)])
@pytest.mark.parametrize("angle", [-90.0, -7.3, 0.0, 10.0, 33.0])
def test_rotation_agrees_with_scipy_up_to_the_border(shape, angle):
    """SciPy turns on pixel positions and repeats the border (`nearest`), as Keras does with it."""
    faces = smooth(shape)
    n = len(faces)
    ours = train.augment(
        torch.from_numpy(faces), torch.zeros(n, dtype=torch.bool), torch.full((n,), angle)
    )
    theirs = scipy.ndimage.rotate(faces, angle, (3, 2), False, order=1, mode="nearest")
    # At the rim SciPy and torch differ in the last bit of a coordinate, not in a pixel.
    np.testing.assert_allclose(ours.numpy(), theirs, atol=0.02)


def test_rotation_has_the_sense_of_torchvision():
    faces = torch.from_numpy(smooth((1, 1, 48, 48)))
    turned = train.augment(faces, torch.tensor([False]), torch.tensor([10.0]))
    bilinear = torchvision.transforms.InterpolationMode.BILINEAR
    theirs = torchvision.transforms.functional.rotate(faces, 10.0, bilinear)
    inner = (..., slice(12, 36), slice(12, 36))
    torch.testing.assert_close(turned[inner], theirs[inner], atol=0.05, rtol=0)
    assert (turned - faces)[inner].abs().mean() > 1


def test_mirroring_is_for_each_face_and_comes_first():
    faces = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    ours = train.augment(faces, torch.tensor([True, False]), torch.zeros(2))
    assert ours.dtype == torch.float32
    expected = torch.cat([faces[:1].flip(-1), faces[1:]]).float()
    torch.testing.assert_close(ours, expected, atol=0.01, rtol=0)
    angles = torch.full((2,), 8.0)
    both = train.augment(faces, torch.tensor([True, True]), angles)
    after = train.augment(faces.flip(-1), torch.tensor([False, False]), angles)
    assert torch.equal(both, after)


@given(st.floats(-10, 10), st.integers(0, 255))
def test_an_even_face_stays_even(angle, grey):
    """Corners repeat the border: no rotation brings in another shade."""
    faces = torch.full((1, 1, 24, 24), grey, dtype=torch.uint8)
    turned = train.augment(faces, torch.tensor([True]), torch.tensor([angle]))
    torch.testing.assert_close(turned, faces.float(), atol=1e-3, rtol=0)


def test_probabilities_do_not_depend_on_the_batches():
    model, faces = network().train(), labelled(37)
    bare = Faces(faces.images, faces.table.drop(columns="label"), "noise")  # labels not needed
    rows = train.predict(model, bare)
    assert rows.shape == (37, 3) and rows.dtype == torch.float32
    assert rows.device.type == "cpu" and not rows.requires_grad
    torch.testing.assert_close(rows.sum(1), torch.ones(37))
    torch.testing.assert_close(train.predict(model, bare, batch_size=5), rows)
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(faces.images).softmax(1), rows)


def test_faces_that_crowd_a_gpu_stay_with_the_host(monkeypatch):
    faces = labelled(8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * faces.images.nbytes, 0))
    monkeypatch.setattr(train, "_labels", lambda faces: torch.zeros(8))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: f"on {device}")
    cuda = torch.device("cuda")
    images, labels = train._resident(faces, cuda)
    assert images is faces.images and labels == "on cuda"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * faces.images.nbytes + 1, 0))
    assert train._resident(faces, cuda) == ("on cuda", "on cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_a_gpu_sees_the_same_batches_wherever_the_faces_are(monkeypatch):
    losses = [fit(network(), device="cuda")["loss"]]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    losses.append(fit(network(), device="cuda")["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-2)


def relabelled(labels, classes=CLASSES):
    faces = labelled(6)
    return Faces(faces.images, faces.table.assign(label=labels), "noise", classes)


def unlabelled():
    faces = labelled(6)
    return Faces(faces.images, faces.table.drop(columns="label"), "orl", CLASSES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, errors.BAD_SIZE.format(what="epochs", least=1, value=0)),
        ({"batch_size": 1}, errors.BAD_SIZE.format(what="batch_size", least=2, value=1)),
        ({"faces": labelled(1)}, errors.BAD_SIZE.format(what="faces", least=2, value=1)),
        ({"chosen_on": labelled(0)}, errors.BAD_SIZE.format(what="chosen_on", least=1, value=0)),
        ({"lr": 0.0}, errors.NOT_ABOVE_ZERO.format(what="lr", value=0.0)),
        (
            {"select": "worst"},
            errors.UNKNOWN_NAME.format(
                what="selection of an epoch", value="worst", choices="best, last"
            ),
        ),
        ({"model": network(classes=2)}, errors.FEW_OUTPUTS.format(outputs=2, classes=3)),
    ],
)
def test_bad_parameters(options, message):
    with pytest.raises(errors.ParameterError) as caught:
        fit(**{"model": network(), "faces": labelled(8), "chosen_on": labelled(4), **options})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faces": unlabelled()}, errors.NO_LABELS.format(origin="orl")),
        ({"chosen_on": unlabelled()}, errors.NO_LABELS.format(origin="orl")),
        ({"faces": relabelled(0, classes=())}, errors.NO_LABELS.format(origin="noise")),
        (
            {"chosen_on": relabelled(0, classes=("a", "c", "b"))},
            errors.OTHER_LABELS.format(found=("a", "c", "b"), wanted=CLASSES),
        ),
        (
            {"faces": relabelled([0, 1, 2, 3, 0, 1])},
            errors.CODE_RANGE.format(what="label", allowed="from 0 to 2", low=0, high=3),
        ),
        (
            {"chosen_on": relabelled([0, 1, 2, -1, 0, 1])},
            errors.CODE_RANGE.format(what="label", allowed="from 0 to 2", low=-1, high=2),
        ),
        (
            {"faces": labelled(6, size=20)},
            errors.OTHER_FACES.format(found=(1, 20, 20), wanted=(1, SIZE, SIZE)),
        ),
    ],
)
def test_bad_faces(options, message):
    with pytest.raises(errors.DataError) as caught:
        fit(**{"model": network(), "faces": labelled(8), "chosen_on": labelled(4), **options})
    assert str(caught.value) == message


def test_a_training_that_diverges_is_stopped():
    with pytest.raises(errors.ParameterError) as caught:
        fit(Linear(), lr=1e38)
    assert str(caught.value).startswith("The training loss is nan after epoch 1")


def test_predict_wants_a_batch():
    with pytest.raises(errors.ParameterError, match="batch_size must be at least 1, got 0"):
        train.predict(network(), labelled(2), batch_size=0)
