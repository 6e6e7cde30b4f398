"""Time the parts of the face recognition study against named peers, side by side in one run.

Prints medians and the ratio peer / ours (above 1: ours is faster). Only ratios from one run on one
machine mean anything. `python benchmarks/bench_fr.py [--threads N] [--repeats N]`
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnxruntime
import torch
from sklearn.metrics import roc_curve

from studylib import assets, datasets, embed, models, runs
from studylib.compress import quantize
from studylib.metrics import uncertainty, verification
from studylib.synthetic import stylegan


def paired(ours, peer, repeats):
    """Median seconds of two functions called in turn, after one call of each to warm up."""
    times = {ours: [], peer: []}
    for turn in range(repeats + 1):
        for function, kept in times.items():
            start = time.perf_counter()
            function()
            if turn:
                kept.append(time.perf_counter() - start)
    return statistics.median(times[ours]), statistics.median(times[peer])


def fake_quantise(threads):
    """Forward and backward through one activation tensor of 12.8 MB."""
    x = torch.randn(16, 64, 56, 56, requires_grad=True)
    grid = quantize.choose_qparams(*quantize.value_range(x.detach()), 8)
    scale, zero = grid.scale.item(), int(grid.zero_point)
    seed = torch.ones_like(x)

    def ours():
        torch.autograd.grad(quantize.fake_quantize(x, grid), x, seed)

    def peer():
        y = torch.fake_quantize_per_tensor_affine(x, scale, zero, grid.low, grid.high)
        torch.autograd.grad(y, x, seed)

    return ours, peer, "torch.fake_quantize_per_tensor_affine, forward and backward"


def embed_faces(threads):
    """Embed 32 faces with the fp32 network."""
    faces = datasets.load("orl")[0].take(np.arange(32))
    network = models.load("sface")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(assets.float_onnx("sface"), options)
    pixels = faces.images.numpy().astype(np.float32)
    return (
        lambda: embed.embed(network, faces, batch_size=32),
        lambda: session.run(None, {"data": pixels}),
        "ONNX Runtime on the same fp32 graph, 32 faces",
    )


def generate_faces(threads):
    """Draw one synthetic face at 1024 px."""
    import openvino

    folder = assets.fetch("random-face") / "random_face" / "data"
    generator = stylegan.load(folder)
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    network = core.compile_model(folder / "SynthesisNetwork.xml", "CPU", settings)
    w = generator.mapping(stylegan.latents(1, 0))
    given = [
        np.broadcast_to(w.numpy()[:, None], port.shape) if len(port.shape) == 3 else w.numpy()
        for port in network.inputs
    ]
    return lambda: generator.synthesis(w), lambda: network(given), "OpenVINO, one 1024 px face"


def bootstrap(threads):
    """EER and two TARs of 19,900 pairs in 50 resamples of 20 people."""
    faces = datasets.load("orl")[0].split_by_subject(0.5, 0)[1]
    pairs = embed.all_pairs(faces)
    scores = np.random.default_rng(0).normal(pairs["genuine"], 0.4)
    pairs["score_fp32"] = scores

    def ours():
        uncertainty.resample(pairs, ["fp32"], verification.STATISTICS, resamples=50)

    def peer():
        for weights in uncertainty.subject_weights(pairs, 50, 0):
            for row in weights:
                fpr, tpr, _ = roc_curve(pairs["genuine"], scores, sample_weight=row)
                np.abs(fpr - 1 + tpr).argmin(), tpr[fpr <= 1e-2].max(), tpr[fpr <= 1e-3].max()

    return ours, peer, "scikit-learn roc_curve in a loop over the same resamples"


PARTS = (fake_quantise, embed_faces, generate_faces, bootstrap)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs.keep_memory()  # as every run does
    print(f"torch {torch.__version__}, {args.threads} threads, medians of {args.repeats}")
    for part in PARTS:
        ours, peer, name = part(args.threads)
        mine, theirs = paired(ours, peer, args.repeats)
        print(f"{part.__name__:15} {mine * 1e3:8.1f} ms, {theirs * 1e3:8.1f} ms for {name}: "
              f"ratio {theirs / mine:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
