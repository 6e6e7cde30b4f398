"""Procedural faces: simulated people, drawn and photographed, with exact labels.

Everything is computed from a seed. There are no assets, no pictures of anybody, and no licence to
ask for. A face is a stack of flat shapes with soft edges (eyes, brows, lips, hair) on a head lit as
a relief; the shapes are functions of identity factors and action units (`simfactors`), and a
camera adds pose, light, things in the way, blur, noise and compression (`simcapture`).

These are simulated faces of simulated groups: nothing found on them is a statement about people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from studylib import errors
from studylib.faces import Faces
from studylib.synthetic import simcapture, simfactors
from studylib.synthetic.simfactors import People, people

__all__ = ["People", "faces", "people", "portraits", "render"]

_CHUNK = {"cpu": 2**16, "cuda": 2**23}  # pixels drawn at once: on a CPU they stay in its cache
_FRAME = 0.80  # half the edge of a picture at scale 1, in half heads
_LUMA = torch.tensor([0.299, 0.587, 0.114])


def faces(
    n_people: int,
    per_person: int,
    *,
    size: int = 48,
    channels: int = 1,
    shares: dict[str, float] | None = None,
    shift: float = 1.0,
    domain: str = "camera",
    expressions: int = 7,
    intensity: tuple[float, float] = (0.55, 1.0),
    seed: int,
    device="cpu",
) -> Faces:
    """Simulated faces with expressions.

    Parameters
    ----------
    n_people, per_person : int
        How many people, and pictures of each. Expressions are balanced over all pictures.
    size : int
        Edge in pixels, 32 to 128.
    channels : int
        1 (grey) or 3 (RGB).
    shares, shift
        Of the groups: see `people`.
    domain : str
        `camera` (wide capture) or `generator` (narrow, smooth, with artefacts).
    expressions : int
        7, or 8 with contempt.
    intensity : tuple of float
        The weakest and the strongest expression, 0 to 1; drawn uniformly between.
    seed : int
        Other seeds are other people: subjects of two seeds never share a name.
    device : str or torch.device
        What draws. A CPU repeats bit for bit, whatever the number of threads; a GPU rounds
        otherwise.

    Returns
    -------
    Faces
        uint8 (n_people * per_person, channels, size, size) on the CPU, with the labels' `classes`.
        The table has `item`, `subject`, `gender`, `age`, `group`, `label`, `expression`,
        `intensity` (0 for neutral), `domain`, and how each picture was taken (`simcapture.draw`).

    Raises
    ------
    ParameterError
        If a number is out of its range or a name is unknown.

    Examples
    --------
    >>> two = faces(2, 7, seed=0)
    >>> two.images.shape, two.table["expression"].value_counts().unique().tolist()
    (torch.Size([14, 1, 48, 48]), [2])
    """
    errors.at_least(1, people=n_people, pictures=per_person)
    errors.one_of("domain", domain, simcapture.DOMAINS)
    for what, value, known in (
        ("channels", channels, (1, 3)),
        ("expressions", expressions, (7, 8)),
    ):
        if value not in known:
            raise errors.ParameterError(
                errors.NOT_ONE_OF.format(what=what, known=known, value=value)
            )
    if not 32 <= size <= 128:
        raise errors.ParameterError(errors.BAD_FACE_SIZE.format(value=size))
    low, high = intensity
    if not 0 <= low <= high <= 1:
        raise errors.ParameterError(errors.BAD_INTENSITY.format(value=tuple(intensity)))

    cast = people(n_people, shares=shares, shift=shift, seed=seed)
    rng = np.random.default_rng([seed, 1])  # not the stream that drew the people
    person, label = _labels(n_people, per_person, expressions, rng)
    strength = np.where(label > 0, rng.uniform(low, high, len(label)), 0.0)
    units = simfactors.activations(cast, person, label, strength, rng)
    habit = cast.factors[person, list(simfactors.FACTORS).index("glasses")].numpy()
    taken, colours = simcapture.draw(person, habit, domain, rng)
    images = render(
        cast.factors[person], units, taken, colours, size=size, channels=channels, domain=domain,
        seed=seed, device=device,
    )  # fmt: skip

    number = np.tile(np.arange(per_person), n_people)
    table = cast.table.iloc[person].reset_index(drop=True)
    table.insert(0, "item", [f"{s}-{k:02d}" for s, k in zip(table["subject"], number, strict=True)])
    classes = simfactors.EXPRESSIONS[:expressions]
    table = table.assign(label=label, expression=np.array(classes)[label], intensity=strength)
    return Faces(images, table.assign(domain=domain).join(taken), "simfaces", classes)


def portraits(
    factors: torch.Tensor, units: torch.Tensor, *, size: int = 96, channels: int = 3
) -> Faces:
    """Faces as described, row by row, frontal and with nothing in the way: to look at factors.

    Parameters
    ----------
    factors : torch.Tensor
        Identity, float32 (N, len(FACTORS)), such as a row of `People.factors`.
    units : torch.Tensor
        Action units, float32 (N, len(UNITS)), such as those of `simfactors.activations`.
    size, channels
        As in `faces`.

    Returns
    -------
    Faces
        uint8 (N, channels, size, size), without labels; items and subjects are numbered.
    """
    taken, colours = simcapture.plain(len(factors))
    images = render(
        factors, units, taken, colours, size=size, channels=channels, domain="camera", seed=0
    )
    names = [f"portrait-{i:05d}" for i in range(len(factors))]
    return Faces(images, pd.DataFrame({"item": names, "subject": names}), "simfaces")


def _labels(n_people, per_person, classes, rng):
    """Who shows what: every expression equally often, in random order within each person."""
    label = np.arange(n_people * per_person).reshape(n_people, per_person) % classes
    return np.repeat(np.arange(n_people), per_person), rng.permuted(label, axis=1).ravel()


def render(factors, units, taken, colours, *, size, channels, domain, seed, device="cpu"):
    """Draw pictures, row by row of what describes them.

    Parameters
    ----------
    factors : torch.Tensor
        Identity, float32 (N, len(FACTORS)).
    units : torch.Tensor
        Action units, float32 (N, len(UNITS)).
    taken, colours : pandas.DataFrame, torch.Tensor
        N rows, as from `simcapture.draw`.
    size, channels, domain, seed, device
        As in `faces`; the seed is that of the noise.

    Returns
    -------
    torch.Tensor
        uint8 (N, channels, size, size), on the CPU.
    """
    capture = torch.from_numpy(taken.to_numpy(np.float32))
    names = (*simfactors.FACTORS, *(f"au{u}" for u in simfactors.UNITS), *taken.columns)
    rows = torch.cat([factors, units, capture], dim=1).to(device)
    noise = np.random.default_rng([seed, 2])
    images = torch.empty(len(rows), channels, size, size, dtype=torch.uint8)
    chunk = max(1, _CHUNK[rows.device.type] // size**2)
    for start in range(0, len(rows), chunk):
        part = slice(start, start + chunk)
        p = {name: rows[part, i, None, None] for i, name in enumerate(names)}  # each (B, 1, 1)
        grain = noise.standard_normal((len(p["yaw"]), channels, size, size), dtype=np.float32)
        grain = torch.from_numpy(grain).to(device)
        canvas = _draw(p, colours[part].to(device), size, channels, domain == "generator")
        images[part] = _photograph(canvas, p, grain, domain == "generator").cpu()
    return images


def _photograph(canvas, p, grain, generated):
    """Blur, noise and compression: (B, C, S, S) in 0..1 to uint8."""
    size = canvas.shape[-1]
    canvas = simcapture.blur(canvas, p["blur"].flatten() * size / 48)
    if generated:
        canvas = canvas * simcapture.checkerboard(size, 0.02, canvas.device)
    canvas = (canvas + p["noise"][:, None] * grain).clamp_(0, 1).mul_(255)
    canvas = simcapture.compress(canvas, p["quality"].flatten())
    return canvas.round_().clamp_(0, 255).to(torch.uint8)


@dataclass
class _Plane:
    """Where each pixel lies: picture coordinates u, v and the face's own x, y, all (B, S, S)."""

    u: torch.Tensor
    v: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    ax: torch.Tensor  # |x|: what comes in pairs is drawn once
    side: torch.Tensor  # the sign of x
    sharp: torch.Tensor  # pixels in a half head, (B, 1, 1)

    def inside(self, distance):
        """How much of each pixel a shape covers, given the signed distance to its edge."""
        return (0.5 - distance * self.sharp).clamp_(0, 1)

    def stroke(self, distance, width):
        """A line of half `width` along distance 0; thinner than a pixel, it grows fainter."""
        ink = ((width - distance.abs()) * self.sharp + 0.5).clamp_(0, 1)
        return ink * (2 * width * self.sharp).clamp(max=1)


def _fade(distance):
    """A Gaussian's fall from 1, given squared distances, which are changed in place."""
    # Far out it is as good as 0, and numbers too small for float32's exponent take 6 times as long.
    return distance.clamp_(max=20).neg_().exp_()


def _spot(x, y, at_x, at_y, wide, high):
    """A soft spot: 1 at its middle, a Gaussian around it."""
    return _fade(((x - at_x) / wide).square_() + ((y - at_y) / high).square_())


def _paint(canvas, cover, colour):
    """Lay a colour (B, C, 1, 1) or picture (B, C, S, S) over the canvas where `cover` says."""
    canvas.lerp_(colour.expand_as(canvas), cover[:, None])


def _draw(p, colours, size, channels, generated):
    """The scene before the lens: (B, C, S, S), linear shades from 0 to 1."""
    at = _plane(p, size)
    tint = _tints(p, colours, channels)
    head, skull = _outline(p, at)
    canvas = _background(p, at, tint)
    _behind(canvas, p, at, tint, head)
    _paint(canvas, at.inside(head), tint["skin"] * _skin(p, at, generated)[:, None])
    _beard(canvas, p, at, tint, head)
    _mouth(canvas, p, at, tint, generated)
    _eyes(canvas, p, at, tint, generated)
    _brows(canvas, p, at, tint)
    hair = _hair(canvas, p, at, tint, skull)
    light = _light(p, at, at.inside(torch.minimum(head, skull)), hair)
    _in_front(canvas, p, at, tint, head, skull)
    return canvas.mul_(tint["light"] * light[:, None])


def _plane(p, size):
    steps = (torch.arange(size, device=p["yaw"].device) + 0.5) * (2 * _FRAME / size) - _FRAME
    row, column = -steps[:, None], steps[None, :]
    turn = torch.deg2rad(p["roll"])
    right, up = column - p["off_x"], row - p["off_y"]
    u = (torch.cos(turn) * right + torch.sin(turn) * up) / p["scale"]
    v = (torch.cos(turn) * up - torch.sin(turn) * right) / p["scale"] - 0.04
    # Turning the head moves what stands out of it: features slide over a paraboloid.
    depth = 0.75 * (1 - (u / 0.85).square() - (v / 1.15).square()).clamp_(min=0)
    x = u - torch.sin(torch.deg2rad(p["yaw"])) * depth
    y = v - torch.sin(torch.deg2rad(p["pitch"])) * depth
    sharp = size / (2 * _FRAME) * p["scale"]
    return _Plane(u, v, x, y, x.abs(), torch.sign(x), sharp)


def _tints(p, colours, channels):
    """Every colour of the scene, (B, C, 1, 1); in grey pictures its luma."""

    def between(dark, light, share):
        dark, light = (torch.tensor(c, device=share.device)[:, None, None] for c in (dark, light))
        return dark + (light - dark) * share.clamp(0, 1)[:, None]

    skin = between((0.24, 0.15, 0.11), (0.97, 0.80, 0.70), p["skin_tone"])
    warm = torch.tensor([0.06, 0.0, -0.09], device=skin.device)[:, None, None]
    skin = (skin * (1 + warm * (2 * p["skin_warm"][:, None] - 1))).clamp(0, 1)
    hair = between((0.06, 0.05, 0.05), (0.86, 0.72, 0.46), p["hair_tone"])
    hair = hair * (1 + 2 * warm * p["hair_warm"][:, None])
    grey = p["grey"].clamp(0, 0.9)[:, None]
    hair = hair + (0.72 - hair) * grey
    lips = skin * between((0.82, 0.62, 0.60), (0.88, 0.42, 0.42), p["lip_red"])
    iris = between((0.12, 0.08, 0.05), (0.42, 0.38, 0.34), p["iris_tone"])
    blue = torch.tensor([-0.10, 0.05, 0.22], device=skin.device)[:, None, None]
    iris = (iris + blue * (p["iris_blue"][:, None].clamp(0, 1) * p["iris_tone"][:, None])).clamp(
        0, 1
    )
    tints = {
        "skin": skin, "hair": hair, "brow": 0.7 * hair + 0.05, "lips": lips, "iris": iris,
        "dark": 0.10 * skin + 0.015,
        "mouth": between((0.16, 0.04, 0.05), (0.3, 0.1, 0.1), p["lip_red"]),
        "tongue": between((0.55, 0.25, 0.25), (0.6, 0.3, 0.3), p["lip_red"]),
        "teeth": between((0.86, 0.84, 0.78), (0.95, 0.93, 0.9), p["iris_blue"]),
        "white": between((0.86, 0.85, 0.84), (0.92, 0.92, 0.93), p["iris_blue"]),
        "frame": 0.35 * colours[:, 3, :, None, None],
    }  # fmt: skip
    for i, name in enumerate(simcapture.COLOURED):
        tints[name] = colours[:, i, :, None, None]
    tilt = torch.tensor([1.0, 0.0, -1.0], device=skin.device)[:, None, None]
    # Cameras expose for the face: most of what its tone would darken or burn is taken back.
    luma = (skin * _LUMA.to(skin.device)[:, None, None]).sum(1, keepdim=True)
    metered = (0.6 / luma) ** 0.6
    tints["light"] = metered * p["exposure"][:, None] * (1 + tilt * p["warmth"][:, None])
    if channels == 1:
        weights = _LUMA.to(skin.device)[:, None, None]
        tints = {name: (colour * weights).sum(1, keepdim=True) for name, colour in tints.items()}
    return tints


def _outline(p, at):
    """Signed distances (roughly) to the edges of the face and of the skull that carries hair."""
    down = (-at.v).clamp(0, 1)
    jaw = p["jaw_length"] + 0.10 * p["au26"] - 0.02 * p["au17"]
    u = at.u - 0.14 * torch.sin(torch.deg2rad(p["yaw"])) * down  # the chin stands out, and turns
    wide = p["skull_width"] * (1 - p["jaw_taper"] * down) + p["cheeks"] * 0.4 * _fade(
        ((at.v + 0.3) / 0.28).square()
    )
    power = torch.where(at.v > 0, 2.25, p["jaw_square"].clamp(min=1.75))
    high = torch.where(at.v > 0, p["skull_top"], jaw)
    across, along = (u.abs() / wide).clamp(1e-4), (at.v.abs() / high).clamp(1e-4)
    head = ((across**power + along**power) ** (1 / power) - 1) * wide
    volume = p["hair_volume"].clamp(min=0.02)
    skull = (at.u / (p["skull_width"] + volume)).square() + (
        (at.v - 0.15) / (p["skull_top"] - 0.15 + volume)
    ).square()
    skull = (skull.clamp(min=1e-4).sqrt() - 1) * p["skull_width"]
    return head, skull


def _background(p, at, tint):
    share = (0.5 + 0.45 * at.v).clamp(0, 1)[:, None]
    canvas = torch.lerp(
        tint["background"].expand(-1, -1, *at.u.shape[1:]), tint["far_background"], share
    )
    waves = torch.sin(5 * at.u + 9 * p["thing_x"]) * torch.sin(4 * at.v + 7 * p["texture"] * 20)
    return canvas + (p["texture"] * waves)[:, None]


def _behind(canvas, p, at, tint, head):
    """What the face covers: long hair, neck, clothes, ears."""
    long = (-p["hair_length"]).clamp(0, 1.4)  # below 0 hair falls beside the face
    lock = p["skull_width"] + p["hair_volume"] + 0.05 - 0.10 * at.v.clamp(-1, 0) * long
    fall = torch.maximum(at.u.abs() - lock, torch.maximum(-0.35 - 0.75 * long - at.v, at.v - 0.2))
    _paint(canvas, at.inside(fall) * (long > 0.12), 0.75 * tint["hair"])
    neck = at.u.abs() - 0.42 + 0.1 * (at.v + 1.2)
    _paint(canvas, at.inside(torch.maximum(neck, at.v + 0.5)), 0.72 * tint["skin"])
    _paint(
        canvas, at.inside(at.v + 1.08 + 0.25 * (at.u.abs() - 0.35).clamp(min=0)), tint["clothes"]
    )
    turn = 0.22 * torch.sin(torch.deg2rad(p["yaw"]))  # ears sit behind the axis of turning
    x, y = (at.u + turn).abs() - p["skull_width"] - p["ear_out"] + 0.07, at.y + 0.02
    ear = ((x / 0.085).square() + (y / p["ear_size"]).square()).sqrt()
    _paint(
        canvas,
        at.inside((ear - 1) * 0.085),
        tint["skin"] * (0.72 + 0.2 * ear.clamp(max=1))[:, None],
    )


def _skin(p, at, generated):
    """Shade of the skin (B, S, S): folds, age, marks; 1 is plain."""
    lines = p["lines"].clamp(0, 1.5)
    smile = p["au12"] + 0.7 * p["au9"] + 0.6 * p["au10"]
    # From the wing of the nose past the corner of the mouth.
    t = ((p["nose_y"] + 0.05 - at.y) / 0.36).clamp(0, 1)
    fold = at.ax - p["nose_width"] - 0.04 - (0.15 + 0.05 * p["au12"]) * t
    reach = (at.y < p["nose_y"] + 0.08) * (1 - t)
    shade = 1 - (0.10 + 0.16 * lines + 0.30 * smile).clamp(max=0.55) * reach * _fade(
        (fold / 0.035).square()
    )
    raised = (0.9 * p["au1"] + 0.6 * p["au2"] + 0.5 * lines).clamp(0, 1.3)
    brow = _spot(at.x, at.y, 0, p["brow_y"] + 0.24, 0.36, 0.10)
    shade -= 0.20 * raised * brow * (0.5 + 0.5 * torch.cos((at.y - p["brow_y"]) * 62))
    knit = (p["au4"] + 0.6 * p["au9"] + 0.25 * lines).clamp(0, 1.4)
    shade -= 0.42 * knit * _spot(at.ax, at.y, 0.05, p["brow_y"] - 0.01, 0.022, 0.10)
    wrinkle = _spot(at.x, at.y, 0, p["eye_y"] + 0.02, 0.10, 0.10)
    shade -= 0.40 * p["au9"] * wrinkle * (0.5 + 0.5 * torch.cos(at.y * 75))
    crow = (0.5 * p["au6"] + 0.4 * lines) * _spot(
        at.ax, at.y, p["eye_x"] + 0.24, p["eye_y"], 0.07, 0.10
    )
    shade -= 0.3 * crow * (0.5 + 0.5 * torch.cos((at.y - p["eye_y"]) * 70))
    shade -= (0.06 + 0.16 * lines + 0.12 * p["au6"]) * _spot(
        at.ax, at.y, p["eye_x"], p["eye_y"] - 0.13, 0.13, 0.03
    )
    shade -= 0.22 * p["au17"] * _spot(at.x, at.y, 0, p["mouth_y"] - 0.17, 0.10, 0.035)
    shade -= 0.05 * p["blush"] * _spot(at.ax, at.y, 0.40, -0.2, 0.16, 0.14)
    if not generated:
        speck = torch.sin(at.x * 83 + 4 * at.y) * torch.sin(at.y * 79 - 7 * at.x)
        area = _spot(at.ax, at.y, 0.25, -0.12, 0.3, 0.16)
        shade -= 0.30 * p["freckles"].clamp(0, 0.8) * area * (speck > 0.35)
        shade -= (
            0.7 * p["mole"].clamp(0, 1) * _spot(at.x, at.y, p["mole_x"], p["mole_y"], 0.022, 0.022)
        )
    # The nose: sides of the bridge, wings, nostrils, the shadow under the tip.
    x, tip = at.x - _out(p) * 0.20, p["nose_y"] + 0.035 * p["au9"] + 0.01 * p["au10"]
    ax = x.abs()
    shade -= 0.13 * p["nose_bridge"] * _spot(ax, at.y, 0.085, tip + 0.22, 0.035, 0.17)
    shade += 0.10 * p["nose_bridge"] * _spot(x, at.y, 0, tip + 0.18, 0.035, 0.17)
    shade += 0.08 * p["nose_tip"] * _spot(x, at.y, 0, tip + 0.03, 0.05, 0.045)
    wide = p["nose_width"] * (1 + 0.12 * p["au9"] + 0.08 * p["au12"])
    shade -= 0.28 * _spot(ax, at.y, wide, tip + 0.005, 0.022, 0.05)
    shade -= 0.22 * _spot(x, at.y, 0, tip - 0.065, 0.10, 0.028)
    shade -= 0.50 * _spot(ax, at.y, 0.5 * wide, tip - 0.035, 0.032, 0.020)
    return shade


def _out(p):
    """How far something one length out of the face moves to the side as the head turns."""
    return torch.sin(torch.deg2rad(p["yaw"]))


def _beard(canvas, p, at, tint, head):
    """Beard and moustache, where these factors are above 0."""
    grain = 0.85 + 0.15 * torch.sin(at.x * 61 + 9 * at.y) * torch.sin(at.y * 53)
    low = torch.sigmoid((p["mouth_y"] + 0.22 * at.ax / 0.3 - 0.02 - at.y) * 22)
    around = 1 - _spot(at.x, at.y, 0, p["mouth_y"], 0.26, 0.10)
    cover = at.inside(head) * low * around * grain * (1.3 * p["beard"]).clamp(0, 0.85)
    _paint(canvas, cover, 0.8 * tint["hair"])
    t = (at.x / 0.27).square()
    y = at.y - (p["mouth_y"] + 0.115 + 0.03 * p["au12"] + 0.03 * p["au10"] - 0.05 * t)
    lip = at.stroke(y, 0.045 * (1 - 0.5 * t).clamp(min=0)) * (t < 1)
    _paint(canvas, lip * grain * (1.3 * p["moustache"]).clamp(0, 0.85), 0.8 * tint["hair"])


def _mouth(canvas, p, at, tint, generated):
    stretch = 1 + 0.24 * p["au12"] + 0.22 * p["au20"] - 0.10 * p["au24"] - 0.16 * p["au26"]
    half = p["mouth_width"] * (stretch - 0.05 * p["au10"])
    x = at.x - 0.06 * _out(p) + 0.03 * p["au14"]
    t = x / half
    bow = (1 - t.square()).clamp(min=0)
    corner = 0.135 * p["au12"] - 0.115 * p["au15"] - 0.03 * p["au20"] - 0.02 * p["au10"]
    corner = corner + 0.11 * p["au14"] * torch.sigmoid(6 * t)  # one side only
    y = at.y - p["mouth_y"] - 0.03 * p["au17"] + 0.04 * p["au26"]
    line = corner * (t.square().clamp(max=1.3) - 0.35)
    up = (
        0.030 * p["au25"] + 0.055 * p["au10"] + 0.03 * p["au26"] + 0.02 * p["au12"] * p["au25"]
    ) * bow
    down = (0.045 * p["au25"] + 0.19 * p["au26"]) * bow.sqrt()
    thin = 1 - 0.62 * p["au24"].clamp(max=1.3) - 0.15 * p["au12"].clamp(max=1)
    lips = p["lip_upper"] * thin.clamp(min=0.2), p["lip_lower"] * thin.clamp(min=0.2)
    notch = 1 - 0.28 * _fade((t / 0.16).square())
    top, bottom = line + up, line - down
    within = at.inside((t.abs() - 1) * half)
    upper = torch.maximum(
        y - top - lips[0] * bow * notch, bottom - lips[1] * bow * (1.1 + 0.2 * down) - y
    )
    _paint(canvas, at.inside(upper) * within, tint["lips"])
    shadow = _spot(x, y, 0, bottom - lips[1] - 0.05, 0.6 * half, 0.03)
    _paint(canvas, 0.25 * shadow, tint["dark"])
    hole = at.inside(torch.maximum(y - top, bottom - y)) * within
    open_ = ((up + down) * at.sharp).clamp(max=1)  # below a pixel, a gap fades into the line
    _paint(canvas, hole * open_, tint["mouth"])
    _paint(canvas, hole * open_ * _spot(x, y, 0, bottom, 0.6 * half, 0.07), 0.8 * tint["tongue"])
    teeth = at.inside(torch.maximum(top - 0.075 - y, y - top + 0.004)) * hole * open_
    rows = 1.0 if generated else 1 - 0.10 * (torch.cos(x * 85) > 0.75)
    _paint(canvas, teeth * 0.92 * rows, tint["teeth"])
    seam = at.stroke(y - line, 0.014) * at.inside((t.abs() - 1.08) * half) * (1 - open_)
    _paint(canvas, 0.8 * seam, tint["dark"])
    pull = p["au12"] + 0.6 * p["au15"] + 0.5 * p["au20"] + 0.9 * p["au14"] * (x > 0)
    corners = _spot(t.abs() * half, y, half * 1.05, corner * 0.65, 0.03, 0.035)
    _paint(canvas, (0.22 + 0.3 * pull).clamp(max=0.7) * corners, tint["dark"])


def _eyes(canvas, p, at, tint, generated):
    t = (at.ax - p["eye_x"]) / p["eye_width"]
    y = at.y - p["eye_y"] - p["eye_tilt"] * t
    bow = (1 - t.square()).clamp(min=0)
    narrow = (1 - 0.42 * p["au7"] - 0.16 * p["au6"] - 0.15 * p["au12"] - 0.2 * p["au9"]).clamp(
        min=0.3
    )
    top = (p["eye_open"] * (1 + 0.52 * p["au5"]) * narrow) * bow
    raised = 0.35 * p["au7"] + 0.45 * p["au6"] + 0.1 * p["au12"] - 0.15 * p["au5"]
    bottom = -0.052 * (1 - raised).clamp(min=0.15) * bow
    within = at.inside((t.abs() - 1) * p["eye_width"])
    _paint(
        canvas,
        0.35 * _spot(at.ax, at.y, p["eye_x"] - 0.02, p["eye_y"] + 0.11, 0.17, 0.05),
        0.62 * tint["skin"],
    )
    fold = at.stroke(y - top - 0.045 + 0.02 * p["au5"], 0.009) * within
    _paint(canvas, fold * p["lid_fold"].clamp(0, 0.8), 0.5 * tint["skin"])
    ball = at.inside(torch.maximum(y - top, bottom - y)) * within
    _paint(canvas, ball, tint["white"])
    odd = 1 - 0.14 * (at.side > 0) if generated else 1.0  # irises of two sizes give it away
    x = (at.ax - p["eye_x"] - p["gaze_x"] * at.side - 0.05 * _out(p) * at.side).square()
    radius = (x + (at.y - p["eye_y"] - 0.012 - p["gaze_y"]).square()).sqrt_()
    _paint(canvas, at.inside(radius - p["iris_size"] * odd) * ball, tint["iris"])
    _paint(canvas, at.inside(radius - 0.45 * p["iris_size"]) * ball, 0.2 * tint["dark"])
    glint = _spot(at.ax, at.y, p["eye_x"] + 0.03 * at.side, p["eye_y"] + 0.04, 0.018, 0.018)
    _paint(canvas, 0.9 * glint * ball, tint["white"])
    lash = at.stroke(y - top - 0.006, 0.016) * within
    _paint(canvas, 0.9 * lash, tint["dark"])
    _paint(canvas, 0.35 * at.stroke(y - bottom, 0.009) * within, tint["dark"])


def _brows(canvas, p, at, tint):
    t = (at.ax - p["eye_x"] - 0.01 + 0.03 * p["au4"]) / p["brow_width"]
    inner = ((1 - t) / 2).clamp(0, 1)
    move = (0.115 * p["au1"] - 0.095 * p["au4"] - 0.04 * p["au9"]) * inner.square()
    move = move + (0.10 * p["au2"] - 0.03 * p["au4"]) * (1 - inner.square()) - 0.015 * p["au7"]
    arch = p["brow_arch"] * (1 - t.square()) + p["brow_slope"] * t - 0.02 * p["au6"]
    thick = p["brow_thick"].clamp(min=0.012) * (1 - 0.55 * (1 - inner).square())
    cover = at.stroke(at.y - p["brow_y"] - move - arch, thick)
    cover = cover * at.inside((t.abs() - 1) * p["brow_width"])
    _paint(canvas, cover * p["brow_density"].clamp(0.35, 0.95), tint["brow"])


def _hair(canvas, p, at, tint, skull):
    """Hair in front: the skull outside an opening for the face. Returns where it is (B, S, S)."""
    side = p["skull_width"] * (0.93 - 0.05 * p["hair_length"].clamp(-1, 1))
    top = (
        p["hairline"]
        + p["hair_part"] * at.x * 1.4
        + 0.02 * torch.sin(at.x * 19 + 5 * p["hair_part"])
    )
    # An arch: as wide as the face below, round above.
    rise = ((at.y - 0.15) / (top - 0.15).clamp(min=0.1)).clamp(min=0)
    opening = ((at.ax / side).square() + rise.square()).clamp(min=1e-4).sqrt() - 1
    low = -0.12 - 0.5 * (-p["hair_length"]).clamp(-0.4, 1.6)  # how far it comes down the sides
    wave = p["hair_curl"].clamp(0, 1) * 0.035 * torch.sin(at.u * 21) * torch.sin(at.v * 23)
    edge = torch.maximum(torch.maximum(skull + wave, -opening * 0.5), low - at.v)
    cover = at.inside(edge) * ((0.98 - p["hairline"]) * 12).clamp(0, 1)
    strands = torch.sin(at.u * (38 + 60 * p["hair_part"]) + 9 * at.v * at.u + 6 * wave * 25)
    shine = 0.88 + 0.14 * strands + 0.25 * _spot(at.u, at.v, 0.1, 0.85, 0.4, 0.10)
    _paint(canvas, cover, tint["hair"] * shine[:, None])
    return cover


def _light(p, at, head, hair):
    """Brightness of each pixel (B, S, S): the head is lit as a relief, the rest evenly."""
    lx, ly = p["light_x"], p["light_y"]
    length = (1 + lx.square() + ly.square()).sqrt()
    nx, ny = 0.95 * at.u / p["skull_width"], 0.75 * at.v / p["skull_top"]
    toward = (1 - nx.square() - ny.square()).clamp(min=0.04).sqrt() + lx * nx + ly * ny
    lx_side = lx * at.side
    cheek = 0.05 + 0.05 * p["au6"] + 0.06 * p["au12"]
    for x, y, wide, high, relief in (
        (p["eye_x"], p["eye_y"] + 0.02, 0.19, 0.13, -0.05),  # socket
        (0.38, -0.22 + 0.05 * p["au6"], 0.18, 0.17, cheek),
        (0.0, p["brow_y"] + 0.05, 0.5, 0.09, 0.02),
        (0.0, p["nose_y"] + 0.02, 0.09, 0.16, 0.05),
        (0.0, p["mouth_y"] - 0.30 - 0.1 * p["au26"], 0.15, 0.09, 0.3 * p["chin"]),
    ):
        dx, dy = (at.ax - x) / wide, (at.y - y) / high
        bump = 2 * relief * _fade(dx.square() + dy.square())
        toward += bump * (dx * (lx_side / wide) + dy * (ly / high))
    lit = 1 - p["light"] + p["light"] * 1.25 * (toward / length).clamp_(min=0)
    return 1 + (lit - 1) * torch.maximum(head, hair)


def _in_front(canvas, p, at, tint, head, skull):
    """Glasses, cap, hand, and something held before the face, where there are any."""
    x, y = at.ax - p["eye_x"] - 0.01, at.y - p["eye_y"] + 0.01
    lens = ((x / 0.20) ** 4 + (y / 0.155) ** 4).clamp(min=1e-6) ** 0.25
    frame = at.stroke((lens - 1) * 0.17, 0.017)
    bridge = (
        at.stroke(y - 0.03, 0.014) * ((at.ax < 0.11) | (at.ax > p["eye_x"] + 0.2)) * at.inside(head)
    )
    _paint(canvas, p["glasses"] * torch.maximum(frame, bridge), tint["frame"])
    dome = torch.maximum(skull - 0.04, 0.50 - 0.12 * at.u.square() - at.y)
    _paint(canvas, p["cap"] * at.inside(dome), tint["thing"])
    brim = (at.x / 0.72).square() + ((at.y - 0.47) / 0.075).square()
    _paint(canvas, p["cap"] * at.inside((brim.sqrt() - 1) * 0.075), 0.55 * tint["thing"])
    # A hand at the cheek or chin: a palm below, four fingers up.
    across = at.u - 0.55 * p["thing_x"] - 0.1 * (at.v + 0.6) * p["thing_x"]
    finger = torch.remainder(across + 0.24, 0.12) - 0.06
    tall = at.stroke(finger, 0.052) * at.inside(across.abs() - 0.24)
    tall = tall * at.inside(at.v + 0.42 + across.square() * 2.5)
    palm = at.inside(((across / 0.27).square() + ((at.v + 1.05) / 0.32).square()).sqrt() - 1)
    shade = (0.92 - 6 * finger.square())[:, None]
    _paint(canvas, p["hand"] * torch.maximum(tall, palm), tint["skin"] * shade)
    thing = torch.maximum((at.u - 0.75 * p["thing_x"]).abs() - 0.22, (at.v + 0.35).abs() - 0.42)
    _paint(canvas, p["cover"] * at.inside(thing), tint["thing"])
