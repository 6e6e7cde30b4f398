"""Rates of machines: operations are counted right, timings are positive, assumptions are named."""

import math
import os

import pytest
import torch

from studylib import errors, models, speed
from studylib.speed import Kind


def by_hand(network, face) -> float:
    """Twice the multiplications of every convolution and dense layer, from their own shapes."""
    done = []

    def note(module, _, out):
        done.append(2 * out[0].numel() * module.weight[0].numel())

    layers = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, layers)]
    with torch.no_grad():
        network.eval()(face)
    for hook in hooks:
        hook.remove()
    return float(sum(done))


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("iresnet", {"depth": [1, 2, 1, 1], "width": 0.25, "size": 40, "embedding": 64}),
        ("mobilefacenet", {"width": 0.5, "size": 48}),
    ],
)
def test_operations_are_those_of_all_layers(architecture, settings):
    network = models.build(architecture, **settings, seed=0)
    size = settings["size"]
    operations, parameters = speed.count(architecture, settings)
    assert operations == by_hand(network, torch.zeros(1, 3, size, size))
    assert parameters == models.parameter_count(network)


def test_published_networks_are_as_large_as_published():
    operations, _ = speed.count("iresnet50", {})
    assert operations / 2 == pytest.approx(6.3e9, rel=0.02)  # ArcFace's R50: 6.3 GMAC


def test_operations_of_the_expression_network():
    network = models.fer_cnn(7, 48, 0.25)
    operations, parameters = speed.count_expression(0.25, 48)
    assert operations == by_hand(network, torch.zeros(1, 1, 48, 48))
    assert parameters == models.parameter_count(network)


def test_counting_holds_no_weights():
    speed._count.cache_clear()
    shown = []
    real = speed._counted

    def counted(network, face):
        shown.extend(p.device.type for p in network.parameters())
        return real(network, face)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(speed, "_counted", counted)
        speed.count("iresnet", {"depth": [1, 1, 1, 1], "width": 0.5, "size": 32, "embedding": 8})
    assert set(shown) == {"meta"}


def test_an_assumed_gpu_has_a_share_of_its_peak():
    gpu = speed.assumed("A100", {"residual": 0.25})
    assert gpu.rate(Kind("residual", 0.5)) == 312e12 * 0.25
    assert gpu.rate(Kind("depthwise", 1.0)) == 312e12 * speed.UTILISATION["depthwise"]
    assert gpu.name == "A100"
    assert gpu.basis.startswith("computed") and "312 TFLOP/s" in gpu.basis
    assert "residual 25%" in gpu.basis
    assert math.isinf(gpu.drawing())


def test_what_cannot_be_assumed_is_refused():
    with pytest.raises(errors.ParameterError) as told:
        speed.assumed("B1")
    assert str(told.value) == errors.UNKNOWN_NAME.format(
        what="gpu", value="B1", choices=", ".join(sorted(speed.GPUS))
    )
    with pytest.raises(errors.ParameterError, match="family of networks"):
        speed.assumed("T4", {"recurrent": 0.1})
    with pytest.raises(errors.ParameterError) as told:
        speed.assumed("T4", {"residual": 1.5})
    wanted = errors.BAD_SHARE.format(what="utilisation of residual networks", value=1.5)
    assert str(told.value) == wanted


def test_rates_are_operations_over_the_fastest_step(monkeypatch):
    monkeypatch.setattr(speed, "step_seconds", lambda *_, **__: 0.5)
    speed.training_rate.cache_clear()
    settings = {"depth": [1, 1, 1, 1], "width": 0.25, "size": 48}
    operations, _ = speed.count("iresnet", settings)
    assert speed.training_rate(Kind("residual", 0.25)) == 3 * operations * 16 / 0.5
    speed.training_rate.cache_clear()


def test_the_best_time_is_taken_after_one_to_warm_up(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 13.0, 20.0, 22.0])  # 9 s to warm up, then 3 s and 2 s
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    calls = []
    assert speed._best(lambda: calls.append(1), 2) == 2.0
    assert len(calls) == 3


def test_a_step_trains_and_a_larger_one_takes_longer():
    settings = {"depth": (1, 1, 1, 1), "width": 0.25, "embedding": 16}
    small = models.build("iresnet", size=32, **settings, seed=0)
    before = small.fc.weight.detach().clone()
    taken = speed.step_seconds(small, 4, 32, repeats=2)
    assert 0 < taken < 30
    assert not torch.equal(before, small.fc.weight)
    large = models.build("iresnet", size=96, **settings, seed=0)
    assert speed.step_seconds(large, 8, 96, repeats=2) > taken


@pytest.mark.parametrize("call", [speed.head_seconds, lambda n, **k: speed.side_by_side([(n, 1)])])
def test_numbers_below_one_are_refused(call):
    with pytest.raises(errors.ParameterError, match="at least 1"):
        call(0, batch=0)


@pytest.fixture
def two_threads():
    """A process that may use two threads, as `study run --dry-run` may use many."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "call",
    [
        lambda: speed.training_rate(Kind("residual", 0.25)),
        lambda: speed.drawing_rate(size=48),
        lambda: speed.head_seconds(10),
    ],
)
def test_a_processor_is_timed_with_one_thread(two_threads, monkeypatch, call):
    seen = []
    monkeypatch.setattr(speed, "_best", lambda *_: seen.append(torch.get_num_threads()) or 1.0)
    speed.training_rate.cache_clear()
    speed.drawing_rate.cache_clear()
    call()
    assert seen == [1]
    assert torch.get_num_threads() == 2
    speed.training_rate.cache_clear()
    speed.drawing_rate.cache_clear()


def test_threads_are_as_before_after_a_failure(two_threads):
    with pytest.raises(ZeroDivisionError), speed.using_threads(1):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def test_a_step_may_be_timed_with_more_threads(monkeypatch):
    seen = []
    monkeypatch.setattr(speed, "_best", lambda *_: seen.append(torch.get_num_threads()) or 1.0)
    network = models.build("iresnet", depth=(1, 1, 1, 1), width=0.125, size=32, seed=0)
    speed.step_seconds(network, 2, 32, n_threads=2)
    assert seen == [2]
    with pytest.raises(errors.ParameterError, match="n_threads"):
        speed.step_seconds(network, 2, 32, n_threads=0)


def test_a_gpu_is_found_by_the_name_in_a_record(monkeypatch):
    assert speed.find_gpu("NVIDIA H100 80GB HBM3").name == "H100"
    assert speed.find_gpu("NVIDIA GeForce RTX 4090").name == "RTX 4090"
    assert speed.find_gpu("Tesla V100-SXM2-16GB").device == "cuda"
    assert speed.find_gpu("NVIDIA L40S") is None
    monkeypatch.setattr(speed, "gpus", lambda: ["NVIDIA L40S", "NVIDIA H100 80GB HBM3"])
    asked = []
    monkeypatch.setattr(speed, "here", asked.append)
    speed.find_gpu("NVIDIA H100 80GB HBM3")
    assert asked == ["cuda:1"]


def test_a_head_of_many_takes_longer():
    assert speed.head_seconds(50_000, repeats=2) > speed.head_seconds(50, repeats=2) > 0


def test_drawing_is_faces_times_pixels_over_seconds(monkeypatch):
    monkeypatch.setattr(speed, "_best", lambda action, repeats: 2.0)
    speed.drawing_rate.cache_clear()
    assert speed.drawing_rate(size=40) == 32 * 1600 / 2.0
    speed.drawing_rate.cache_clear()


@pytest.mark.filterwarnings("ignore")
def test_processes_train_at_the_same_time():
    found = speed.side_by_side([(1, 1), (2, 1)], steps=1)
    assert found[["jobs", "threads"]].to_numpy().tolist() == [[1, 1], [2, 1]]
    assert found["slowest"].gt(0).all()
    assert found["together"][0] == found["slowest"][0]
    assert found["together"][1] >= 2 * found["slowest"][1]


def end(*_) -> None:
    """What becomes of a process whose memory is wanted by others."""
    os._exit(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "value"),
    [("_PATIENCE", 0), ("_train_for", end)],  # nobody is so fast; nobody lives so long
    ids=["late", "ended"],
)
def test_a_process_that_does_not_train_is_not_waited_for(monkeypatch, name, value):
    monkeypatch.setattr(speed, name, value)
    with pytest.raises(errors.RunError) as told:
        speed.side_by_side([(2, 1)], steps=1)
    assert str(told.value) == errors.NOT_SIDE_BY_SIDE.format(seconds=speed._PATIENCE)


def test_the_yardstick_is_as_wide_as_the_network():
    network, operations = speed._yardstick(Kind("residual", 0.125), 32)
    assert network.stem.conv.out_channels == 8
    assert operations < speed._yardstick(Kind("residual", 0.25), 32)[1]
