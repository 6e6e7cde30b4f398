"""Simulated people and their expressions as numbers: what the renderer of `simfaces` draws.

A person is a row of identity factors and a style of moving the face. A picture adds an expression,
which is a row of action units: how far each group of facial muscles moves, after the Facial Action
Coding System (Ekman and Friesen 1978). Groups are simulated too. They shift the means of factors
and styles and say nothing about people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from studylib import errors

GENDERS = ("f-like", "m-like")
AGES = ("age-1", "age-2", "age-3", "age-4", "age-5")
GROUPS = ("A", "B", "C", "D")
EXPRESSIONS = (
    "neutral", "anger", "disgust", "fear", "happy", "sadness", "surprise", "contempt",
)  # fmt: skip

# Mean and standard deviation over people. Lengths are in half heads, x to the right of the picture
# and y up from the middle of the head; strengths and tones are 0 (none, dark) to 1 (full, light).
FACTORS = {
    "skull_width": (0.735, 0.035),
    "skull_top": (0.99, 0.03),
    "jaw_length": (0.98, 0.035),
    "jaw_square": (2.15, 0.22),  # exponent of the lower outline: 2 is an ellipse
    "jaw_taper": (0.13, 0.06),
    "cheeks": (0.10, 0.05),
    "chin": (0.10, 0.04),
    "eye_x": (0.30, 0.017),
    "eye_y": (0.03, 0.02),
    "eye_width": (0.150, 0.011),
    "eye_open": (0.076, 0.011),
    "eye_tilt": (0.012, 0.018),
    "lid_fold": (0.45, 0.25),
    "iris_size": (0.074, 0.006),
    "iris_tone": (0.30, 0.14),
    "iris_blue": (0.35, 0.25),
    "brow_y": (0.245, 0.024),
    "brow_width": (0.195, 0.017),
    "brow_thick": (0.030, 0.008),
    "brow_arch": (0.028, 0.014),
    "brow_slope": (0.000, 0.018),
    "brow_density": (0.80, 0.12),
    "nose_y": (-0.30, 0.03),
    "nose_width": (0.120, 0.017),
    "nose_bridge": (0.50, 0.18),
    "nose_tip": (0.50, 0.18),
    "mouth_y": (-0.56, 0.024),
    "mouth_width": (0.255, 0.022),
    "lip_upper": (0.044, 0.011),
    "lip_lower": (0.058, 0.013),
    "lip_red": (0.45, 0.18),
    "ear_size": (0.15, 0.022),
    "ear_out": (0.055, 0.018),
    "hairline": (0.60, 0.09),
    "hair_length": (0.00, 0.55),
    "hair_volume": (0.085, 0.03),
    "hair_part": (0.00, 0.13),
    "hair_curl": (0.35, 0.30),
    "hair_tone": (0.22, 0.17),
    "hair_warm": (0.40, 0.22),
    "skin_tone": (0.60, 0.17),
    "skin_warm": (0.50, 0.22),
    "blush": (0.30, 0.18),
    "freckles": (0.10, 0.25),
    "mole_x": (0.00, 0.30),
    "mole_y": (-0.25, 0.30),
    "mole": (0.10, 0.40),
    "beard": (-0.25, 0.45),
    "moustache": (-0.30, 0.45),
    "lines": (0.25, 0.20),
    "grey": (-0.10, 0.30),
    "glasses": (0.10, 0.20),  # share of pictures with glasses
}

# Action units that the renderer knows. 14 is the dimpler, on one side only.
UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 24, 25, 26)
_BROWS, _LIDS, _NOSE, _MOUTH = (1, 2, 4), (5, 6, 7), (9, 10), (12, 14, 15, 17, 20, 24, 25, 26)

# Which units each expression moves, and how far at full intensity.
RECIPES = {
    "neutral": {},
    "anger": {4: 1.0, 5: 0.35, 7: 0.6, 17: 0.3, 24: 0.9},
    "disgust": {4: 0.45, 6: 0.2, 7: 0.5, 9: 1.0, 10: 0.9, 15: 0.3, 25: 0.3},
    "fear": {1: 1.0, 2: 0.5, 4: 0.5, 5: 0.9, 20: 0.9, 25: 0.6, 26: 0.15},
    "happy": {6: 0.8, 12: 1.0, 25: 0.5},
    "sadness": {1: 0.9, 4: 0.5, 7: 0.25, 15: 0.9, 17: 0.6},
    "surprise": {1: 0.9, 2: 1.0, 5: 0.8, 25: 0.5, 26: 0.9},
    "contempt": {7: 0.25, 12: 0.1, 14: 1.0},
}

# Shifts of factor means, in standard deviations of the factor. f-like is minus m-like.
_M_LIKE = {
    "skull_width": 0.35, "jaw_length": 0.4, "jaw_square": 0.6, "jaw_taper": -0.6, "chin": 0.4,
    "eye_open": -0.4, "brow_y": -0.5, "brow_thick": 0.7, "brow_arch": -0.5, "nose_width": 0.35,
    "lip_upper": -0.4, "lip_lower": -0.4, "lip_red": -0.6, "hair_length": 0.8, "beard": 0.9,
    "moustache": 0.8, "blush": -0.4, "hairline": 0.3,
}  # fmt: skip
# For each step of age away from the middle one.
_OLDER = {
    "skull_top": -0.15, "jaw_length": 0.35, "jaw_square": 0.2, "cheeks": -0.35, "eye_width": -0.3,
    "eye_open": -0.4, "iris_size": -0.35, "brow_y": -0.2, "brow_thick": 0.15, "nose_y": -0.35,
    "nose_width": 0.25, "mouth_y": -0.25, "lip_upper": -0.3, "ear_size": 0.3, "hairline": 0.3,
    "hair_volume": -0.2, "lines": 1.1, "grey": 1.1, "beard": 0.35, "moustache": 0.3,
    "glasses": 0.35,
}  # fmt: skip
_GROUP_LOOK = {
    "A": {"skin_tone": 0.7, "eye_tilt": -0.5, "nose_width": -0.6, "lip_lower": -0.5,
          "brow_y": 0.4, "hair_tone": 0.5, "jaw_square": 0.4, "eye_x": -0.3},
    "B": {"skin_tone": -0.9, "eye_width": 0.5, "nose_width": 0.7, "lip_lower": 0.6,
          "lip_upper": 0.6, "hair_curl": 0.6, "skull_width": -0.4, "cheeks": -0.4},
    "C": {"skin_tone": 0.4, "eye_tilt": 0.8, "lid_fold": -0.8, "nose_bridge": -0.7,
          "cheeks": 0.6, "hair_tone": -0.6, "brow_thick": -0.5, "jaw_taper": 0.6},
    "D": {"skin_tone": -0.3, "brow_thick": 0.8, "nose_y": -0.6, "nose_bridge": 0.7,
          "eye_y": 0.4, "hair_warm": 0.6, "skull_width": 0.5, "eye_open": -0.4},
}  # fmt: skip
# Groups also move their faces differently: log gains by region of the face (brows, lids, nose,
# mouth), and what the face at rest looks like. Both are means; people vary around them.
_GROUP_GAIN = {
    "A": (0.35, 0.0, 0.0, -0.45),
    "B": (-0.50, 0.0, 0.0, 0.25),
    "C": (-0.25, 0.35, 0.35, -0.25),
    "D": (0.10, -0.50, -0.50, 0.10),
}
_GROUP_REST = {
    "A": {},
    "B": {1: 0.25, 25: 0.10},
    "C": {12: 0.20, 7: 0.20},
    "D": {4: 0.30, 15: 0.15},
}
_GAIN_SPREAD, _REST_SPREAD = 0.25, 0.07
_FULL = 1.25  # recipes times this at intensity 1: plain enough at 48 px


@dataclass(frozen=True)
class People:
    """Simulated people.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a person: `subject`, `gender`, `age`, `group`.
    factors : torch.Tensor
        Identity, float32 (n, len(FACTORS)), in the units of `FACTORS`.
    gains : torch.Tensor
        How far this person moves each unit, as a factor: float32 (n, len(UNITS)).
    rest : torch.Tensor
        Where each unit stands in the resting face: float32 (n, len(UNITS)).
    """

    table: pd.DataFrame
    factors: torch.Tensor
    gains: torch.Tensor
    rest: torch.Tensor

    def __len__(self) -> int:
        return len(self.table)


def people(
    n: int, *, shares: dict[str, float] | None = None, shift: float = 1.0, seed: int
) -> People:
    """Draw simulated people.

    Parameters
    ----------
    n : int
        How many.
    shares : dict, optional
        The share of each group of `GROUPS`; they sum to 1. Equal by default. The counts are exact
        (largest remainder), and within a group genders and ages are as even as its size allows.
    shift : float
        How far apart the distributions of genders, ages and groups lie: 1 is the default, at 0 all
        three are labels without any effect on the pictures.
    seed : int
        Other seeds are other people, with other subject names.

    Returns
    -------
    People
        In random order.

    Raises
    ------
    ParameterError
        If a share names no group, is no fraction, or the shares do not sum to 1; if `shift` is
        negative or there is nobody.
    """
    errors.at_least(1, people=n)
    errors.at_least(0, shift=shift, seed=seed)
    rng = np.random.default_rng(seed)
    codes = _codes(n, shares)[rng.permutation(n)]  # (n, 3): gender, age, group
    names = [f"sim{seed}-{i:05d}" for i in range(n)]
    columns = {"gender": GENDERS, "age": AGES, "group": GROUPS}
    table = pd.DataFrame({"subject": names})
    for column, (name, values) in enumerate(columns.items()):
        table[name] = np.array(values)[codes[:, column]]

    mean, spread = np.array(list(FACTORS.values())).T
    gender, age, group = codes.T
    look = np.outer(2 * gender - 1, _row(_M_LIKE, FACTORS)) + np.outer(
        age - 2, _row(_OLDER, FACTORS)
    )
    look += np.stack([_row(_GROUP_LOOK[g], FACTORS) for g in GROUPS])[group]
    # Beyond 2.5 standard deviations from the group's mean faces stop looking like faces.
    drawn = rng.standard_normal((n, len(FACTORS))).clip(-2.5, 2.5)
    factors = mean + spread * (drawn + shift * look)

    gain, rest = _styles(group)
    gains = np.exp(_GAIN_SPREAD * rng.standard_normal(gain.shape) + shift * gain)
    rest = _REST_SPREAD * rng.standard_normal(rest.shape) + shift * rest
    as_tensor = (torch.from_numpy(a.astype(np.float32)) for a in (factors, gains, rest))
    return People(table, *as_tensor)


def _codes(n, shares):
    """Gender, age and group of n people (n, 3), as even as exact shares allow."""
    shares = dict.fromkeys(GROUPS, 1 / len(GROUPS)) if shares is None else shares
    for name, share in shares.items():
        errors.one_of("group", name, GROUPS)
        errors.fraction(**{f"The share of {name}": share})
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise errors.ParameterError(errors.BAD_SHARES.format(total=sum(shares.values())))
    wanted = n * np.array([shares.get(g, 0.0) for g in GROUPS])
    counts = np.floor(wanted + 1e-9).astype(int)
    most = np.argsort(counts - wanted, kind="stable")[: n - counts.sum()]
    counts[most] += 1
    within = np.concatenate([np.arange(count) for count in counts])
    group = np.repeat(np.arange(len(GROUPS)), counts)
    return np.stack([within % 2, within // 2 % len(AGES), group], axis=1)


def _row(values, names):
    return np.array([values.get(name, 0.0) for name in names])


def _styles(group):
    """Log gains and resting activations of the groups' means, each (n, len(UNITS))."""
    region = {u: i for i, us in enumerate((_BROWS, _LIDS, _NOSE, _MOUTH)) for u in us}
    gain = np.array([[_GROUP_GAIN[g][region[u]] for u in UNITS] for g in GROUPS])
    rest = np.stack([_row(_GROUP_REST[g], UNITS) for g in GROUPS])
    return gain[group], rest[group]


def posed(label: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """Action units of expressions by the book, before anybody's own style.

    Codes in `EXPRESSIONS` (N,) and intensities 0 to 1 (N,) give float64 (N, len(UNITS)).
    """
    recipe = np.stack([_row(RECIPES[e], UNITS) for e in EXPRESSIONS])
    return _FULL * intensity[:, None] * recipe[label]


def activations(
    people: People, person: np.ndarray, label: np.ndarray, intensity: np.ndarray, rng
) -> torch.Tensor:
    """Action units of pictures: the recipe, at an intensity, in the person's own style.

    Parameters
    ----------
    people : People
        Whose faces move.
    person, label : numpy.ndarray
        Row in `people` and code in `EXPRESSIONS` of each picture, (N,).
    intensity : numpy.ndarray
        0 (none) to 1 (full), (N,).
    rng : numpy.random.Generator
        Draws what differs between two pictures of one person and expression.

    Returns
    -------
    torch.Tensor
        float32 (N, len(UNITS)), 0 (relaxed) to about 1.5.
    """
    pose = posed(label, intensity)  # (N, U)
    vary = np.exp(0.25 * rng.standard_normal(pose.shape))
    stray = 0.07 * rng.standard_normal(pose.shape)
    moved = pose * vary * people.gains.numpy()[person]
    # A mouth may be open, or an eye narrowed, for reasons that have nothing to do with expression.
    talking = (rng.random(len(label)) < 0.15) * rng.uniform(0.1, 0.6, len(label))
    squint = (rng.random(len(label)) < 0.12) * rng.uniform(0.1, 0.6, len(label))
    moved[:, UNITS.index(25)] += talking
    moved[:, UNITS.index(7)] += squint
    return torch.from_numpy(
        (moved + stray + people.rest.numpy()[person]).clip(0, 1.6).astype(np.float32)
    )
