"""How simulated faces are photographed: pose, light, things in the way, blur, noise, compression.

Two domains. `camera` varies widely, from picture to picture. `generator` imitates pictures out of a
generative network: little variation, most of it between people, smooth skin, and artefacts that
give it away (a checkerboard as of upsampling by strided filters, irises that do not match).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.fft import dct

# Mean, standard deviation and limit (in standard deviations) in each domain. Angles in degrees,
# lengths in half heads, blur in pixels of a 48 px picture, light and noise in shares of full scale.
_VARIES = {
    "yaw": {"camera": (0, 9, 2.2), "generator": (0, 5, 2)},
    "pitch": {"camera": (0, 5, 2.2), "generator": (0, 3, 2)},
    "roll": {"camera": (0, 5, 2.2), "generator": (0, 1.5, 2)},
    "scale": {"camera": (1.0, 0.05, 2), "generator": (1.0, 0.015, 2)},
    "off_x": {"camera": (0, 0.04, 2), "generator": (0, 0.01, 2)},
    "off_y": {"camera": (0, 0.04, 2), "generator": (0, 0.01, 2)},
    "light_x": {"camera": (0, 0.40, 2), "generator": (0, 0.20, 2)},
    "light_y": {"camera": (0.35, 0.25, 2), "generator": (0.35, 0.10, 2)},
    "light": {"camera": (0.55, 0.16, 2), "generator": (0.42, 0.05, 2)},
    "exposure": {"camera": (1.0, 0.14, 2), "generator": (1.0, 0.06, 2)},
    "warmth": {"camera": (0, 0.10, 2), "generator": (0.02, 0.03, 2)},
    "gaze_x": {"camera": (0, 0.018, 2), "generator": (0, 0.006, 2)},
    "gaze_y": {"camera": (0, 0.008, 2), "generator": (0, 0.003, 2)},
    "blur": {"camera": (0.15, 0.20, 2), "generator": (0.35, 0.05, 2)},
    "noise": {"camera": (0.010, 0.012, 2), "generator": (0.004, 0.001, 2)},
    "quality": {"camera": (75, 15, 1.8), "generator": (92, 2, 2)},
    "texture": {"camera": (0.05, 0.04, 2), "generator": (0.05, 0.04, 2)},
}
# Share of a value's variance that is a person's own, the same in all pictures of theirs.
_OWN = {"camera": 0.0, "generator": 0.75}
# Share of pictures with something in the way.
_THINGS = {
    "cap": {"camera": 0.04, "generator": 0.01},
    "hand": {"camera": 0.03, "generator": 0.0},
    "cover": {"camera": 0.03, "generator": 0.0},
}
DOMAINS = ("camera", "generator")
COLOURED = ("background", "far_background", "clothes", "thing")  # things with colours of their own
_LUMINANCE_TABLE = torch.tensor(  # JPEG, ITU-T T.81 Annex K
    [
        [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)  # fmt: skip
_DCT = torch.from_numpy(dct(np.eye(8), axis=0, norm="ortho").astype(np.float32))  # (8, 8)


def draw(
    person: np.ndarray, habit: np.ndarray, domain: str, rng: np.random.Generator
) -> tuple[pd.DataFrame, torch.Tensor]:
    """Draw how each picture was taken.

    Parameters
    ----------
    person : numpy.ndarray
        Who is in the picture, (N,), codes from 0.
    habit : numpy.ndarray
        Share of each picture's person's pictures that show them with glasses, (N,).
    domain : str
        One of `DOMAINS`.
    rng : numpy.random.Generator
        Where the numbers come from.

    Returns
    -------
    tuple
        A table with a row a picture: the varying quantities as numbers; `glasses`, `cap`, `hand`
        and `cover` as truth values; `thing_x`, where the hand or cover is. And colours, float32
        (N, len(COLOURED), 3), RGB from 0 to 1.
    """
    n, own = len(person), _OWN[domain]
    mean, spread, limit = np.array([by_domain[domain] for by_domain in _VARIES.values()]).T
    theirs = rng.standard_normal((person.max() + 1, len(mean)))[person]
    drawn = np.sqrt(own) * theirs + np.sqrt(1 - own) * rng.standard_normal((n, len(mean)))
    table = pd.DataFrame(mean + spread * drawn.clip(-limit, limit), columns=list(_VARIES))
    table[["blur", "noise", "texture"]] = table[["blur", "noise", "texture"]].clip(lower=0)
    table["glasses"] = rng.random(n) < habit
    for thing, shares in _THINGS.items():
        table[thing] = rng.random(n) < shares[domain]
    table["thing_x"] = rng.uniform(-1, 1, n)
    tone = rng.uniform(0.08, 0.92, (n, len(COLOURED), 1))
    colours = (tone + 0.12 * rng.standard_normal((n, len(COLOURED), 3))).clip(0, 1)
    return table, torch.from_numpy(colours.astype(np.float32))


def plain(n: int) -> tuple[pd.DataFrame, torch.Tensor]:
    """As `draw`, for n pictures of the plainest kind: frontal, sharp, grey, nothing in the way."""
    values = dict.fromkeys(_VARIES, 0.0) | {"scale": 1.0, "light": 0.5, "light_y": 0.35}
    values |= {"exposure": 1.0, "quality": 100.0, "glasses": False}
    values |= dict.fromkeys(_THINGS, False) | {"thing_x": 0.0}
    return pd.DataFrame([values] * n), torch.full((n, len(COLOURED), 3), 0.55)


def blur(canvas: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur pictures (B, C, H, W) with a Gaussian of each picture's own sigma, in pixels (B,)."""
    reach = max(2, round(canvas.shape[-1] / 24))
    steps = torch.arange(-reach, reach + 1, device=canvas.device)
    weights = torch.exp(-0.5 * (steps / sigma.clamp(min=1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True))[:, :, None, None, None]  # (B, taps, 1, 1, 1)
    for axis in (2, 3):
        length = canvas.shape[axis]
        pad = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        wide = F.pad(canvas, pad, "replicate")
        canvas = weights[:, 0] * wide.narrow(axis, 0, length)
        for tap in range(1, len(steps)):
            canvas.addcmul_(weights[:, tap], wide.narrow(axis, tap, length))
    return canvas


def compress(canvas: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """What JPEG does to pictures (B, C, H, W) in 0..255, each at its own quality (B,), 1 to 100.

    An approximation: every channel is quantised as luminance is, without chroma subsampling.
    """
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)[:, None, None, None]
    table = _LUMINANCE_TABLE.to(canvas.device)
    step = (table * scale[..., None, None]).round().clamp(min=1)  # (B, 1, 1, 1, 8, 8)
    height, width = canvas.shape[2:]
    canvas = F.pad(canvas, (0, -width % 8, 0, -height % 8), "replicate")
    b, c, h, w = canvas.shape
    basis = _DCT.to(canvas.device)
    blocks = canvas.view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)  # (B, C, h/8, w/8, 8, 8)
    frequencies = basis @ (blocks - 128) @ basis.T
    frequencies = (frequencies / step).round() * step
    blocks = (basis.T @ frequencies @ basis) + 128
    return blocks.transpose(3, 4).reshape(b, c, h, w)[:, :, :height, :width]


def checkerboard(size: int, strength: float, device) -> torch.Tensor:
    """Alternating gain (size, size) around 1, the trace of upsampling by strided filters."""
    odd = torch.arange(size, device=device) % 2
    return 1 + strength * (2.0 * (odd[:, None] ^ odd) - 1)
