"""Real int8 files: do they hold the network, in integers, and is it said where they cannot?"""

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from studylib import errors, models
from studylib.compress import export, quantize


def random_faces(n, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def lived_in(model, faces):
    """The network with statistics of batch normalisation that are not those of birth."""
    with torch.no_grad():
        model.train()(faces)
    return model.eval()


@pytest.fixture(scope="module")
def faces():
    return random_faces(16)


@pytest.fixture(scope="module", params=["iresnet", "mobilefacenet"])
def network(request, faces):
    settings = {"depth": (1, 1, 1, 1)} if request.param == "iresnet" else {}
    model = models.build(request.param, width=0.25, size=32, embedding=32, seed=0, **settings)
    return lived_in(model, faces)


def cosines(model_or_rows, rows):
    return F.cosine_similarity(model_or_rows, rows)


def test_both_files_give_what_the_network_gives(network, faces, tmp_path):
    with torch.no_grad():
        wanted = network(faces)
    plain = export.write(network, tmp_path / "plain.onnx", faces)
    torch.testing.assert_close(export.run(plain, faces, batch_size=5), wanted, atol=1e-4, rtol=1e-4)
    small = export.write_int8(network, tmp_path / "small.onnx", faces, keep_float=1)
    assert cosines(export.run(small, faces), wanted).mean() > 0.98
    assert not torch.equal(export.run(small, faces), wanted)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain.onnx", "small.onnx"]


def weights_of(path):
    """Weights of a file by type: {dtype: elements}, and the int8 tensors."""
    arrays = [onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    codes = [a for a in arrays if a.dtype == np.int8 and a.ndim >= 2]
    return sum(a.size for a in codes), max(np.abs(a.astype(int)).max() for a in codes), codes


def test_the_int8_file_holds_int8_weights_and_takes_bytes(network, faces, tmp_path):
    kernels = sum(
        m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    )
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).weight.numel()
    full = export.write_int8(network, tmp_path / "8.onnx", faces, reduce_range=False, keep_float=0)
    seven = export.write_int8(network, tmp_path / "7.onnx", faces, reduce_range=True, keep_float=1)
    count, largest, _ = weights_of(full)
    assert (count, largest) == (kernels, 127)
    count, largest, _ = weights_of(seven)
    assert (count, largest) == (kernels - first, 64)
    graph = onnx.load(full).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    # The embedding leaves as the dense layer made it, not rounded to 256 values.
    assert graph.output[0].name == next(n for n in graph.node if n.op_type == "Gemm").output[0]


def test_weights_are_rounded_per_channel_as_the_formula_says(tmp_path):
    conv = nn.Conv2d(3, 4, 3, bias=False)
    with torch.no_grad():
        conv.weight.mul_(torch.tensor([1.0, 10, 100, 1000]).view(-1, 1, 1, 1))

    class Pixels(nn.Module):
        def forward(self, x):
            return x.float() / 255

    model = nn.Sequential(Pixels(), conv, nn.Flatten(), nn.Linear(36, 4)).eval()
    path = tmp_path / "w.onnx"
    export.write_int8(model, path, random_faces(4, 5), reduce_range=False, keep_float=0)
    codes = next(a for a in weights_of(path)[2] if a.ndim == 4)
    grid = quantize.choose_qparams(
        *quantize.value_range(conv.weight.detach(), 0), 8, symmetric=True
    )
    wanted = quantize.quantize(conv.weight.detach(), grid).numpy().astype(int)
    assert np.abs(codes - wanted).max() <= 1  # halves may fall either way
    assert (codes == wanted).mean() > 0.95


def test_the_same_faces_give_the_same_bytes(network, faces, tmp_path):
    first = export.write_int8(network, tmp_path / "a.onnx", faces).read_bytes()
    assert export.write_int8(network, tmp_path / "a.onnx", faces).read_bytes() == first


@pytest.mark.parametrize("reduce_range", [False, True])
def test_sface_in_int8_is_sface_still(sface, orl, tmp_path, reduce_range):
    if export.saturates() and not reduce_range:
        pytest.skip("this CPU's int8 kernels overflow with 8-bit weights")
    kept, evaluated = orl.split_by_subject(0.5, 0)
    images = evaluated.images[::10]
    shown = kept.sample(24, 0).images
    path = export.write_int8(sface, tmp_path / "sface.onnx", shown, reduce_range=reduce_range)
    with torch.no_grad():
        wanted = sface(images)
        simulated = quantize.prepare(sface, "w8a8")
        quantize.calibrate(simulated, shown)
        rounded = quantize.finish(simulated)(images)
    found = export.run(path, images)
    assert cosines(found, wanted).mean() >= 0.995
    assert cosines(found, rounded).mean() >= 0.99
    assert path.stat().st_size < 0.27 * 4 * sum(p.numel() for p in sface.parameters())


def test_sums_of_small_products_are_exact_everywhere():
    """7-bit weights never overflow: twice 255 * 63 fits 16 bits."""
    assert export.pair_sum(255, 63) == 2 * 255 * 63
    assert export.pair_sum(255, -64) == -2 * 255 * 64
    assert export.pair_sum(255, 127) in (2 * 255 * 127, 2**15 - 1)
    assert export.saturates() == (export.pair_sum(255, 127) == 2**15 - 1)


def test_a_saturating_processor_gets_seven_bits(monkeypatch, faces, network, tmp_path):
    monkeypatch.setattr(export, "saturates", lambda: True)
    assert weights_of(export.write_int8(network, tmp_path / "a.onnx", faces))[1] == 64
    monkeypatch.setattr(export, "saturates", lambda: False)
    assert weights_of(export.write_int8(network, tmp_path / "a.onnx", faces))[1] == 127


def test_latency_has_a_row_for_each_setting(network, faces, tmp_path):
    path = export.write(network, tmp_path / "a.onnx", faces)
    table = export.latency({"x": path, "y": path}, faces, threads=(1,), batches=(1, 20), rounds=2,
                           repeats=3)  # fmt: skip
    assert list(table["name"]) == ["x", "y", "x", "y"]
    assert list(table["batch"]) == [1, 1, 20, 20]
    assert (table["timings"] == 6).all()
    assert (table["ms_low"] <= table["ms"]).all() and (table["ms"] <= table["ms_high"]).all()
    assert (table["ms_low"] > 0).all()
    with pytest.raises(errors.ParameterError, match="threads 0 must be at least 1"):
        export.latency({"x": path}, faces, threads=(0,))


def test_mistakes_are_told(network, faces, tmp_path):
    with pytest.raises(errors.ParameterError, match="faces must be at least 1, got 0"):
        export.write(network, tmp_path / "a.onnx", faces[:0])
    with pytest.raises(errors.ParameterError) as caught:
        export.write(quantize.prepare(network, "w8a8"), tmp_path / "a.onnx", faces)
    assert str(caught.value) == errors.EXPORT_QUANTISED
    with pytest.raises(errors.ParameterError, match="Unknown observer 'max'"):
        export.write_int8(network, tmp_path / "a.onnx", faces, observer="max")
    nowhere = tmp_path / "no" / "a.onnx"
    with pytest.raises(errors.DataError) as caught:
        export.write(network, nowhere, faces)
    assert str(caught.value) == errors.EXPORT_FAILED.format(
        path=nowhere, reason="No such file or directory"
    )
    (tmp_path / "b.onnx").write_bytes(b"no network")
    with pytest.raises(errors.DataError, match=r"b\.onnx is no ONNX file that can be run"):
        export.run(tmp_path / "b.onnx", faces)
    with pytest.raises(errors.DataError, match="faces"):  # of another size than the network's
        export.write(network, tmp_path / "a.onnx", random_faces(1, 40))
    assert [p.name for p in tmp_path.iterdir()] == ["b.onnx"]
