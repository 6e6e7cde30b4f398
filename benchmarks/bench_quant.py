"""Time quantisation-aware training against what it cannot be quicker than, side by side in one run.

1. Fake-quantising one activation of 12.8 MB, forward and backward, against two copies of such a
   tensor, one each way (on CUDA the loops are torch's own kernel). Beside it what those copies take
   as a layer that autograd calls: the rest is what rounding costs.
2. A step of embedding matching on an IResNet, against the same step of the network in full
   precision, both with the teacher's embeddings cached; and against a plain implementation that
   rounds operation by operation and keeps the teacher in the loop.

Times are medians: of the processor (all threads together, waiting for one another included) on a
CPU, of the clock on CUDA; ratios are medians over turns, in each of which everything runs once.
Only ratios from one run on one machine mean anything. The first call compiles and is not counted.
`python benchmarks/bench_quant.py [--device D] [--threads N] [--repeats N] [--batch N] [--size PX]`
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from studylib import qat, runs
from studylib.compress import quantize
from studylib.models.iresnet import iresnet

PRECISION = "w8a8"
SHAPE = (16, 64, 56, 56)  # 12.8 MB in float32


def clock(device):
    """Seconds: of the processor on a CPU, else of the wall once the device is idle."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(functions, repeats, device):
    """Seconds of functions called in turn, a list each, after one call of each to warm up."""
    times = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = clock(device)
            function()
            if turn:
                times[name].append(clock(device) - start)
    return times


class _Copy(torch.autograd.Function):
    """A layer that copies what comes in, both ways."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.clone()


def activation(device):
    """Forward and backward through one activation, and two copies of it."""
    x = torch.randn(SHAPE, device=device).requires_grad_()
    low, high = quantize.value_range(x.detach())
    grid = quantize.choose_qparams(low / 2, high / 2, 8)  # so that some values are outside
    grad, plain = torch.randn_like(x), x.detach()

    def both(function, **options):
        return lambda: torch.autograd.grad(function(x, **options), x, grad)

    def fake(**options):
        return both(quantize.fake_quantize, grid=grid, **options)

    return {
        "two copies": lambda: (plain.clone(), grad.clone()),  # both there at once, as the others
        "a layer that copies": both(_Copy.apply),
        "clipped gradient, fused": fake(fused=True),
        "plain gradient, fused": fake(fused=True, clip_grad=False),
        "clipped gradient, eager": fake(),
    }


def steps(device, batch, size, blocks):
    """One update each: full precision, quantised, and quantised the plain way."""
    teacher = iresnet(blocks, size=size, seed=0).eval().to(device)
    faces = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    with torch.no_grad():
        cached = F.normalize(teacher(faces))

    def step(precision, fused, in_loop, clip_grad=False):
        student = quantize.prepare(teacher, precision, clip_grad=clip_grad, fused=fused)
        quantize.calibrate(student, faces)
        student.train()
        sgd = qat.optimiser(student, 1e-4)

        def once():
            if in_loop:
                with torch.no_grad():
                    wanted = F.normalize(teacher(faces))
            qat.update(student, faces, wanted if in_loop else cached, sgd)

        return once

    return {
        "full precision": step("fp32", False, False),
        "quantised, fused": step(PRECISION, True, False),
        "with clipped gradients": step(PRECISION, True, False, clip_grad=True),
        "plain, teacher in the loop": step(PRECISION, False, True),
    }


def show(title, times, against):
    """Print medians, and the ratio of each to those named."""
    print(title)
    for name, seconds in times.items():
        pairs = {other: zip(seconds, times[other], strict=True) for other in against}
        ratios = (f"{statistics.median(a / b for a, b in pairs[o]):.2f} x {o}" for o in against)
        print(f"  {name:28} {statistics.median(seconds) * 1e3:9.2f} ms   {', '.join(ratios)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--blocks", type=int, nargs=4, default=(1, 1, 1, 1))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs.keep_memory()  # as every run does
    device = runs.resolve_device(args.device)
    print(f"torch {torch.__version__}, {runs.device_name(device)}, {args.threads} threads, medians "
          f"of {args.repeats} (activation: {10 * args.repeats})")  # fmt: skip
    times = timed(activation(device), 10 * args.repeats, device)
    show("12.8 MB activation, forward and backward", times, ["two copies"])
    blocks = tuple(args.blocks)
    times = timed(steps(device, args.batch, args.size, blocks), args.repeats, device)
    against = ["full precision", "plain, teacher in the loop"]
    show(f"training step, IResNet {blocks}, batch {args.batch}, {args.size} px", times, against)


if __name__ == "__main__":
    main()
