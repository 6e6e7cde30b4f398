"""Networks as plain torch modules: fresh ones by architecture, pretrained ones by name or file."""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path

import safetensors
import torch
from torch import nn

from studylib import align, errors
from studylib.compress.size import digest, save_tensors
from studylib.models import dlib_resnet, sface
from studylib.models.fer_cnn import fer_cnn, parameter_count
from studylib.models.iresnet import BLOCKS, iresnet
from studylib.models.mobilefacenet import mobilefacenet

__all__ = [
    "ARCHITECTURES",
    "PRETRAINED",
    "build",
    "describe",
    "fer_cnn",
    "iresnet",
    "load",
    "mobilefacenet",
    "parameter_count",
    "read",
    "save",
]

PRETRAINED = {"sface": sface.load, "dlib": dlib_resnet.load}
ARCHITECTURES = {
    **{f"iresnet{depth}": functools.partial(iresnet, depth) for depth in BLOCKS},
    "iresnet": iresnet,
    "mobilefacenet": mobilefacenet,
}
_FORMAT = "studylib-network-1"
_KEY = "studylib"  # of a file's metadata
_TYPES = {torch.float32: "F32", torch.int64: "I64"}  # all that these networks hold
# What a file that anybody may have written can bring about before it is known to be a network.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError),
    *(safetensors.SafetensorError, errors.ParameterError),
)


def build(name: str, **settings) -> nn.Sequential:
    """Return a recognition network with fresh weights, in training mode.

    Parameters
    ----------
    name : str
        One of `ARCHITECTURES`: iresnet18, iresnet34, iresnet50, iresnet100, mobilefacenet; or
        iresnet, with its depth among the settings.
    **settings
        Of `iresnet` or `mobilefacenet`: width, size, embedding, seed, ...

    Raises
    ------
    ParameterError
        An unknown name or setting, or a value that does not fit.

    Examples
    --------
    >>> build("mobilefacenet", embedding=512, seed=0).fc
    Linear(in_features=512, out_features=512, bias=False)
    """
    errors.one_of("architecture", name, ARCHITECTURES)
    for setting in settings:
        errors.one_of(f"setting of {name}", setting, _settings(name))
    return ARCHITECTURES[name](**settings)


def load(name: str | Path) -> nn.Module:
    """Return a trained network in evaluation mode.

    Parameters
    ----------
    name : str or path
        One of `PRETRAINED`, or a file from `save`: anything with a folder or a suffix in it.

    Raises
    ------
    ParameterError
        If no such network is known.
    AssetError
        If its weights cannot be fetched.
    DataError
        If the file is missing, or is no network of this study.
    """
    if _is_file(name):
        return read(name)[0]
    errors.one_of("network", name, PRETRAINED)
    return PRETRAINED[name]()


def describe(name: str | Path, *, profile: str = "") -> dict:
    """What is known of a network that `load` takes, without building it.

    Parameters
    ----------
    name : str or path
        As `load` takes it.
    profile : str
        The plan's profile, with which its runs' folders begin; left out of the network's name.

    Returns
    -------
    dict
        network (its name, or the folder that holds its file), architecture, trained_on and
        training_seed (empty where nobody noted them), size (side of the faces it takes, in pixels).

    Raises
    ------
    DataError, ParameterError
        As `load`.
    """
    if not _is_file(name):
        errors.one_of("network", name, PRETRAINED)
        return dict.fromkeys(("network", "architecture"), str(name)) | {
            "trained_on": "as its package carries it",
            "training_seed": None,
            "size": align.SIZE,
        }
    _, about = _content(Path(name))
    default = inspect.signature(ARCHITECTURES[about["architecture"]]).parameters["size"].default
    return {
        "network": Path(name).absolute().parent.name.removeprefix(f"{profile}-"),
        "architecture": about["architecture"],
        "trained_on": about.get("trained_on"),
        "training_seed": about.get("seed"),
        "size": about["settings"].get("size", default),
    }


def _is_file(name: str | Path) -> bool:
    """Whether a network's name is a path: anything with a folder or a suffix in it."""
    return Path(name).name != str(name) or bool(Path(name).suffix)


def save(model: nn.Module, path: str | Path, about: dict) -> None:
    """Write a network to a safetensors file that tells how to build it.

    Parameters
    ----------
    model : torch.nn.Module
        Plain: without masks or quantisers (`quantize.finish` takes them away, and
        `size.save_packed` keeps them).
    path : path
        Replaced only when the new file is whole.
    about : dict
        The `architecture` and its `settings`, as given to `build`; beside them anything that JSON
        can hold, such as the data it was trained on.

    Raises
    ------
    ParameterError
        If there is no such architecture, or with those settings it is another network.
    """
    path = Path(path)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    architecture, settings = about.get("architecture"), about.get("settings", {})
    wanted = _layout(_empty(architecture, settings).state_dict())
    if problem := _difference(wanted, _layout(tensors)):
        message = errors.NOT_AS_BUILT.format(name=architecture, settings=settings, problem=problem)
        raise errors.ParameterError(message)
    about = {**about, "settings": settings}
    content = {"format": _FORMAT, "about": about, "sha256": digest(tensors, about)}
    save_tensors(tensors, path, {_KEY: json.dumps(content)})


def read(path: str | Path) -> tuple[nn.Sequential, dict]:
    """Build the network that a file from `save` holds.

    Returns
    -------
    model : torch.nn.Sequential
        On the CPU, in evaluation mode, channels last in memory.
    about : dict
        As given to `save`; lists where there were tuples.

    Raises
    ------
    DataError
        If the file is missing, damaged, or not of this study.
    """
    tensors, about = _content(Path(path))
    model = _empty(about["architecture"], about["settings"])
    model.load_state_dict(tensors, assign=True)
    return model.eval().to(memory_format=torch.channels_last), about


def _content(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and description, after checking that they are whole and belong together.

    Shapes are compared before any tensor is read, and the network that they are compared with takes
    no memory, so a file that describes a giant is refused and not built.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            if content.get("format") != _FORMAT:
                raise ValueError(f"its format is {content.get('format')}, not {_FORMAT}")
            about = content["about"]
            wanted = _layout(_empty(about["architecture"], about["settings"]).state_dict())
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            found = {key: (s.get_dtype(), s.get_shape()) for key, s in slices.items()}
            if difference := _difference(wanted, found):
                raise ValueError(difference)
            tensors = {key: file.get_tensor(key) for key in slices}
        if content["sha256"] != digest(tensors, about):
            raise ValueError("its content does not match its checksum")
    except _UNREADABLE as problem:
        raise errors.DataError(errors.NOT_A_NETWORK.format(path=path, problem=problem)) from None
    return tensors, about


def _empty(architecture: str, settings: dict) -> nn.Sequential:
    """The network without memory for its values."""
    with torch.device("meta"):
        return build(architecture, **{**settings, "seed": None})


def _settings(name: str) -> list[str]:
    return list(inspect.signature(ARCHITECTURES[name]).parameters)


def _layout(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[str, list[int]]]:
    """Types, as safetensors calls them, and shapes."""
    return {key: (_TYPES.get(t.dtype, str(t.dtype)), list(t.shape)) for key, t in tensors.items()}


def _difference(wanted: dict[str, tuple], found: dict[str, tuple]) -> str | None:
    """The first tensor that is not as wanted, in words."""
    for key in [*wanted, *found]:
        if wanted.get(key) != found.get(key):
            return (
                f"{key} is {found.get(key, 'missing')}, expected {wanted.get(key, 'no such one')}"
            )
    return None
