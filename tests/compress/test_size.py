import io
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from torch import nn

from studylib import errors, models
from studylib.compress import cluster, prune, quantize, size, weights
from studylib.models.fer_cnn import fer_cnn
from tests.compress.test_prune import chain
from tests.compress.test_quantize import Tiny, images, normal, tiny  # noqa: F401 - fixtures


def bits_of(model):
    """A network's values as whole numbers, so that -0.0 is not 0.0 and NaN is itself."""
    state = quantize.finish(model).state_dict()
    return {
        key: (v.contiguous().view(torch.int32) if v.is_floating_point() else v).tolist()
        for key, v in state.items()
    }


def linear(weight):
    """A network that is one matrix."""
    model = nn.Sequential(nn.Linear(*weight.shape[::-1], bias=False)).requires_grad_(False)
    model[0].weight.copy_(weight)
    return model


def pruned(model, sparsity=0.5):
    ready = prune.prepare(model)
    prune.update(ready, sparsity)
    return ready


def stored(model, path):
    """The parts in which a file holds each of a network's tensors, and their types."""
    size.save_packed(model, path)
    return {key: str(value.dtype).split(".")[1] for key, value in load_file(path).items()}


@settings(max_examples=50)
@given(st.integers(2, 8), st.integers(0, 200), st.integers(0, 1000))
def test_packing_round_trip_without_gaps(bits, n, seed):
    codes = torch.randint(0, 2**bits, (n,), generator=torch.Generator().manual_seed(seed))
    packed = size.pack_bits(codes, bits)
    assert len(packed) == -(-n * bits // 8)
    assert torch.equal(size.unpack_bits(packed, bits, n).long(), codes)


@pytest.mark.parametrize("precision", ["fp32", "w8a8", "w5a6", "w3", "w2a2"])
def test_a_packed_file_gives_the_same_outputs(tiny, images, tmp_path, precision):  # noqa: F811
    ready = quantize.prepare(tiny, precision)
    quantize.calibrate(ready, images)
    path = tmp_path / "net.safetensors"
    written = size.save_packed(ready, path)
    assert written == path.stat().st_size and list(tmp_path.iterdir()) == [path]
    torch.manual_seed(1)
    other = quantize.prepare(Tiny().eval(), precision)  # other weights, to be replaced
    assert torch.equal(size.load_packed(path, other)(images), quantize.finish(ready)(images))


SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-45, 65504.0, 65505.0, 1e-8]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([(1, 1), (1, 700), (6, 300), (40, 9), (3, 2, 5, 5)]),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    st.sampled_from([0, 1, 2, 16, 255, 256, 257]),
    st.booleans(),
    st.sampled_from([None, "w2", "w5", "w8", "fp16", "dynamic"]),
)
def test_every_file_gives_back_every_bit(
    tmp_path_factory, seed, shape, zeros, distinct, special, precision
):
    """Over sparse, clustered, quantised, halved and odd values, and all of their mixtures."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype(np.float32)
    if distinct:
        values = rng.choice(rng.normal(size=distinct).astype(np.float32), shape)
    values[rng.random(shape) < zeros] = 0
    if special and precision is None:
        values.flat[: len(SPECIAL)] = SPECIAL[: values.size]
    layer = nn.Linear(*shape[::-1]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], 5)
    layer.weight.data = torch.from_numpy(values)
    model = nn.Sequential(layer)
    other = nn.Sequential(type(layer)(*(shape[::-1] if len(shape) == 2 else (2, 3, 5))))
    if precision == "dynamic":
        model = quantize.dynamic_range(model)
    elif precision:
        model = quantize.prepare(model, precision, symmetric=seed % 2 == 0)
    path = tmp_path_factory.mktemp("packed") / "net.safetensors"
    assert size.save_packed(model, path) <= values.nbytes * (1 if precision is None else 2) + 1200
    assert bits_of(size.load_packed(path, other)) == bits_of(model)


def test_each_kind_of_weight_gets_its_encoding(tmp_path):
    path = tmp_path / "net.safetensors"
    weight = normal(0, 64, 200)
    n, model = weight.numel(), linear(weight)
    half, few = weight.half().float(), weight.sign() * ((weight.abs() / 2).round() + 1)
    channels = torch.rand(64, 1) + 0.5
    dense = quantize.prepare(linear(few * channels), "w8", symmetric=True)  # few codes a channel
    cases = {
        "plain": (model, {"": "float32"}, 4 * n),
        "half": (linear(half), {"": "float16"}, 2 * n),
        "sparse": (pruned(model), {".mask": "uint8", ".words": "float32"}, n / 8 + 2 * n),
        "sparse half": (
            quantize.half(weights.strip(pruned(model))),
            {".mask": "uint8", ".words": "float16"},
            n / 8 + n,
        ),
        "codebook": (
            cluster.prepare(model, 16),
            {".table": "float32", ".words": "uint8"},
            n / 2 + 64,
        ),
        "sparse codebook": (
            cluster.prepare(weights.strip(pruned(model, 0.8)), 16, keep_zeros=True),
            {".mask": "uint8", ".table": "float32", ".words": "uint8"},
            n / 8 + 0.2 * n / 2 + 60,
        ),
        "codes": (quantize.prepare(model, "w5"), {".words": "uint8"}, n * 5 / 8 + 64 * 8),
        "sparse codes": (
            quantize.prepare(weights.strip(pruned(model)), "w8"),
            {".mask": "uint8", ".words": "uint8"},
            n / 8 + n / 2 + 64 * 8,
        ),
        "codebooks of codes": (
            dense,
            {".table": "uint8", ".words": "uint8"},
            n * 4 / 8 + 64 * 8 + 64 * max(len(row.unique()) for row in few),
        ),
        "nothing": (linear(torch.zeros(64, 200)), {".mask": "uint8", ".words": "float16"}, n / 8),
    }
    for name, (made, parts, nbytes) in cases.items():
        found = stored(made, path)
        grid = {".scale": "float32", ".zero_point": "float32"} if "codes" in name else {}
        assert found == {f"0.weight{part}": kind for part, kind in (parts | grid).items()}, name
        content = sum(value.nbytes for value in load_file(path).values())
        assert content == pytest.approx(nbytes, rel=0.02), name
        assert bits_of(size.load_packed(path, model)) == bits_of(made), name


def test_masks_and_codebooks_are_stored_as_the_plain_network_is(tmp_path):
    """And loaded into a plain one: no preparation is needed."""
    for ready in (pruned(chain()), cluster.prepare(chain(), 4)):
        files = [tmp_path / "prepared", tmp_path / "plain"]
        for path, model in zip(files, (ready, weights.strip(ready)), strict=True):
            size.save_packed(model, path)
        assert files[0].read_bytes() == files[1].read_bytes()
        x = normal(0, 4, 1, 8, 8)
        assert torch.equal(size.load_packed(files[0], chain(1))(x), quantize.finish(ready)(x))
        assert size.zip_bytes(ready) == size.zip_bytes(weights.strip(ready))


def test_exact_counts_survive_a_file(tmp_path):
    """Zeros of pruned layers and values of clustered ones, through packing and loading."""
    path = tmp_path / "net.safetensors"
    ready = pruned(chain(), 0.7)
    size.save_packed(ready, path)
    back = size.load_packed(path, chain(1))
    assert prune.sparsity(back).equals(prune.sparsity(ready))
    shared = cluster.prepare(weights.strip(ready), 8, keep_zeros=True)
    size.save_packed(shared, path)
    back = size.load_packed(path, chain(1))
    assert cluster.distinct(back)["distinct"].tolist() == [8, 8, 8, 8]
    assert prune.sparsity(back).equals(prune.sparsity(ready))


def test_a_network_that_is_one_layer(tmp_path):
    torch.manual_seed(0)
    layer = quantize.prepare(nn.Linear(30, 20), "w3")
    size.save_packed(layer, tmp_path / "net")
    assert bits_of(size.load_packed(tmp_path / "net", nn.Linear(30, 20))) == bits_of(layer)


def test_a_changed_byte_is_noticed(tmp_path):
    path, model = tmp_path / "net.safetensors", chain()
    size.save_packed(quantize.prepare(pruned(model), "w8"), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for where in [*range(0, 3000, 60), *rng.integers(3000, len(whole), 50)]:
        content = bytearray(whole)
        content[where] ^= rng.choice([1, 255])
        path.write_bytes(content)
        with pytest.raises(errors.DataError, match=r"is not a whole packed network: .*save_packed"):
            size.load_packed(path, model)


@pytest.mark.parametrize("length", [0, 4, 100, 1000, -1])
def test_a_file_cut_short_is_refused(tmp_path, length):
    path = tmp_path / "net.safetensors"
    size.save_packed(chain(), path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(errors.DataError, match=r"net\.safetensors is not a whole packed network"):
        size.load_packed(path, chain())


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(errors.DataError, match="is not a whole packed network: No such file"):
        size.load_packed(path, chain())
    save_file(chain().state_dict(), path)
    with pytest.raises(errors.DataError) as caught:
        size.load_packed(path, chain())
    problem = "its format is None, not studylib-packed-2"
    assert str(caught.value) == errors.NOT_PACKED.format(path=path, problem=problem)


def test_another_network_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    size.save_packed(chain(), path)
    with pytest.raises(errors.ParameterError) as caught:
        size.load_packed(path, prune.channels(chain(), 0.5))
    assert str(caught.value).startswith(
        errors.OTHER_NETWORK.split("{problem}")[0].format(path=path)
    )
    assert "size mismatch for 0.weight" in str(caught.value)
    with pytest.raises(errors.ParameterError, match="holds another network"):
        size.load_packed(path, nn.Linear(3, 3))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    size.save_packed(chain(), path)
    before = path.read_bytes()

    def full(tensors, scratch, about):
        scratch.write_bytes(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(size, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        size.save_packed(chain(1), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("classes", "side", "published"), [(8, 48, 16.512), (7, 100, 29.802)])
def test_baselines_zip_to_what_the_study_reports(classes, side, published):
    """Table of results of Stoychev and Gunes: sizes of the baselines for CK+ and RAF-DB."""
    assert size.zip_bytes(fer_cnn(classes, side)) / 1e6 == pytest.approx(published, rel=0.05)


def test_training_and_compression_change_the_zip_as_in_the_study():
    model = fer_cnn(8, 48).train()
    optimiser = torch.optim.Adam(model.parameters(), 5e-4)
    pixels = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 256, (8, 1, 48, 48), generator=pixels).byte()
    nn.functional.cross_entropy(model(faces), torch.arange(8)).backward()
    optimiser.step()
    baseline = size.zip_bytes(model)
    assert baseline / 1e6 == pytest.approx(16.512, rel=0.05)
    ready = pruned(model)
    half_pruned = size.zip_bytes(ready)
    assert half_pruned / 1e6 == pytest.approx(10.105, rel=0.1)  # s50 on CK+
    both = size.zip_bytes(quantize.dynamic_range(ready))
    assert both / 1e6 == pytest.approx(2.858, rel=0.1)  # s50 and quantised


def test_the_zip_is_a_deflated_file_of_what_a_framework_saves():
    model = chain()
    content = save({key: value.contiguous() for key, value in model.state_dict().items()})
    by_hand = len(zlib.compress(content, wbits=-15))
    assert size.zip_bytes(model) - by_hand == 30 + 46 + 22 + 2 * len("model.safetensors")
    # Random codes do not deflate: int8 takes a byte a weight even at 4 bits' width, fp16 two.
    noise = torch.rand(200, 200, generator=torch.Generator().manual_seed(0))
    for precision, nbytes in (("fp32", 3.5 * 40_000), ("fp16", 1.7 * 40_000), ("w8", 40_000)):
        variant = quantize.prepare(linear(noise), precision)
        assert size.zip_bytes(variant) == pytest.approx(nbytes, rel=0.12)
    four = size.zip_bytes(quantize.prepare(linear(noise), "w4"))
    assert 20_000 < four < 24_000 + 200 * 8


@pytest.mark.parametrize(
    ("name", "nbytes"),
    [
        ("fp32", 4000),
        ("fp16", 2000),
        ("w8", 1000),
        ("w4a8", 500),
        ("ft2", 4000),
        ("ch50", 4000),
        ("s75", 1000),
        ("s75g", 1000),
        ("s2of4", 1000),
        ("s75+w8", 250),
        ("s75+fp16", 500),
        ("c16", 500),
        ("c17", 625),
        ("c2", 125),
        ("c16+w8", 500),
        ("c256+w4", 500),
        ("s75+c16+w8", 125),
    ],
)
def test_nominal_sizes(name, nbytes):
    """1,000 weights, of which 750 are zero: they count where the name says that it was pruned."""
    weight = normal(0, 10, 100)
    model = pruned(linear(weight), 0.75)
    assert size.nominal_bytes(model, name) == nbytes
    assert size.nominal_bytes(weights.strip(model), name) == nbytes


@pytest.mark.parametrize("name", ["", "shipped", "w9", "s50+", "s", "c16 ", "50"])
def test_names_without_a_nominal_size(name):
    with pytest.raises(errors.ParameterError, match="Unknown precision"):
        size.nominal_bytes(nn.Linear(2, 2), name)
    row = size.table({name: nn.Linear(2, 2)}).iloc[0]
    assert np.isnan(row["nominal_mb"]) and row["packed_mb"] > 0 and row["zip_mb"] > 0


def test_table(tmp_path):
    variants = {"fp32": chain(), "s50": pruned(chain()), "w8": quantize.prepare(chain(), "w8")}
    sizes = size.table(variants)
    assert sizes.columns.tolist() == ["variant", "nominal_mb", "packed_mb", "zip_mb"]
    assert sizes["variant"].tolist() == list(variants)
    for row in sizes.itertuples():
        model = variants[row.variant]
        assert row.packed_mb * 1e6 == pytest.approx(size.save_packed(model, tmp_path / "net"))
        assert row.zip_mb * 1e6 == pytest.approx(size.zip_bytes(model))
        assert row.nominal_mb * 1e6 == pytest.approx(size.nominal_bytes(model, row.variant))


def test_sface_sizes(sface, tmp_path):
    """Nominal as published (fp32 size times bits / 32); packed holds codes, grids and fp32 rest."""
    variants = {name: quantize.prepare(sface, name) for name in ("fp32", "w8", "w4")}
    assert size.nominal_bytes(variants["fp32"], "fp32") == 9_642_880 * 4
    assert size.nominal_bytes(variants["w4"], "w4") == 9_642_880 / 2
    packed = {
        name: size.save_packed(model, tmp_path / "net") / 1e6 for name, model in variants.items()
    }
    assert packed["fp32"] == pytest.approx(38.65, abs=0.01)
    kernels = sum(
        p.numel() for n, p in sface.named_parameters() if n.endswith(("conv.weight", "fc.weight"))
    )
    rest = packed["w8"] - kernels / 1e6
    assert 0 < rest < 0.4
    # Rounding to 4 bits makes many weights zero, which the file is smaller for.
    assert 0.9 < packed["w4"] / (rest + kernels / 2e6) < 1


PUBLISHED = Path(__file__).parents[2] / "book" / "published" / "quantface_verification.csv"


def published_sizes():
    """Rows (network, precision, size as printed) of QuantFace's table."""
    table = pd.read_csv(PUBLISHED, dtype=str)
    return list(table[["model", "precision", "size_mb"]].itertuples(index=False, name=None))


@pytest.mark.parametrize(("name", "precision", "printed"), published_sizes())
def test_nominal_sizes_are_those_that_quantface_reports(name, precision, printed):
    """Parameters times bits within 1 %.

    Of MobileFaceNet's file much is no parameter: statistics, and the names and padding of its 333
    tensors. With these the size is the published one, to one unit of its last digit.
    """
    with torch.device("meta"):
        model = models.build(name.replace("resnet", "iresnet"))
    nominal = size.nominal_bytes(model, precision) / 1e6
    if name != "mobilefacenet":
        assert nominal == pytest.approx(float(printed), rel=0.01)
        return
    assert 0.9 < nominal / float(printed) < 1
    file = io.BytesIO()
    torch.save(models.build(name).state_dict(), file)
    whole = nominal * file.tell() / (4 * sum(p.numel() for p in model.parameters()))
    assert whole == pytest.approx(float(printed), abs=10.0 ** -len(printed.split(".")[1]))


def test_quantface_has_twelve_rows():
    assert len(published_sizes()) == 12
