"""Real int8: a network as an ONNX file that ONNX Runtime computes in integers.

Everything in `quantize` is a simulation: values are rounded, and computed with in fp32. Here the
rounded network becomes a file that a runtime really executes, so that its size and its time can be
measured and the simulation can be held against it. Both files take uint8 faces, 0..255.

The int8 file is in QDQ form: pairs of QuantizeLinear and DequantizeLinear stand around each
convolution, dense layer and residual sum, and the runtime replaces them by integer kernels.
Activations are uint8, affine, one range a tensor; weights int8, symmetric, a range for each output
channel; the embedding leaves in floating point. This differs from the simulation's w8a8. Weights
have symmetric grids. The result of a convolution is rounded *before* its PReLU, too, because the
integer kernel has to give integers and the runtime has no integer PReLU; and so is whatever goes
into an integer layer, such as the output of a batch normalisation that could not be folded. The
first convolutions, which hold next to no weights but the widest ranges, can be left in floating
point.

The trap. x86 processors with AVX2 alone multiply uint8 by int8 with an instruction that adds two
neighbouring products in 16 bits: 255 * 127 * 2 does not fit, and the sum stops at 32,767. Only
strong activations on strong weights suffer, so the damage can fall on some faces rather than on
others, and would read as a bias of quantisation. Weights of 7 bits (`reduce_range`) cannot
overflow; processors with VNNI or Arm's dot products add in 32 bits. `saturates` asks the processor.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnxruntime
import pandas as pd
import torch
from onnxruntime import quantization
from torch import nn

from studylib import errors
from studylib.compress import quantize

OPSET = 17
INPUT, OUTPUT = "faces", "embedding"
_LAYERS = ("Conv", "Gemm")  # have weights; a sum has none
_INTEGER = (*_LAYERS, "Add")


def write(model: nn.Module, path: str | Path, faces: torch.Tensor) -> Path:
    """Write a network as an fp32 ONNX file that takes any number of faces.

    Batch normalisation is folded by `quantize.fold_norms`. The exporter is torch's older one, which
    follows one forward pass: the newer one would need another package.

    Parameters
    ----------
    model : torch.nn.Module
        Takes uint8 (N, C, H, W), gives float32 (N, D); without activation quantisers, and such that
        torch.fx can trace it. Weights that are masked, shared or rounded are written as the values
        they have.
    path : path
        Replaced only when the new file is whole.
    faces : torch.Tensor
        uint8 (N, C, H, W), N at least 1: one of them is sent through the network.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ParameterError
        No faces, or activation quantisers in the network.
    DataError
        The file cannot be written, or the faces do not fit the network.
    """
    errors.at_least(1, faces=len(faces))
    if quantize.activation_quantizers(model):
        raise errors.ParameterError(errors.EXPORT_QUANTISED)
    model = quantize.fold_norms(model).cpu()
    axes = {INPUT: {0: "n"}, OUTPUT: {0: "n"}}
    names = {"input_names": [INPUT], "output_names": [OUTPUT], "dynamic_axes": axes}
    with _in_place_of(path) as scratch, warnings.catch_warnings():
        # That it is the older one, and that checks of the input's shape are not in the file.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(model, (faces[:1],), scratch, dynamo=False, opset_version=OPSET, **names)
    return Path(path)


def write_int8(
    model: nn.Module,
    path: str | Path,
    faces: torch.Tensor,
    *,
    reduce_range: bool | None = None,
    observer: str = "minmax",
    keep_float: int = 8,
    batch_size: int = 8,
) -> Path:
    """Write a network as an int8 ONNX file (QDQ), its activation ranges taken from `faces`.

    Parameters
    ----------
    model, path
        As `write` takes them.
    faces : torch.Tensor
        uint8 (N, C, H, W), the calibration set, N at least 1.
    reduce_range : bool, optional
        Weights of 7 bits; None: where this processor `saturates`. A file that is made for other
        machines than this one is safe only with True.
    observer : {"minmax", "ema", "percentile"}
        How activation ranges are found: the simulation's own observers.
    keep_float : int
        How many of the first convolutions stay in floating point.
    batch_size : int
        Faces at a time; `ema` and `percentile` ranges depend on it.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ParameterError, DataError
        As `write`; an unknown observer.
    """
    errors.one_of("observer", observer, quantize.OBSERVERS)
    if reduce_range is None:
        reduce_range = saturates()
    with _in_place_of(path) as scratch:
        plain = write(model, scratch.with_suffix(".fp32.onnx"), faces)
        with _quiet():
            quantization.quant_pre_process(plain, plain, skip_symbolic_shape=True)
        nodes = onnx.load(plain).graph.node
        ranges = _ranges(plain, nodes, faces, observer, batch_size)
        with _quiet():
            quantization.quantize_static(
                plain,
                scratch,
                _Reader(faces[:1]),  # the runtime insists on looking, but all ranges are given
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=reduce_range,
                op_types_to_quantize=list(_INTEGER),
                nodes_to_exclude=[n.name for n in nodes if n.op_type in _LAYERS][:keep_float],
                extra_options={
                    "TensorQuantOverrides": ranges,
                    "OpTypesToExcludeOutputQuantization": ["Gemm"],
                },
            )
    return Path(path)


def run(
    path: str | Path, faces: torch.Tensor, *, batch_size: int = 16, threads: int = 1
) -> torch.Tensor:
    """Send faces through a file, on the CPU.

    Parameters
    ----------
    path : path
        From `write` or `write_int8`.
    faces : torch.Tensor
        uint8 (N, C, H, W).
    batch_size, threads : int
        Faces at a time, and threads of the runtime.

    Returns
    -------
    torch.Tensor
        float32 (N, D), not normalised.

    Raises
    ------
    DataError
        The file is not there, or is no ONNX file.
    """
    session = _session(path, threads)
    rows = [session.run(None, {INPUT: batch.numpy()})[0] for batch in faces.split(batch_size)]
    return torch.from_numpy(np.concatenate(rows))


def saturates() -> bool:
    """Tell whether this processor's int8 products overflow: 255 * 127 + 255 * 127 is computed.

    The runtime itself computes it, by the matrix product that its convolutions use; so no list of
    processors or of their flags is needed.
    """
    return int(pair_sum(255, 127)) != 2 * 255 * 127


def pair_sum(activation: int, weight: int) -> int:
    """What the runtime gives for activation * weight, twice, added up: uint8 times int8."""
    # 16 x 64 by 64 x 16: large enough that no special case for small matrices is taken.
    codes = np.zeros((16, 64), np.uint8)
    weights = np.zeros((64, 16), np.int8)
    codes[:, :2], weights[:2] = activation, weight
    node = onnx.helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph(
        [node],
        "pair",
        [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, codes.shape)],
        [onnx.helper.make_tensor_value_info("c", onnx.TensorProto.INT32, (16, 16))],
        [onnx.numpy_helper.from_array(weights, "b")],
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    return int(_session(model.SerializeToString(), 1).run(None, {"a": codes})[0][0, 0])


def latency(
    files: dict[str, str | Path],
    faces: torch.Tensor,
    *,
    threads: tuple[int, ...] = (1, 2),
    batches: tuple[int, ...] = (1, 32),
    rounds: int = 3,
    repeats: int = 10,
) -> pd.DataFrame:
    """Time files against each other on this machine, which should have nothing else to do.

    Every file is timed in every round, so that a machine that grows slower does so for all of them;
    one session is open at a time, since the threads of an idle one spin for a while.

    Parameters
    ----------
    files : dict
        A path for each name.
    faces : torch.Tensor
        uint8 (N, C, H, W); repeated where a batch needs more.
    threads, batches : tuple of int
        All combinations are timed.
    rounds, repeats : int
        `repeats` timings in each of `rounds` sessions, after two that are not counted.

    Returns
    -------
    pandas.DataFrame
        A row for each file, number of threads and batch: name, threads, batch, ms (the median over
        all timings, of a whole batch), ms_low and ms_high (quartiles), timings (how many).
    """
    errors.at_least(1, rounds=rounds, repeats=repeats, faces=len(faces))
    errors.at_least(1, **{f"threads {n}": n for n in threads}, **{f"batch {n}": n for n in batches})
    settings = [(name, n, size) for n in threads for size in batches for name in files]
    times = {setting: [] for setting in settings}
    for _ in range(rounds):
        for name, n, size in settings:
            batch = faces[torch.arange(size) % len(faces)].numpy()
            times[name, n, size] += _times(_session(files[name], n), batch, repeats)
    rows = []
    for (name, n, size), found in times.items():
        low, middle, high = 1e3 * np.quantile(found, (0.25, 0.5, 0.75))
        rows.append((name, n, size, middle, low, high, len(found)))
    return pd.DataFrame(rows, columns=["name", "threads", "batch", "ms", *_QUARTILES, "timings"])


_QUARTILES = ("ms_low", "ms_high")


def _times(session: onnxruntime.InferenceSession, batch: np.ndarray, repeats: int) -> list[float]:
    """Seconds of each repeat, the first two (allocation, cold caches) left out."""
    seconds = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        session.run(None, {INPUT: batch})
        seconds.append(time.perf_counter() - began)
    return seconds[2:]


def _session(model: str | Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors
    model = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # the runtime has a type for each way a file can be wrong
        reason = str(problem).strip().splitlines()[0]
        raise errors.DataError(errors.NOT_ONNX.format(path=model, reason=reason)) from problem


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, faces: torch.Tensor):
        self._batches = iter([{INPUT: faces.numpy()}])

    def get_next(self) -> dict | None:
        return next(self._batches, None)


def _ranges(path: Path, nodes, faces: torch.Tensor, observer: str, batch_size: int) -> dict:
    """The range of every tensor that a quantised operator reads or writes, as overrides.

    The runtime's own calibration by percentiles keeps all activations of all faces in memory.
    """
    model = onnx.load(path)
    made = {name for node in nodes for name in node.output} - {OUTPUT}
    about = [node for node in nodes if node.op_type in _INTEGER]
    wanted = sorted(made & {name for node in about for name in (*node.input, *node.output)})
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = _session(model.SerializeToString(), torch.get_num_threads())
    observers = [
        quantize.ActivationQuantizer(8, observer, symmetric=False, clip_grad=True) for _ in wanted
    ]
    for batch in faces.split(batch_size):
        for one, found in zip(observers, session.run(wanted, {INPUT: batch.numpy()}), strict=True):
            one.observing, one.quantising = True, False
            one(torch.from_numpy(found))
    return {
        name: [{"rmin": np.float32(one.low), "rmax": np.float32(one.high)}]
        for name, one in zip(wanted, observers, strict=True)
    }


@contextlib.contextmanager
def _in_place_of(path: str | Path) -> Iterator[Path]:
    """A name to write to, in a folder of its own, moved to `path` if all went well."""
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            scratch = Path(folder) / path.name
            yield scratch
            os.replace(scratch, path)
    except OSError as problem:
        reason = problem.strerror or problem
        raise errors.DataError(errors.EXPORT_FAILED.format(path=path, reason=reason)) from problem


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the advice that the quantiser logs for files it did not prepare itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
