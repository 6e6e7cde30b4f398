"""Finding faces: warped by five landmarks for recognition, or cut out by their box for expressions.

Detector: YuNet (Wu, Peng and Yu 2023), run by ONNX Runtime. Frame of the warp: the five-point
template that ArcFace-style networks are trained with (InsightFace), reached by a similarity
transform.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from PIL import Image

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
MARGIN = 0.1  # share of a box's side added on every side of it before a face is cut out
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
    return _found(photos, warped, found)


def _found(photos: Photos, images: torch.Tensor, found: np.ndarray) -> tuple[Faces, list[str]]:
    """Join the faces with their rows, and list the items without one, if those are few."""
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
    return Faces(images, table, photos.name, photos.classes), missed


def crop(
    photos: Photos, size: int, *, grey: bool = True, batch_size: int = 32
) -> tuple[Faces, list[str]]:
    """Detect the best face of every picture and cut it out, without turning it.

    The cut is a square around the detector's box: its longer side, enlarged by 10 % on every side
    as Stoychev and Gunes (2022) did, who took their boxes from dlib. What lies outside the picture
    repeats its edge.

    Parameters
    ----------
    photos : Photos
        Pictures of any size.
    size : int
        Height and width of the faces, in pixels.
    grey : bool
        One channel instead of RGB.
    batch_size : int
        Pictures held in memory at a time.

    Returns
    -------
    faces : Faces
        uint8 (M, 1 or 3, size, size); table columns as in `photos`, without `path`.
    missed : list of str
        The items in which no face was found; they are not in `faces`.

    Raises
    ------
    DataError
        As `align`.
    """
    faces, found = [], []
    with ThreadPoolExecutor() as readers:
        for start in range(0, len(photos), batch_size):
            batch = range(start, min(start + batch_size, len(photos)))
            pictures = list(readers.map(photos.open, batch))
            boxes, _, scores = _detect(pictures)
            for picture, box, score in zip(pictures, boxes, scores, strict=True):
                found.append(score >= MIN_SCORE)
                if found[-1]:
                    faces.append(resize(*_square(picture, box), size=size, grey=grey))
    images = torch.stack(faces) if faces else torch.empty(0, dtype=torch.uint8)
    return _found(photos, images, np.array(found, dtype=bool))


def resize_all(photos: Photos, size: int, *, grey: bool = True) -> Faces:
    """Resize pictures that are faces already: uint8 (N, 1 or 3, size, size), all in memory.

    Raises
    ------
    DataError
        If a picture cannot be read.
    """

    def one(index: int) -> torch.Tensor:
        return resize(photos.open(index), size=size, grey=grey)

    with ThreadPoolExecutor() as readers:
        images = torch.stack(list(readers.map(one, range(len(photos)))))
    return Faces(images, photos.table.drop(columns="path"), photos.name, photos.classes)


def resize(
    picture: np.ndarray, box: tuple[int, ...] | None = None, *, size: int, grey: bool
) -> torch.Tensor:
    """Resize a picture, or a part of it, with antialiasing.

    Parameters
    ----------
    picture : numpy.ndarray
        uint8 (H, W, 3), RGB.
    box : tuple of int, optional
        left, top, right and bottom of the part, in pixels of the picture; all of it by default.
    size : int
        Height and width of the result; other shapes are stretched to a square.
    grey : bool
        One channel, by the weights of ITU-R BT.601, instead of three.

    Returns
    -------
    torch.Tensor
        uint8 (1 or 3, size, size).
    """
    image = Image.fromarray(picture)
    if grey:
        image = image.convert("L")
    pixels = np.array(image.resize((size, size), Image.Resampling.BILINEAR, box))
    return torch.from_numpy(pixels.reshape(size, size, -1)).permute(2, 0, 1)  # (C, S, S)


def resized(faces: Faces, size: int) -> Faces:
    """Faces at another size: uint8 (N, 3, size, size), by `resize`; as they are if they have it."""
    return dataclasses.replace(faces, images=resized_batch(faces.images, size))


def resized_batch(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images uint8 (N, 3, H, W) at another size, (N, 3, size, size), as `resized` does it."""
    if images.shape[-1] == size:
        return images
    pictures = images.permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
    return torch.stack([resize(picture, size=size, grey=False) for picture in pictures])


def _square(picture: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Enlarge a box to a square with a margin, and the picture where the square leaves it."""
    centre, side = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() * (1 + 2 * MARGIN)
    # Whole pixels: what is left of a detector's rounding by batch does not reach the face.
    left, top = (int(v) for v in np.rint(centre - side / 2))
    right, bottom = left + max(1, round(side)), top + max(1, round(side))
    height, width = picture.shape[:2]
    out = max(0, -left, -top, right - width, bottom - height)
    if out:
        picture = np.pad(picture, ((out, out), (out, out), (0, 0)), mode="edge")
    return picture, (left + out, top + out, right + out, bottom + out)


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
    _, points, scores = _detect(pictures)
    return points, scores


def _detect(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find each picture's most certain face: its box (N, 4) as corners, points and score."""
    framed, scales = zip(*map(_framed, pictures), strict=True)
    outputs = _detector().run(None, {"input": np.stack(framed)})
    names = [o.name for o in _detector().get_outputs()]
    boxes, points, scores = _best(dict(zip(names, outputs, strict=True)), len(pictures))
    scales = np.array(scales)
    return boxes / scales[:, None], points / scales[:, None, None], scores


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


def _best(outputs: dict[str, np.ndarray], n: int) -> tuple[np.ndarray, ...]:
    """Decode the anchor grid and keep each picture's most certain face."""
    scores, points, boxes = [], [], []
    for stride in STRIDES:
        side = DETECTOR_SIZE // stride
        # A cell's certainty is the geometric mean of "face" and "centred here".
        face, centred = (outputs[f"{k}_{stride}"].reshape(n, -1) for k in ("cls", "obj"))
        scores.append(np.sqrt(face * centred))
        rows, columns = np.divmod(np.arange(side * side), side)
        cells = np.stack([columns, rows], -1)[None, :, None]  # (1, cells, 1, xy)
        points.append((outputs[f"kps_{stride}"].reshape(n, -1, 5, 2) + cells) * stride)
        # A box is the shift of its centre and the logarithm of its sides, in cells.
        box = outputs[f"bbox_{stride}"].reshape(n, -1, 4)
        centre, half = box[..., :2] + cells[:, :, 0], np.exp(box[..., 2:]) / 2
        boxes.append(np.concatenate([centre - half, centre + half], -1) * stride)
    best, each = np.concatenate(scores, 1).argmax(1), np.arange(n)
    found = (np.concatenate(values, 1)[each, best] for values in (boxes, points, scores))
    return tuple(values.astype(np.float64) for values in found)


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
