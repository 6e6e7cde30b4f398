import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from studylib import distill, errors
from studylib.distill import PerGroup, Teaching, Term

EQUAL = ("embedding", "cosine")  # losses that need as many dimensions of student and teacher
ANY = ("rkd", "similarity")


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit(n=12, views=1, size=8, seed=0):
    return F.normalize(drawn(n, views, size, seed=seed), dim=2).numpy()


def rotation(size, seed):
    return torch.linalg.qr(drawn(size, size, seed=seed, dtype=torch.float64)).Q


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "factor"), [(512, 39.0625), (128, 156.25)])
def test_the_papers_loss_in_words(size, factor):
    """10,000 times the mean squared difference is 20,000 / D times 1 - cos."""
    student, teacher = drawn(6, size) * 7, drawn(6, size, seed=1)
    loss = 10_000 * distill.embedding(student, teacher)
    cos = F.cosine_similarity(student, teacher)
    torch.testing.assert_close(loss, factor * (1 - cos), rtol=1e-4, atol=1e-4)
    whole = 10_000 * F.mse_loss(F.normalize(student), F.normalize(teacher))
    torch.testing.assert_close(loss.mean(), whole)


def test_the_cosine_weighs_as_the_papers_loss_at_512_dimensions():
    student, teacher = drawn(5, 512), drawn(5, 512, seed=1)
    torch.testing.assert_close(
        distill.WEIGHTS["cosine"] * distill.cosine(student, teacher),
        distill.WEIGHTS["embedding"] * distill.embedding(student, teacher),
        rtol=1e-4,
        atol=1e-4,
    )


def rkd_by_hand(student, teacher, distance, angle):
    """The paper's two formulas over all pairs and triples, from differences and torch's cdist."""
    total = 0.0
    for weight, kind in ((distance, "distance"), (angle, "angle")):
        told = []
        for x in (F.normalize(student), F.normalize(teacher)):
            if kind == "distance":
                d = torch.cdist(x, x)
                told.append(d / d[d > 0].mean())
            else:
                towards = F.normalize(x[None] - x[:, None], dim=2)  # [i, j] from i to j
                told.append(towards @ towards.transpose(1, 2))
        total += weight * F.smooth_l1_loss(*told).item()
    return total


@pytest.mark.parametrize("weights", [(1.0, 2.0), (25.0, 0.0), (0.0, 50.0)])
def test_relations_are_those_of_the_papers_formulas(weights):
    student, teacher = drawn(9, 6, dtype=torch.float64), drawn(9, 4, seed=1, dtype=torch.float64)
    loss = distill.rkd(student, teacher, **dict(zip(("distance", "angle"), weights, strict=True)))
    assert loss.shape == (9,)
    assert loss.mean().item() == pytest.approx(rkd_by_hand(student, teacher, *weights), rel=1e-9)


def test_a_triangle_by_hand():
    """0, 90 and 180 degrees on a circle against 0, 90 and 90: distances and one angle change."""
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    long, mean = math.sqrt(2), (2 * math.sqrt(2) + 2) / 3
    theirs = {(0, 1): long / mean, (1, 2): long / mean, (0, 2): 2 / mean}
    ours = {(0, 1): 1.0, (1, 2): 0.0, (0, 2): 1.0}  # the two that are there, in units of their mean
    huber = {pair: (ours[pair] - theirs[pair]) ** 2 / 2 for pair in ours}
    assert max(abs(ours[pair] - theirs[pair]) for pair in ours) < 1
    loss = distill.rkd(student, teacher, angle=0.0)
    by_face = [huber[0, 1] + huber[0, 2], huber[0, 1] + huber[1, 2], huber[0, 2] + huber[1, 2]]
    assert loss.tolist() == pytest.approx([x / 3 for x in by_face], rel=1e-5)
    # Angles: at face 0 the teacher sees 45 degrees between 1 and 2, the student none; at face 1
    # and face 2 the teacher sees 90 and 45, the student one point on top of another (cosine 0).
    # A face with itself has a cosine of 1 in a direction that exists, and 0 without one.
    half = math.sqrt(0.5)
    at_0 = 2 * (1 - half) ** 2 / 2 / 9
    at_1 = 1 / 2 / 9  # the teacher's direction from 1 to 2 with itself, which the student lacks
    at_2 = (2 * half**2 / 2 + 1 / 2) / 9
    loss = distill.rkd(student, teacher, distance=0.0, angle=1.0)
    assert loss.tolist() == pytest.approx([at_0, at_1, at_2], abs=1e-6)


def test_similarities_are_those_of_the_papers_formula():
    student, teacher = unit(7, size=5)[:, 0], unit(7, size=3, seed=1)[:, 0]
    rows = [x @ x.T for x in (student, teacher)]
    rows = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows]
    wanted = np.square(rows[0] - rows[1]).sum() / 7**2  # squared Frobenius norm over B^2
    loss = distill.similarity(torch.from_numpy(student * 3), torch.from_numpy(teacher))
    assert loss.mean().item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logits_are_torchs_divergence_times_the_temperature_squared(temperature):
    student, teacher = drawn(6, 10) * 5, drawn(6, 10, seed=1) * 5
    loss = distill.logits(student, teacher, temperature=temperature).mean()
    parts = (student / temperature).log_softmax(1), (teacher / temperature).softmax(1)
    wanted = torch.nn.KLDivLoss(reduction="batchmean")(*parts) * temperature**2
    torch.testing.assert_close(loss, wanted)


def test_hot_logits_match_as_squares_do():
    """Hinton's limit: at a high temperature the gradient is (student - teacher) / C, centred."""
    student = drawn(3, 10).double().requires_grad_()
    teacher = drawn(3, 10, seed=1).double()
    distill.logits(student, teacher, temperature=1e4).sum().backward()
    difference = student.detach() - teacher
    wanted = (difference - difference.mean(1, keepdim=True)) / 10
    torch.testing.assert_close(student.grad, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", distill.LOSSES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 50))
def test_losses_do_not_see_rotations_of_both_and_are_0_where_nothing_differs(loss, seed, scale):
    student, teacher = (drawn(6, 5, seed=seed + k, dtype=torch.float64) for k in (0, 1))
    function = distill.LOSSES[loss]
    value = function(student, teacher)
    assert (value > 0).all() and value.isfinite().all()
    same = function(student, student)
    torch.testing.assert_close(same, torch.zeros_like(same), rtol=0, atol=1e-9)
    if loss == "logits":  # which are no directions
        return
    turn = rotation(5, seed)
    torch.testing.assert_close(function(student @ turn, teacher @ turn), value)
    torch.testing.assert_close(function(scale * student, teacher), value)
    turned = function(student @ turn, student)
    assert (turned.mean() > 1e-3) == (loss in EQUAL)  # relations alone survive a turn of one side


@pytest.mark.parametrize("loss", distill.LOSSES)
def test_gradients_are_those_of_differences(loss):
    student, teacher = (drawn(4, 3, seed=k, dtype=torch.float64) for k in (0, 1))
    function = distill.LOSSES[loss]
    assert torch.autograd.gradcheck(lambda x: function(x, teacher), student.requires_grad_())


@pytest.mark.parametrize("loss", distill.LOSSES)
def test_faces_that_cannot_be_told_apart_have_finite_slopes(loss):
    student = torch.ones(4, 3).requires_grad_()
    value = distill.LOSSES[loss](student, drawn(4, 3)).mean()
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("loss", ANY)
def test_relations_compare_any_two_sizes_and_learn(loss):
    student, teacher = drawn(8, 6).requires_grad_(), drawn(8, 3, seed=1)
    sgd = torch.optim.Adam([student], lr=0.05)
    losses = []
    for _ in range(150):
        value = distill.LOSSES[loss](student, teacher).mean()
        sgd.zero_grad()
        value.backward()
        sgd.step()
        losses.append(value.item())
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("loss", EQUAL)
def test_embeddings_of_two_sizes_are_refused(loss):
    with pytest.raises(errors.ParameterError) as caught:
        distill.LOSSES[loss](drawn(4, 6), drawn(4, 3))
    assert str(caught.value) == errors.OTHER_TEACHER_SIZE.format(student=6, teacher=3)
    with pytest.raises(errors.ParameterError) as caught:
        Term(Teaching(unit(size=3), loss=loss), 6)
    assert str(caught.value) == errors.OTHER_TEACHER_SIZE.format(student=6, teacher=3)


# --- groups --------------------------------------------------------------------------------------


def test_weights_rise_with_a_groups_loss():
    weights = torch.empty(3)
    for rise, wanted in ((1.0, [0.5, 1.0, 1.5]), (0.0, [1.0, 1.0, 1.0]), (200.0, [0, 0, 3.0])):
        distill.reweighted(torch.tensor([0.1, 0.2, 0.3]), weights, rise=rise)
        assert weights.tolist() == pytest.approx(wanted, abs=1e-6)
    distill.reweighted(torch.zeros(3), weights)
    assert weights.isfinite().all()  # a student that has learnt everything


def test_dual_ascent_by_hand():
    """Excesses over the mean of 0.2 are -50, 0 and +50 %; the bound is 10 %."""
    levels, multipliers = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.5, 0.5])
    for wanted in ([0.2, 0.45, 0.7], [0, 0.4, 0.9], [0, 0.35, 1.1]):
        distill.constrained(levels, multipliers, bound=0.1, rate=0.5)
        assert multipliers.tolist() == pytest.approx(wanted, abs=1e-6)
    distill.constrained(levels, multipliers, bound=0.1, rate=0.5, restart=True)
    assert multipliers.tolist() == pytest.approx([0, 0, 1.3], abs=1e-6)


def shared(balance, steps=600, **options):
    """Losses of two groups, 9 : 1 and at a right angle, of one embedding that must serve both.

    Means over the last 300 steps: bounds hold on average, around which multipliers swing.
    """
    wanted = torch.eye(4)[[0] * 9 + [1]]
    teaching = Teaching(
        wanted[:, None], "cosine", groups=["a"] * 9 + ["b"], balance=balance, settings=options
    )
    term, codes = Term(teaching, 4), torch.from_numpy(teaching.codes())
    embedding = torch.ones(1, 4, requires_grad=True)
    sgd = torch.optim.SGD([embedding], lr=0.02)
    told = []
    for _ in range(steps):
        loss, _ = term(embedding.expand(10, 4), wanted, codes)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        told.append([term.report()[name] for name in ("kd_a", "kd_b")])
    return np.mean(told[-300:], 0)


def test_a_group_that_few_belong_to_is_forgotten_unless_its_loss_is_bounded():
    plain, bounded = shared(None), shared("constrained", bound=0.2, rate=0.05)
    weighted = shared("reweighted", rise=2.0)
    swinging = shared("constrained", bound=0.2, rate=0.05, restart=True)
    assert plain[1] > 1.9 * plain.mean()
    assert bounded[1] == pytest.approx(1.2 * bounded.mean(), rel=0.02)
    assert swinging[1] > 1.3 * swinging.mean()
    assert plain[1] > weighted[1] > weighted[0] > plain[0]


def test_the_term_of_groups_by_hand():
    """Squared differences 1 and 3 of group a, 6 of group b; c is never there."""
    groups = ["a", "a", "b", "c"]
    student = F.normalize(drawn(3, 8))
    teaching = Teaching(unit(4), "cosine", groups=groups, balance="constrained", keep=0.5)
    term, wanted = Term(teaching, 8), torch.from_numpy(teaching.wanted[:3, 0])
    each = distill.cosine(student, wanted)
    means = [each[:2].mean().item(), each[2].item()]
    codes = torch.tensor([0, 0, 1])
    loss, mean = term(student, wanted, codes)
    assert mean.item() == pytest.approx(each.mean().item())
    assert term.levels()[:2].tolist() == pytest.approx(means) and term.levels()[2].isnan()
    excess = [m / (sum(means) / 2) - 1.1 for m in means]
    multipliers = [max(0.0, 0.1 * e) for e in excess]
    assert any(multipliers)
    wanted_loss = each.mean().item() + sum(np.multiply(multipliers, means))
    assert loss.item() == pytest.approx(wanted_loss, rel=1e-5)
    told = term.report()
    assert list(told) == [f"{k}_{g}" for k in ("kd", "multiplier") for g in "abc"]
    # Only the second group comes again: the first one's level stays, its own is a moving average.
    other = F.normalize(drawn(1, 8, seed=5))
    term(other, wanted[:1], torch.tensor([1]))
    now = distill.cosine(other, wanted[:1]).item()
    assert term.levels()[0].item() == pytest.approx(means[0])
    assert term.levels()[1].item() == pytest.approx((0.25 * means[1] + 0.5 * now) / 0.75, rel=1e-5)


@pytest.mark.parametrize("loss", distill.LOSSES)
def test_reweighted_losses_are_means_of_weighted_faces(loss):
    teaching = Teaching(unit(), loss, groups=["a", "b"] * 6, balance="reweighted")
    plain = Teaching(unit(), loss)
    student, centres = drawn(12, 8, seed=3), drawn(4, 8, seed=4)
    wanted, labels = torch.from_numpy(teaching.wanted[:, 0]), np.arange(12) % 4
    codes = torch.from_numpy(teaching.codes())
    term = Term(teaching, 8, 4, labels)
    loss, mean = term(student, wanted, codes, centres)
    unweighted, _ = Term(plain, 8, 4, labels)(student, wanted, None, centres)
    torch.testing.assert_close(mean, unweighted)
    levels = term.levels()
    weights = levels / levels.mean()
    torch.testing.assert_close(loss, (weights * levels).mean())  # both groups have as many faces


# --- logits need classes -------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
def test_the_teachers_logits_are_cosines_with_class_means_or_its_own_centres(own):
    wanted, labels = unit(12, views=2), np.arange(12) % 3
    centres = drawn(3, 8, seed=7) * 4 if own else None
    teaching = Teaching(wanted.astype(np.float16), "logits", centres=centres, scale=10.0)
    term = Term(teaching, 8, 3, labels)
    means = np.stack([wanted[labels == k].sum((0, 1)) for k in range(3)])
    means = centres.numpy() if own else means
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    student, heads = drawn(4, 5), drawn(3, 5, seed=1)
    teachers = 10 * torch.from_numpy(wanted[:4, 0] @ means.T)
    students = 10 * F.normalize(student) @ F.normalize(heads).T
    loss, _ = term(student, torch.from_numpy(wanted[:4, 0]), None, heads)
    torch.testing.assert_close(
        loss, distill.logits(students, teachers).mean(), rtol=1e-2, atol=1e-3
    )


def test_logits_without_classes_or_with_others_are_refused():
    with pytest.raises(errors.ParameterError) as caught:
        Term(Teaching(unit(), "logits"), 8)
    assert str(caught.value) == errors.NO_TAUGHT_CLASSES
    with pytest.raises(errors.DataError) as caught:
        Term(Teaching(unit(), "logits", centres=torch.ones(4, 8)), 8, 3)
    assert str(caught.value) == errors.TEACHER_CLASSES.format(found=4, wanted=3)


# --- teachings -----------------------------------------------------------------------------------


def test_weights_are_the_published_ones_unless_given():
    assert Teaching(unit()).weight == 10_000
    assert Teaching(unit(), "similarity").weight == 3_000
    assert Teaching(unit(), "rkd", weight=2.5).weight == 2.5


def test_what_tells_teachings_apart():
    groups = ["a", "b"] * 6
    base = Teaching(unit(), groups=groups)
    again = Teaching(torch.from_numpy(unit()), groups=np.array(groups))
    assert base.about() == again.about() and base.digest() == again.digest()
    for other in (
        Teaching(unit(seed=1), groups=groups),
        Teaching(unit().astype(np.float16), groups=groups),
        Teaching(unit(), groups=groups[::-1]),
        Teaching(unit(), groups=groups, centres=torch.ones(2, 8)),
    ):
        assert other.about() == base.about() and other.digest() != base.digest()
    assert Teaching(unit(), groups=groups, settings={}, scale=3.0).about() != base.about()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"loss": "mse"},
            errors.ParameterError,
            errors.UNKNOWN_NAME.format(
                what="loss of a teaching",
                value="mse",
                choices="cosine, embedding, logits, rkd, similarity",
            ),
        ),
        (
            {"balance": "fair"},
            errors.ParameterError,
            errors.UNKNOWN_NAME.format(
                what="balance", value="fair", choices="constrained, reweighted"
            ),
        ),
        (
            {"balance": "reweighted"},
            errors.ParameterError,
            errors.NO_TAUGHT_GROUPS.format(balance="reweighted"),
        ),
        (
            {"loss": "rkd", "settings": {"temperature": 2}},
            errors.ParameterError,
            errors.UNKNOWN_NAME.format(
                what="setting of rkd", value="temperature", choices="angle, distance"
            ),
        ),
        (
            {"weight": 0.0},
            errors.ParameterError,
            errors.NOT_ABOVE_ZERO.format(what="weight", value=0.0),
        ),
        (
            {"label_weight": -1},
            errors.ParameterError,
            errors.BAD_SIZE.format(what="label_weight", least=0, value=-1),
        ),
        (
            {"keep": 1.0},
            errors.ParameterError,
            errors.BAD_SHARE.format(what="keep", value=1.0),
        ),
        (
            {"loss": "logits", "settings": {"temperature": 0}},
            errors.ParameterError,
            errors.NOT_ABOVE_ZERO.format(what="temperature", value=0),
        ),
        (
            {"balance": "constrained", "groups": ["a"] * 12, "settings": {"rate": -0.1}},
            errors.ParameterError,
            errors.BAD_SIZE.format(what="rate", least=0, value=-0.1),
        ),
        (
            {"groups": ["a"] * 5},
            errors.DataError,
            errors.TAUGHT_GROUPS.format(groups=5, rows=12),
        ),
        (
            {"centres": torch.ones(3, 4)},
            errors.DataError,
            errors.TEACHER_CENTRES.format(found=(3, 4), wanted=8),
        ),
        (
            {"wanted": unit()[:, 0]},
            errors.DataError,
            errors.NOT_TAUGHT_ROWS.format(problem="the shape (12, 8)"),
        ),
        (
            {"wanted": unit(views=3)},
            errors.DataError,
            errors.NOT_TAUGHT_ROWS.format(problem="the shape (12, 3, 8)"),
        ),
        (
            {"wanted": unit().astype(np.float64)},
            errors.DataError,
            errors.NOT_TAUGHT_ROWS.format(problem="numbers of float64"),
        ),
        (
            {"wanted": unit() * 2},
            errors.DataError,
            errors.NOT_TAUGHT_ROWS.format(problem="a row of length 2"),
        ),
        (
            {"wanted": unit() * np.nan},
            errors.DataError,
            errors.NOT_TAUGHT_ROWS.format(problem="a row of length nan"),
        ),
    ],
)
def test_what_cannot_be_taught_is_refused(options, kind, message):
    with pytest.raises(kind) as caught:
        Teaching(**{"wanted": unit(), **options})
    assert str(caught.value) == message


# --- several teachers ----------------------------------------------------------------------------


def test_each_face_learns_from_its_groups_teacher():
    groups = np.array(["a", "b"] * 6)
    teachers = {"a": unit(views=2), "b": unit(views=2, seed=1).astype(np.float16)}
    rows = PerGroup(teachers, groups, aligned=0)
    assert rows.shape == (12, 2, 8)
    found = rows[[5, 0, 3]]
    assert found.dtype == np.float32
    wanted = np.stack([teachers[groups[i]][i] for i in (5, 0, 3)])
    np.testing.assert_array_equal(found, wanted.astype(np.float32))
    assert Teaching(rows).digest() != Teaching(teachers["a"]).digest()


def test_teachers_whose_spaces_are_turned_against_each_other_are_turned_back():
    first = unit(200, views=2)
    turned = first @ rotation(8, 3).numpy().astype(np.float32)
    rows = PerGroup({"a": first, "b": turned}, ["a", "b"] * 100)
    np.testing.assert_allclose(rows[np.arange(200)], first, atol=1e-5)
    apart = PerGroup({"a": first, "b": turned}, ["a", "b"] * 100, aligned=0)
    assert abs(apart[np.arange(200)] - first).max() > 0.5


@pytest.mark.parametrize(
    ("teachers", "missing", "shapes"),
    [
        ({"a": unit()}, "b", [(12, 1, 8)]),
        ({"a": unit(), "b": unit(size=4)}, "no group", [(12, 1, 4), (12, 1, 8)]),
        ({"a": unit(11), "b": unit(11)}, "no group", [(11, 1, 8)]),
    ],
)
def test_teachers_that_do_not_fit_are_refused(teachers, missing, shapes):
    with pytest.raises(errors.DataError) as caught:
        PerGroup(teachers, ["a", "b"] * 6)
    text = errors.GROUP_TEACHERS.format(shapes=shapes, missing=missing, n=12)
    assert str(caught.value) == text
