import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from studylib import errors, models
from studylib.compress import prune, quantize, weights
from tests.models.test_iresnet import TINY, faces, lively

ABOUT = {"architecture": "iresnet", "settings": TINY}
SMALL = {"width": 0.25, "size": 32, "embedding": 16}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    models.save(lively(models.build("iresnet", **TINY, seed=0)), path, ABOUT)
    return path


def changed(path, **parts):
    """The file again, with other values under the study's key of its metadata."""
    with safe_open(path, "pt") as file:
        content = json.loads(file.metadata()["studylib"])
    save_file(load_file(path), path, {"studylib": json.dumps({**content, **parts})})


def refused(path, match):
    with pytest.raises(errors.DataError) as caught:
        models.load(path)
    start, end = errors.NOT_A_NETWORK.format(path=path, problem="|").split("|")
    assert str(caught.value).startswith(start) and str(caught.value).endswith(end)
    assert match in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("iresnet", {"depth": (1, 1, 2, 1), **SMALL}),
        ("iresnet18", {**SMALL, "width": 0.125, "dropout": 0.1, "seed": 5}),
        ("mobilefacenet", SMALL),
    ],
)
def test_a_file_gives_the_network_back(tmp_path, name, settings):
    path = tmp_path / "net.safetensors"
    model = lively(models.build(name, **settings))
    about = {"architecture": name, "settings": settings, "trained_on": ["simulated"], "epochs": 3}
    models.save(model.train(), path, about)
    assert list(tmp_path.iterdir()) == [path] and model.training
    back, read = models.read(path)
    assert read == json.loads(json.dumps(about)) and not back.training
    assert torch.equal(back(faces()), model.eval()(faces()))
    assert torch.equal(models.load(str(path))(faces()), back(faces()))
    wanted = [(n, p.requires_grad) for n, p in model.named_parameters()]
    assert [(n, p.requires_grad) for n, p in back.named_parameters()] == wanted
    assert all(not m.p or m.p == model.drop.p for m in back.modules() if isinstance(m, nn.Dropout))
    first = next(m for m in back.modules() if isinstance(m, nn.Conv2d))
    assert first.weight.is_contiguous(memory_format=torch.channels_last)


def test_one_network_makes_one_file(tmp_path, saved):
    other = tmp_path / "other.safetensors"
    models.save(models.load(saved), other, ABOUT)
    assert other.read_bytes() == saved.read_bytes()


def test_a_path_is_told_from_a_name(tmp_path, saved, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(models.load("net.safetensors"), nn.Sequential)
    saved.rename(tmp_path / "net")
    assert isinstance(models.load(tmp_path / "net"), nn.Sequential)
    with pytest.raises(errors.ParameterError, match="Unknown network 'net'"):
        models.load("net")


def test_what_can_be_built():
    assert {"iresnet18", "iresnet34", "iresnet50", "iresnet100", "mobilefacenet"} < set(
        models.ARCHITECTURES
    )
    for name, what, value in [("resnet", "architecture", "resnet"), ("iresnet18", None, "depths")]:
        with pytest.raises(errors.ParameterError) as caught:
            models.build(name, **({} if what else {value: 1}))
        assert str(caught.value).startswith(
            errors.UNKNOWN_NAME.split("{choices}")[0].format(
                what=what or f"setting of {name}", value=value
            )
        )


def test_only_the_network_described_is_saved(tmp_path):
    path = tmp_path / "net.safetensors"
    model = models.build("iresnet", **TINY)
    other = {**ABOUT, "settings": {**TINY, "embedding": 8}}
    cases = [
        (model, other, "fc.weight is ('F32', [16, 256]), expected ('F32', [8, 256])"),
        (quantize.prepare(model, "w8"), ABOUT, "stem.conv.weight is missing, expected ('F32', "),
        (
            copy.deepcopy(model).half(),
            ABOUT,
            "stem.conv.weight is ('torch.float16', [8, 3, 3, 3]), expected",
        ),
    ]
    for given, about, problem in cases:
        with pytest.raises(errors.ParameterError) as caught:
            models.save(given, path, about)
        start = errors.NOT_AS_BUILT.split("{problem}")[0]
        start = start.format(name="iresnet", settings=about["settings"])
        assert str(caught.value).startswith(start + problem)
    with pytest.raises(errors.ParameterError, match=r"Unknown architecture None\. Choose one of"):
        models.save(model, path, {})
    assert list(tmp_path.iterdir()) == []


def test_written_out_weights_can_be_saved(tmp_path):
    ready = prune.prepare(models.build("mobilefacenet", **SMALL, seed=0))
    prune.update(ready, 0.5)
    path = tmp_path / "net.safetensors"
    models.save(weights.strip(ready), path, {"architecture": "mobilefacenet", "settings": SMALL})
    assert prune.sparsity(models.load(path)).equals(prune.sparsity(ready))


def test_a_failed_write_leaves_the_old_file(tmp_path, saved, monkeypatch):
    before = saved.read_bytes()

    def full(tensors, scratch, about):
        scratch.write_bytes(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr("studylib.compress.size.save_file", full)
    with pytest.raises(OSError, match="No space"):
        models.save(models.build("iresnet", **TINY), saved, ABOUT)
    assert saved.read_bytes() == before and list(tmp_path.iterdir()) == [saved]


@pytest.mark.parametrize("length", [0, 7, 300, 5_000, -1])
def test_a_file_cut_short_is_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    refused(saved, "is not a whole network")


def test_a_changed_byte_is_noticed(saved):
    whole = saved.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for where in [9, start - 300, *range(start, len(whole), len(whole) // 20)]:
        content = bytearray(whole)
        content[where] ^= 1
        saved.write_bytes(content)
        refused(saved, "is not a whole network")


def test_foreign_files_are_refused(tmp_path, saved):
    refused(tmp_path / "absent.safetensors", "No such file")
    refused(tmp_path / "folder" / "absent", "No such file")
    save_file(load_file(saved), tmp_path / "plain.safetensors")
    refused(tmp_path / "plain.safetensors", "its format is None, not studylib-network-1")
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04cos\nsystem\n.")
    refused(tmp_path / "pickle.pt", "is not a whole network")


@pytest.mark.parametrize(
    ("about", "match"),
    [
        ({**ABOUT, "architecture": "mobilefacenet"}, "setting of mobilefacenet 'depth'"),
        ({**ABOUT, "architecture": "resnet"}, "Unknown architecture 'resnet'"),
        ({**ABOUT, "settings": {**TINY, "width": 1e4}}, "stem.conv.weight is"),
        ({**ABOUT, "settings": {**TINY, "width": 1e300}}, "is not a whole network"),
        ({**ABOUT, "settings": {**TINY, "size": "32"}}, "is not a whole network"),
        ({**ABOUT, "settings": {**TINY, "depth": [10**9, 1, 1, 1]}}, "depth is 18, 34, 50"),
        ({**ABOUT, "settings": 3}, "is not a whole network"),
        ({**ABOUT, "note": "added later"}, "its content does not match its checksum"),
        ({}, "architecture"),
        (None, "is not a whole network"),
    ],
)
def test_lying_descriptions_are_refused(saved, about, match):
    """Giants among them are never built: the test would not end."""
    changed(saved, about=about)
    refused(saved, match)


def test_tensors_of_another_type_are_refused(saved):
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    save_file({key: value.half() for key, value in load_file(saved).items()}, saved, metadata)
    refused(saved, "stem.conv.weight is ('F16', [8, 3, 3, 3]), expected ('F32', [8, 3, 3, 3])")


def test_what_is_known_of_a_network(tmp_path):
    settings = {"depth": [1, 1, 1, 1], "width": 0.125, "size": 48, "embedding": 32}
    about = {"architecture": "iresnet", "settings": settings, "trained_on": "skewed", "seed": 2}
    path = tmp_path / "quick-mine" / "network.safetensors"
    path.parent.mkdir()
    models.save(models.build("iresnet", **settings, seed=0), path, about)
    assert models.describe(path, profile="quick") == {
        "network": "mine",
        "architecture": "iresnet",
        "trained_on": "skewed",
        "training_seed": 2,
        "size": 48,
    }
    assert models.describe(path)["network"] == "quick-mine"
    about = {"architecture": "mobilefacenet", "settings": {"width": 0.125}}
    models.save(models.build("mobilefacenet", width=0.125, seed=0), path, about)
    assert models.describe(path)["size"] == 112  # its default
    assert models.describe(path)["trained_on"] is None
    assert models.describe("sface") == {
        "network": "sface",
        "architecture": "sface",
        "trained_on": "as its package carries it",
        "training_seed": None,
        "size": 112,
    }
    with pytest.raises(errors.ParameterError, match="Unknown network 'sfake'"):
        models.describe("sfake")
