"""Finding a face's five landmarks and warping it to the 112 x 112 frame that networks expect.

Detector: YuNet (Wu, Peng and Yu 2023), run by ONNX Runtime. Frame: the five-point template that
ArcFace-style networks are trained with (InsightFace), reached by a similarity transform.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from itertools import islice

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F

from studylib import assets, errors
from studylib.faces import Faces, Photos

SIZE = 112
# Left eye, right eye, nose tip, left and right mouth corner as the viewer sees them; (x, y).
TEMPLATE = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)
STRIDES = (8, 16, 32)
DETECTOR_SIZE = 320  # px; the detector's own training range covers faces from 10 to 300 px
MIN_SCORE = 0.6
MOST_MISSED = 0.05  # share of pictures without a face beyond which a set is refused, but for one


def align(photos: Photos, batch_size: int = 32) -> tuple[Faces, list[str]]:
    """Detect and warp the best face of every picture.

    Parameters
    ----------
    photos : Photos
        Pictures of any size.
    batch_size : int
        Pictures held in memory at a time.

    Returns
    -------
    faces : Faces
        uint8 (M, 3, 112, 112); table columns as in `photos`, without `path`.
    missed : list of str
        The items in which no face was found (failure to enrol); they are not in `faces`.

    Raises
    ------
    DataError
        If more than 5 % of the pictures (and more than one) show no face, or none does, or a
        picture cannot be read.
    """
    pictures = (photos.open(i) for i in range(len(photos)))
    warped, found = align_pictures(pictures, batch_size)
    missed = photos.table["item"][~found].tolist()
    if len(missed) > max(1, MOST_MISSED * len(photos)) or len(missed) == len(photos):
        raise errors.DataError(
            errors.NO_FACE.format(
                count=len(missed),
                total=len(photos),
                name=photos.name,
                example=missed[0],
                allowed=MOST_MISSED,
            )
        )
    table = photos.table[found].drop(columns="path").reset_index(drop=True)
    return Faces(warped, table, photos.name), missed


def align_pictures(
    pictures: Iterable[np.ndarray], batch_size: int = 32
) -> tuple[torch.Tensor, np.ndarray]:
    """Detect and warp the best face of each picture of a stream.

    Parameters
    ----------
    pictures : iterable of numpy.ndarray
        uint8 (H, W, 3), RGB; sizes may differ.

    Returns
    -------
    warped : torch.Tensor
        uint8 (M, 3, 112, 112), the M faces found, in order.
    found : numpy.ndarray
        bool (N,), true where a face was found; M = found.sum().
    """
    warped, found = [torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8)], []
    stream = iter(pictures)
    while batch := list(islice(stream, batch_size)):
        points, scores = landmarks(batch)
        for picture, five, score in zip(batch, points, scores, strict=True):
            found.append(score >= MIN_SCORE)
            if found[-1]:
                warped.append(warp(picture, five)[None])
    return torch.cat(warped), np.array(found, dtype=bool)


def landmarks(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Five landmarks of the most certain face in each picture.

    Parameters
    ----------
    pictures : list of numpy.ndarray
        uint8 (H, W, 3), RGB.

    Returns
    -------
    points : numpy.ndarray
        float64 (N, 5, 2), x and y in pixels of the given picture.
    scores : numpy.ndarray
        float64 (N,), the detector's certainty in [0, 1]; below 0.6 counts as no face.
    """
    framed, scales = zip(*map(_framed, pictures), strict=True)
    outputs = _detector().run(None, {"input": np.stack(framed)})
    names = [o.name for o in _detector().get_outputs()]
    points, scores = _best(dict(zip(names, outputs, strict=True)), len(pictures))
    return points / np.array(scales)[:, None, None], scores


def _framed(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Scale a picture into the detector's square: float32 (3, S, S), BGR, and the scale used."""
    height, width = picture.shape[:2]
    scale = DETECTOR_SIZE / max(height, width)
    image = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    image = F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
    square = np.zeros((3, DETECTOR_SIZE, DETECTOR_SIZE), np.float32)
    square[:, : size[0], : size[1]] = image[0].numpy()
    return square, scale


def _best(outputs: dict[str, np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode the anchor grid and keep each picture's most certain face."""
    scores, points = [], []
    for stride in STRIDES:
        side = DETECTOR_SIZE // stride
        # A cell's certainty is the geometric mean of "face" and "centred here".
        face, centred = (outputs[f"{k}_{stride}"].reshape(n, -1) for k in ("cls", "obj"))
        scores.append(np.sqrt(face * centred))
        rows, columns = np.divmod(np.arange(side * side), side)
        cells = np.stack([columns, rows], -1)[None, :, None]  # (1, cells, 1, xy)
        points.append((outputs[f"kps_{stride}"].reshape(n, -1, 5, 2) + cells) * stride)
    scores, points = np.concatenate(scores, 1), np.concatenate(points, 1)
    best = scores.argmax(1)
    each = np.arange(n)
    return points[each, best].astype(np.float64), scores[each, best].astype(np.float64)


@functools.cache
def _detector() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        assets.float_onnx("yunet"), options, providers=["CPUExecutionProvider"]
    )


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity transform (rotation, scale, shift; no mirroring).

    With points as complex numbers a similarity is z -> a z + b, so its least-squares fit is one
    complex regression; the result equals Umeyama's (1991) solution restricted to rotations.

    Parameters
    ----------
    source, target : numpy.ndarray
        float (K, 2), corresponding points, x and y.

    Returns
    -------
    numpy.ndarray
        float64 (2, 3) matrix M with target ~ M @ (x, y, 1).
    """
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    centred = z - z.mean()
    a = np.vdot(centred, w - w.mean()) / np.vdot(centred, centred)
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def warp(picture: np.ndarray, points: np.ndarray) -> torch.Tensor:
    """Warp one face to the template.

    Parameters
    ----------
    picture : numpy.ndarray
        uint8 (H, W, 3).
    points : numpy.ndarray
        float (5, 2), landmarks in pixels.

    Returns
    -------
    torch.Tensor
        uint8 (3, 112, 112); outside the picture is black.
    """
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    matrix = similarity(TEMPLATE, points)  # from a template pixel to a picture pixel
    shrink = int(np.hypot(matrix[0, 0], matrix[1, 0]))
    if shrink > 1:  # average first, or a large picture would alias
        image = F.avg_pool2d(image, shrink, ceil_mode=True, count_include_pad=False)
        matrix = matrix / shrink
        matrix[:, 2] += (1 / shrink - 1) / 2  # pixel centres move with the grid
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    grid = np.stack([x, y, np.ones_like(x)], -1) @ matrix.T  # (112, 112, xy)
    extent = np.array([image.shape[3], image.shape[2]])
    grid = torch.from_numpy((2 * grid + 1) / extent - 1).float()[None]
    sampled = F.grid_sample(image, grid, mode="bilinear", align_corners=False)
    return sampled[0].round().clamp(0, 255).to(torch.uint8)
