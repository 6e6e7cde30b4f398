import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from studylib import errors
from studylib.models import margins

PLAIN = {"arcface": 0.5, "cosface": 0.35}
ELASTIC = ("elastic_arcface", "elastic_arcface_plus", "elastic_cosface", "elastic_cosface_plus")


def cosines(n=6, classes=5, seed=0, dtype=torch.float32):
    drawn = torch.Generator().manual_seed(seed)
    values = torch.rand(n, classes, generator=drawn, dtype=dtype) * 1.9 - 0.95
    return values, torch.randint(0, classes, (n,), generator=drawn)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def on_grid(angle):
    """A single face at this angle to its class, and at a right angle to another."""
    return torch.tensor([[math.cos(angle), 0.0]]), torch.tensor([0])


def test_arcface_adds_to_the_angle():
    """60 degrees and a margin of 30 make 90; wrong classes keep their cosine."""
    given_cosines = torch.tensor([[0.5, 0.3], [-0.2, math.sqrt(0.5)]])
    logits = margins.arcface(given_cosines, torch.tensor([0, 1]), scale=10, margin=math.pi / 6)
    wanted = torch.tensor([[0.0, 3.0], [-2.0, 10 * math.cos(math.radians(75))]])
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)


def test_published_defaults():
    values, labels = cosines()
    target = values[range(6), labels]
    own = {
        "arcface": 64 * torch.cos(torch.arccos(target) + 0.5),
        "cosface": 64 * (target - 0.35),
    }
    for loss, wanted in own.items():
        logits = margins.LOSSES[loss](values, labels)
        torch.testing.assert_close(logits[range(6), labels], wanted, rtol=1e-4, atol=1e-4)
        others = ~F.one_hot(labels, 5).bool()
        assert torch.equal(logits[others], 64 * values[others])


@pytest.mark.parametrize("loss", margins.LOSSES)
def test_functions_leave_their_input_alone(loss):
    values, labels = cosines()
    before = values.clone()
    extra = {"adaface": (torch.ones(6), torch.tensor([20.0, 100.0]))}
    extra["curricularface"] = (torch.zeros(1),)
    logits = margins.LOSSES[loss](values, labels, *extra.get(loss, ()))
    assert torch.equal(values, before) and logits.shape == values.shape
    assert logits.dtype == torch.float32 and logits.isfinite().all()


@pytest.mark.parametrize("loss", PLAIN)
@settings(max_examples=60)
@given(st.floats(0.01, 2.6), st.floats(0.001, 0.5))
def test_a_smaller_angle_has_a_larger_logit_and_a_margin_costs(loss, angle, step):
    """Up to pi - m, beyond which the cosine of the turned angle rises again."""
    nearer, further = angle, min(angle + step, math.pi - 0.5)
    function = margins.LOSSES[loss]
    logit = {a: function(*on_grid(a))[0, 0].item() for a in (nearer, further)}
    assert logit[nearer] >= logit[further] - 1e-4
    assert logit[nearer] < 64 * math.cos(nearer)
    less = function(*on_grid(nearer), margin=PLAIN[loss] / 2)[0, 0].item()
    assert logit[nearer] < less + 1e-4
    none = function(*on_grid(nearer), margin=0.0)[0, 0].item()
    assert none == pytest.approx(64 * math.cos(nearer), abs=1e-3)


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0000001])
@pytest.mark.parametrize("loss", margins.LOSSES)
def test_ends_have_finite_slopes(loss, cosine):
    """Rounding takes a cosine a little beyond 1."""
    values = torch.tensor([[cosine, cosine], [0.1, 0.2]], requires_grad=True)
    extra = {"adaface": (torch.ones(2), torch.tensor([20.0, 100.0]))}
    extra["curricularface"] = (torch.zeros(1),)
    logits = margins.LOSSES[loss](values, torch.tensor([0, 1]), *extra.get(loss, ()))
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert logits.isfinite().all() and values.grad.isfinite().all()


@pytest.mark.parametrize("loss", ["arcface", "cosface", "adaface", "curricularface"])
def test_gradients_are_those_of_differences(loss):
    values, labels = cosines(dtype=torch.float64)
    norms = torch.linspace(10, 30, 6, dtype=torch.float64)

    def logits(x):
        states = {"adaface": torch.tensor([20.0, 5.0]), "curricularface": torch.tensor([0.3])}
        extra = (norms,) if loss == "adaface" else ()
        extra += (states[loss].double(),) if loss in states else ()
        # The running mean moves with the cosines, but no gradient flows into it.
        fixed = {"keep": 1.0} if loss == "curricularface" else {}
        return margins.LOSSES[loss](x, labels, *extra, scale=2.0, **fixed)

    assert torch.autograd.gradcheck(logits, values.requires_grad_())


@pytest.mark.parametrize(("loss", "mean", "std"), [("arcface", 0.5, 0.05), ("cosface", 0.35, 0.05)])
def test_elastic_margins_follow_their_distribution(loss, mean, std):
    n = 20_000
    values, labels = torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64)  # right angles
    elastic = margins.LOSSES[f"elastic_{loss}"]
    target = elastic(values, labels, scale=1.0, generator=seeded())[:, 0].double()
    drawn = -target if loss == "cosface" else torch.arccos(target) - math.pi / 2
    assert drawn.mean().item() == pytest.approx(mean, abs=4 * std / n**0.5)
    assert drawn.std().item() == pytest.approx(std, rel=0.03)
    again = elastic(values, labels, scale=1.0, generator=seeded())[:, 0]
    assert torch.equal(again.double(), target)
    other = elastic(values, labels, scale=1.0, generator=seeded(1))[:, 0]
    assert not torch.equal(other.double(), target)


@pytest.mark.parametrize("loss", PLAIN)
def test_an_elastic_margin_without_spread_is_the_plain_loss(loss):
    values, labels = cosines(50)
    elastic, plain = margins.LOSSES[f"elastic_{loss}"], margins.LOSSES[loss]
    for ranked in (False, True):
        assert torch.equal(elastic(values, labels, std=0.0, ranked=ranked), plain(values, labels))


@pytest.mark.parametrize(("loss", "std"), [("elastic_arcface", 0.0175), ("elastic_cosface", 0.02)])
def test_ranked_margins_grow_with_difficulty(loss, std):
    values, labels = cosines(40, seed=3)
    values *= 0.7  # so that no angle turns beyond pi
    target = values[range(40), labels].double()

    def drawn(name, **given_settings):
        function = margins.LOSSES[name]
        logits = function(values, labels, scale=1.0, generator=seeded(), **given_settings)
        turned = logits[range(40), labels].double()
        arc = "arcface" in name
        return torch.arccos(turned) - torch.arccos(target) if arc else target - turned

    plus = drawn(f"{loss}_plus")
    hardest_first = plus[target.argsort()]
    assert (hardest_first.diff() < 1e-5).all() and hardest_first[0] > hardest_first[-1] + std
    unranked = drawn(loss, std=std)
    torch.testing.assert_close(unranked.sort().values, plus.sort().values, rtol=0, atol=1e-5)
    assert (unranked[target.argsort()].diff() > 0).any()


def adaface_by_hand(values, labels, norms, mean, std, m=0.4, h=0.333, s=64.0):
    """One face at a time, in double precision; mean and std as after this batch."""
    logits = np.clip(values.double().numpy(), -1 + 1e-3, 1 - 1e-3)
    for i, label in enumerate(labels):
        z = np.clip((np.clip(norms[i].item(), 1e-3, 100) - mean) / (std + 1e-3) * h, -1, 1)
        angle = np.clip(np.arccos(logits[i, label]) - m * z, 1e-3, np.pi - 1e-3)
        logits[i, label] = np.cos(angle) - (m + m * z)
    return s * logits


def test_adaface_and_its_running_statistics():
    state, mean, std = torch.tensor([20.0, 100.0]), 20.0, 100.0
    for seed, alpha in enumerate((0.01, 0.3, 1.0)):
        values, labels = cosines(8, seed=seed)
        norms = torch.rand(8, generator=seeded(seed)) * 150  # some above the end, 100
        held = norms.double().clamp(1e-3, 100).numpy()
        mean = alpha * held.mean() + (1 - alpha) * mean
        std = alpha * held.std(ddof=1) + (1 - alpha) * std
        logits = margins.adaface(values, labels, norms, state, t_alpha=alpha)
        assert state.tolist() == pytest.approx([mean, std], rel=1e-5)
        wanted = adaface_by_hand(values, labels, norms, mean, std)
        np.testing.assert_allclose(logits.numpy(), wanted, atol=2e-3)


def test_adaface_pulls_good_pictures_that_are_far_and_spares_bad_ones():
    """Kim et al. 2022, figure 4: at a wide angle the margin grows with the norm."""
    values, labels = torch.full((3, 2), -0.2), torch.zeros(3, dtype=torch.int64)
    state = torch.tensor([20.0, 5.0])
    norms = torch.tensor([5.0, 20.0, 35.0])
    logits = margins.adaface(values, labels, norms, state, t_alpha=0.0)[:, 0]
    assert logits[0] > logits[1] > logits[2]
    assert state.tolist() == [20.0, 5.0]


def test_adaface_of_one_face_keeps_the_statistics():
    """The spread of one norm is no number."""
    state = torch.tensor([20.0, 100.0])
    logits = margins.adaface(*on_grid(1.0), torch.tensor([30.0]), state)
    assert state.tolist() == [20.0, 100.0] and logits.isfinite().all()


def test_adaface_on_normalised_features_is_cosface():
    """As in published code that normalises first, with t_alpha 1: every margin is 0.4."""
    values, labels = cosines(64, 7)
    plain = margins.cosface(values, labels, margin=0.4)
    for norms in (
        torch.ones(64),
        F.normalize(torch.randn(64, 512, generator=seeded())).norm(dim=1),
    ):
        state = torch.tensor([20.0, 100.0])
        logits = margins.adaface(values, labels, norms, state, t_alpha=1.0)
        torch.testing.assert_close(logits, plain, rtol=0, atol=5e-3)
    other = margins.adaface(values, labels, torch.linspace(5, 40, 64), state, t_alpha=1.0)
    assert (other - plain).abs().max() > 5


def test_a_head_that_normalises_first_makes_adaface_cosface():
    """The trap of Neto et al.'s code, with its t_alpha; without normalising they differ widely."""

    def told(loss, **options):
        head = margins.Head(7, 32, loss, margin=0.4, seed=1, **options)
        embeddings = (drawn * scale).requires_grad_()
        logits, targets = head(embeddings, labels)
        F.cross_entropy(logits, targets).backward()
        return logits, embeddings.grad, head.weight.grad, repr(head)

    drawn = torch.randn(64, 32, generator=seeded())
    scale = torch.linspace(0.5, 9, 64)[:, None]  # so that pictures seem better and worse
    labels = torch.arange(64) % 7
    plain = told("cosface")
    trapped = told("adaface", normalised=True, t_alpha=1.0)
    proper = told("adaface", t_alpha=1.0)
    torch.testing.assert_close(trapped[0] / 64, plain[0] / 64, rtol=0, atol=1e-6)
    torch.testing.assert_close(trapped[1], plain[1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(trapped[2], plain[2], rtol=1e-3, atol=1e-3)
    assert (proper[0] - plain[0]).abs().max() > 1
    assert "normalised=True" in trapped[3] and "normalised" not in proper[3]


@pytest.mark.parametrize("loss", [loss for loss in margins.LOSSES if loss != "adaface"])
def test_other_losses_cannot_tell_whether_embeddings_are_normalised(loss):
    embeddings, labels = torch.randn(8, 6, generator=seeded()) * 5, torch.arange(8) % 3
    one, other = (margins.Head(3, 6, loss, normalised=n)(embeddings, labels) for n in (0, 1))
    assert torch.equal(one[0], other[0])


def curricular_by_hand(values, labels, t, m=0.5, s=64.0):
    logits = values.double().numpy().copy()
    for i, label in enumerate(labels):
        own = logits[i, label]
        turned = np.cos(np.arccos(own) + m)
        for j in range(logits.shape[1]):
            if logits[i, j] > turned:
                logits[i, j] *= t + logits[i, j]
        logits[i, label] = turned if own > np.cos(np.pi - m) else own - np.sin(np.pi - m) * m
    return s * logits


def test_curricularface_and_its_running_mean():
    state, t = torch.zeros(1), 0.0
    for seed in range(4):
        values, labels = cosines(8, seed=seed)
        if seed == 0:
            values[0, labels[0]] = -0.94  # beyond pi - m
        t = 0.01 * values[range(8), labels].double().mean().item() + 0.99 * t
        logits = margins.curricularface(values, labels, state)
        assert state.item() == pytest.approx(t, rel=1e-4)
        np.testing.assert_allclose(logits, curricular_by_hand(values, labels, t), atol=2e-3)


def test_curricularface_weighs_near_classes_more_as_training_succeeds():
    values, labels = torch.tensor([[0.5, 0.4, -0.9]]), torch.tensor([0])
    early = margins.curricularface(values, labels, torch.zeros(1), keep=1.0, scale=1.0)
    late = margins.curricularface(values, labels, torch.full((1,), 0.8), keep=1.0, scale=1.0)
    assert early[0].tolist() == pytest.approx(
        [math.cos(math.acos(0.5) + 0.5), 0.16, -0.9], abs=1e-6
    )
    assert late[0].tolist() == pytest.approx([math.cos(math.acos(0.5) + 0.5), 0.48, -0.9], abs=1e-6)


def batch(n=6, dimensions=8, classes=20, seed=0):
    drawn = seeded(seed)
    embeddings = 5 * torch.randn(n, dimensions, generator=drawn)
    return embeddings, torch.randint(0, classes, (n,), generator=drawn)


@pytest.mark.parametrize("loss", margins.LOSSES)
def test_a_head_applies_its_loss_to_cosines(loss):
    head = margins.Head(20, 8, loss, seed=3, scale=30.0)
    embeddings, labels = batch()
    logits, targets = head(embeddings, labels)
    assert targets is labels and head.step == 1
    centres = head.weight.detach().numpy().astype(np.float64)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    lengths = np.linalg.norm(embeddings.double(), axis=1, keepdims=True)
    wanted = torch.from_numpy((embeddings.double().numpy() / lengths) @ centres.T).float()
    extra = {
        "adaface": (torch.from_numpy(lengths[:, 0]).float(), torch.tensor([20.0, 100.0])),
        "curricularface": (torch.zeros(1),),
    }.get(loss, ())
    options = {"generator": seeded(3 << 32)} if loss in ELASTIC else {}
    wanted = margins.LOSSES[loss](wanted, labels, *extra, scale=30.0, **options)
    torch.testing.assert_close(logits.detach(), wanted, rtol=1e-3, atol=1e-3)


def test_centres_start_as_published():
    weight = margins.Head(1_000, 64, seed=1).weight.detach()
    assert weight.shape == (1_000, 64) and abs(weight.mean()) < 2e-4
    assert weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert torch.equal(weight, margins.Head(1_000, 64, "cosface", seed=1).weight)
    assert not torch.equal(weight, margins.Head(1_000, 64, seed=2).weight)


@pytest.mark.parametrize("loss", margins.LOSSES)
def test_a_head_that_is_loaded_goes_on_as_the_one_that_was_saved(loss):
    """Random margins, sampled classes and running statistics included."""

    def step(head, seed):
        logits, targets = head(*batch(seed=seed))
        head.zero_grad()
        F.cross_entropy(logits, targets).backward()
        with torch.no_grad():
            head.weight -= 0.1 * head.weight.grad
        return logits.detach()

    whole = margins.Head(20, 8, loss, partial=0.5)
    for seed in range(3):
        step(whole, seed)
    resumed = margins.Head(20, 8, loss, partial=0.5)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert all(isinstance(value, torch.Tensor) for value in whole.state_dict().values())
    for seed in range(3, 6):
        assert torch.equal(step(resumed, seed), step(whole, seed))


def test_partial_sampling_keeps_every_class_of_the_batch():
    head = margins.Head(100, 8, "cosface", partial=0.2, margin=0.0)
    embeddings, labels = batch(12, classes=100)
    logits, targets = head(embeddings, labels)
    assert logits.shape == (12, 20)
    F.cross_entropy(logits, targets).backward()
    touched = head.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert len(touched) == 20 and set(labels.tolist()) <= set(touched.tolist())
    # what is sampled is the full table's columns, in order
    full = 64 * F.linear(F.normalize(embeddings), F.normalize(head.weight))
    torch.testing.assert_close(logits, full[:, touched])
    assert torch.equal(touched[targets], labels)
    head.zero_grad()
    F.cross_entropy(*head(embeddings, labels)).backward()
    again = set(head.weight.grad.abs().sum(1).nonzero()[:, 0].tolist())
    assert again != set(touched.tolist())  # the other classes are drawn anew


def test_sampled_classes_are_drawn_evenly():
    head = margins.Head(40, 4, partial=0.25)
    counts = torch.zeros(40)
    labels = torch.tensor([3, 3, 7])
    for _ in range(1_000):
        rows, _ = head._sample(labels, torch.Generator().manual_seed(len(counts) + int(head.step)))
        head.step += 1
        counts[rows] += 1
    assert counts[[3, 7]].tolist() == [1_000, 1_000]
    others = torch.tensor([c for i, c in enumerate(counts.tolist()) if i not in (3, 7)])
    share = 8 / 38  # of 38 other classes, 8 are drawn
    assert others.mean() / 1_000 == pytest.approx(share)
    assert (others / 1_000 - share).abs().max() < 5 * math.sqrt(share * (1 - share) / 1_000)


def test_more_classes_in_a_batch_than_its_share_are_all_kept():
    head = margins.Head(100, 8, partial=0.0)
    _, labels = batch(30, classes=100)
    logits, _ = head(torch.randn(30, 8, generator=seeded()), labels)
    assert logits.shape == (30, len(labels.unique()))


def test_cosines_are_float32_under_autocast():
    head = margins.Head(20, 8, seed=0)
    embeddings, labels = batch()
    wanted, _ = head(embeddings, labels)
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = head(embeddings, labels)
    assert logits.dtype == torch.float32 and torch.equal(logits, wanted)
    rounded, _ = head(embeddings.bfloat16(), labels)
    assert rounded.dtype == torch.float32


@pytest.mark.parametrize("loss", margins.LOSSES)
def test_training_brings_faces_to_their_classes(loss):
    """Six people in sixteen noisy numbers: a linear network and a head learn to tell them apart."""
    drawn = seeded()
    people = torch.randn(6, 16, generator=drawn)
    labels = torch.arange(60) % 6
    faces = people[labels] + 0.3 * torch.randn(60, 16, generator=drawn)
    torch.manual_seed(0)
    backbone, head = nn.Linear(16, 8), margins.Head(6, 8, loss, scale=16.0, margin=0.2)
    weights = [*backbone.parameters(), *head.parameters()]
    losses = []
    for _ in range(60):
        losses.append(F.cross_entropy(*head(backbone(faces), labels)))
        for weight, slope in zip(weights, torch.autograd.grad(losses[-1], weights), strict=True):
            weight.data -= 0.1 * slope
    assert losses[-1] < 0.3 * losses[0]
    closest = F.linear(F.normalize(backbone(faces)), F.normalize(head.weight)).argmax(1)
    assert (closest == labels).all()


def unknown(what, value, choices):
    return errors.UNKNOWN_NAME.format(what=what, value=value, choices=choices)


@pytest.mark.parametrize(
    ("given_arguments", "message"),
    [
        ({"num_classes": 1}, errors.BAD_SIZE.format(what="num_classes", least=2, value=1)),
        ({"embedding": 0}, errors.BAD_SIZE.format(what="embedding", least=1, value=0)),
        ({"loss": "softmax"}, unknown("loss", "softmax", ", ".join(sorted(margins.LOSSES)))),
        ({"std": 0.1}, unknown("setting of arcface", "std", "margin, scale")),
        (
            {"loss": "elastic_cosface_plus", "generator": 1},
            unknown("setting of elastic_cosface_plus", "generator", "margin, ranked, scale, std"),
        ),
        ({"partial": 1.5}, errors.NOT_A_FRACTION.format(what="partial", value=1.5)),
    ],
)
def test_bad_heads(given_arguments, message):
    with pytest.raises(errors.ParameterError) as caught:
        margins.Head(**{"num_classes": 9, "embedding": 4, **given_arguments})
    assert str(caught.value) == message
