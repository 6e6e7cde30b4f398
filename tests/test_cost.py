"""What a run costs: the order of the sources, the arithmetic, disk, and the carried table."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from studylib import cli, cost, errors, models, plan, runs, speed
from studylib.speed import Kind, Machine
from tests.fixtures import project

ROOT = Path(__file__).parent.parent
RATE, DRAWN = 1e9, 1e6
TRAINED = {
    "architecture": "iresnet",
    "settings": {"depth": [1, 1, 1, 1], "width": 0.25, "embedding": 64},
    "n_people": 20,
    "per_person": 5,
    "size": 32,
    "epochs": 3,
    "n_test_people": 8,
    "per_test_person": 4,
    "pairs_per_group": 50,
    "partial": 1.0,
    "checkpoints": None,
    "data_set": "simfaces",
    "eval_set": "simfaces",
}
STUDY = """
profiles: {quick: {about: small}, full: {about: large}}
experiments:
  fr_training:
    title: Training
    notebook: notebooks/fr_training.ipynb
    parameters: PARAMETERS
    runs: {a: {seed: 0}, b: {seed: 1}, long: {epochs: 6}}
    profiles: {quick: {runs: [a, b]}, full: {runs: [a, long], parameters: {n_people: 2000}}}
  after:
    title: Quantised
    notebook: notebooks/fr_quantization.ipynb
    runs: {a: {network: {run: fr_training/a, file: network.safetensors}, eval_set: simfaces}}
reports:
  words:
    title: Noise and power
    notebook: notebooks/noise_and_power.ipynb
    parameters: {draws: 300}
  heads:
    title: AdaFace that was CosFace
    notebook: notebooks/kd_adaface.ipynb
    parameters: {settings: SETTINGS, size: 32, n_people: 20, per_person: 5, epochs: 3,
                 training_seeds: [0, 1], n_test_people: 8, per_test_person: 4, pairs_per_group: 50}
  copies:
    title: Photographs, or faces that never were
    notebook: notebooks/kd_photoreal.ipynb
    parameters: {settings: SETTINGS, size: 32, n_faces: 20, epochs: 3, seeds: [0, 1], n_pairs: 50}
    profiles: {full: {parameters: {size: 64, epochs: 60}}}
""".replace("PARAMETERS", json.dumps(TRAINED)).replace("SETTINGS", json.dumps(TRAINED["settings"]))
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def this_machine(monkeypatch):
    """Let this machine do 1e9 operations a second, without timing anything."""
    machine = Machine("here", "measured here", lambda kind: RATE, lambda: DRAWN)
    monkeypatch.setattr(speed, "here", lambda device="cpu": machine)


@pytest.fixture
def study(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in ("fr_training", "fr_quantization", "noise_and_power", "kd_adaface", "kd_photoreal"):
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "notebooks")
    (tmp_path / "study.yml").write_text(STUDY)
    return plan.load(tmp_path / "study.yml")


def finish(job, seconds, *, machine="here", size=1000, device="cpu"):
    """Leave the record of a finished run, and a file of some bytes."""
    job.folder.mkdir(parents=True)
    (job.folder / "outcomes.parquet").write_bytes(b"x" * size)
    record = {
        "schema": runs.SCHEMA,
        "parameters": json.loads(json.dumps(plan.effective(job))),
        "profile": job.profile,
        "wall_seconds": seconds,
        "cpu": machine,
        "device": device,
        "threads": 1,
    }
    runs.write_record(job.folder, record)
    return job.folder


def test_work_of_a_training_is_counted_from_its_parameters(study):
    job = study.job("quick", "fr_training", "quick-a")
    settings = TRAINED["settings"] | {"size": 32}
    network = models.build("iresnet", **settings, seed=0)
    operations, _ = speed.count("iresnet", settings)
    work = cost.work(job)
    trained = 3 * (operations + 2 * 20 * 64) * 100 * 3  # head of 20 centres, 100 faces, 3 epochs
    assert work.operations == {Kind("residual", 0.25): trained + 2 * operations * 32}
    assert work.pixels == (100 + 32) * 32**2
    assert work.bytes == 4 * models.parameter_count(network) + 10 * 50 * 4
    assert work.seconds(speed.here()) == pytest.approx(work.total / RATE + work.pixels / DRAWN)


def test_work_of_quantising_follows_the_network_it_takes(study):
    jobs = {job.folder: job for job in study.jobs("quick")}
    after = study.job("quick", "after", "quick-a")
    operations, _ = speed.count("iresnet", TRAINED["settings"] | {"size": 32})
    given_ = plan.effective(after)
    faces = 2 * 240 * 8 * len(given_["precisions"]) + 128 * (len(given_["precisions"]) - 1)
    assert cost.work(after, jobs).operations == {Kind("residual", 0.25): operations * faces}
    assert cost.work(after).total == 0  # nobody knows which network that will be
    finish(study.job("quick", "fr_training", "quick-a"), 5)
    assert cost.work(after).total == operations * faces  # now its own record says so


def test_a_page_that_compares_heads_trains_each_with_each_seed(study):
    heads, one = (
        study.job("quick", *name) for name in (("heads", "quick"), ("fr_training", "quick-a"))
    )
    found, single = cost.work(heads), cost.work(one)
    assert found.operations == {kind: 3 * 2 * done for kind, done in single.operations.items()}
    assert found.pixels == single.pixels
    assert found.bytes == 3 * 2 * 10 * 50 * 4  # scores, and no network


def test_a_page_that_compares_sets_of_faces_trains_on_each_with_each_seed(study):
    quick, full = (study.job(profile, "copies", profile) for profile in ("quick", "full"))
    operations, _ = speed.count("iresnet", TRAINED["settings"] | {"size": 32, "embedding": 128})
    found, more = cost.work(quick), cost.work(full)
    trained = 3 * operations * 20 * 3 * (3 * 2)  # 20 faces, 3 epochs; 3 sets, 2 seeds
    assert found.operations == {Kind("residual", 0.25): trained}
    assert found.bytes == 10 * 50 * (3 * 2 + 2 + 1)  # untrained ones and the teacher too
    assert more.total > 4 * 20 * found.total * 0.9  # four times the pixels, 20 times the epochs
    finish(quick, found.total / RATE + 7)
    estimate = cost.estimate(full)
    assert estimate.basis == cost.COMPUTED
    assert estimate.seconds == pytest.approx(more.total / RATE + 7)
    assert estimate.source == "its networks on here, the rest as copies/quick"


def test_twice_the_epochs_and_people_are_as_much_more_work(study):
    short, long = (study.job("full", "fr_training", f"full-{name}") for name in ("a", "long"))
    operations, _ = speed.count("iresnet", TRAINED["settings"] | {"size": 32})
    tests = 2 * operations * 32
    assert cost.work(long).total - tests == 2 * (cost.work(short).total - tests)


def test_the_runs_own_record_comes_first(study):
    a, b = (study.job("quick", "fr_training", f"quick-{name}") for name in "ab")
    finish(a, 12.5)
    finish(b, 99)
    mine = cost.estimate(a)
    files = sum(path.stat().st_size for path in a.folder.iterdir())
    assert (mine.seconds, mine.bytes, mine.basis) == (12.5, files, cost.HERE)
    assert mine.source == "fr_training/quick-a on here"


def test_then_other_runs_of_its_notebook_and_profile(study):
    a, b = (study.job("quick", "fr_training", f"quick-{name}") for name in "ab")
    finish(b, 99, machine="another")
    found = cost.estimate(a)
    assert (found.seconds, found.basis) == (99, cost.ELSEWHERE)
    assert found.source == "fr_training/quick-b on another"


def test_a_time_of_other_work_is_scaled(study):
    short, long = (study.job("full", "fr_training", f"full-{name}") for name in ("a", "long"))
    finish(short, 100)
    found, ratio = cost.estimate(long), cost.work(long).total / cost.work(short).total
    assert 1.9 < ratio < 2
    assert (found.seconds, found.basis) == (pytest.approx(100 * ratio), cost.COMPUTED)
    assert found.source == f"{ratio:.2f} times fr_training/full-a on here"


def test_otherwise_work_over_rate_and_the_rest_as_it_was_measured(study):
    quick, full = (study.job(p, "fr_training", f"{p}-a") for p in ("quick", "full"))
    work, small = cost.work(full), cost.work(quick)
    alone = cost.estimate(full)
    assert alone.seconds == pytest.approx(work.total / RATE + work.pixels / DRAWN)
    assert (alone.bytes, alone.basis) == (work.bytes, cost.COMPUTED)
    took = small.seconds(speed.here()) + 7
    finish(quick, took, size=small_bytes(quick) + 500)
    found = cost.estimate(full)
    assert found.seconds == pytest.approx(alone.seconds + 7)
    assert "the rest as fr_training/quick-a" in found.source
    kept = sum(path.stat().st_size for path in quick.folder.iterdir()) - small.bytes
    assert found.bytes == work.bytes + kept


def small_bytes(job) -> int:
    return int(cost.work(job).bytes)


def test_on_another_machine_only_its_own_times_count(study):
    a = study.job("quick", "fr_training", "quick-a")
    finish(a, 12.5)
    gpu = speed.assumed("A100", {"residual": 0.5})
    found, work = cost.estimate(a, gpu), cost.work(a)
    rest = max(0, 12.5 - work.seconds(speed.here()))
    assert found.basis == cost.COMPUTED
    assert found.seconds == pytest.approx(work.total / (312e12 * 0.5) + rest)
    shutil.rmtree(a.folder)
    finish(a, 3.5, device="NVIDIA A100-SXM4-80GB")
    found = cost.estimate(a, gpu)
    assert (found.seconds, found.basis) == (3.5, cost.ELSEWHERE)
    assert found.source == "fr_training/quick-a on NVIDIA A100-SXM4-80GB"
    assert cost.estimate(a, speed.assumed("H100")).basis == cost.COMPUTED
    assert cost.estimate(a).basis == cost.COMPUTED  # nor does a GPU's time count for a processor


@pytest.fixture
def with_gpu(monkeypatch):
    """Let this machine have a GPU that is a hundred times as fast as its processor."""
    machines = {
        "cpu": speed.here(),
        "cuda": Machine(H100, speed.HERE, lambda kind: 100 * RATE, lambda: 100 * DRAWN, "cuda"),
    }
    monkeypatch.setattr(speed, "here", lambda device="cpu": machines[torch.device(device).type])
    monkeypatch.setattr(speed, "gpus", lambda: [H100])
    device = {"auto": "cuda", "cpu": "cpu"}
    monkeypatch.setattr(runs, "resolve_device", lambda name: torch.device(device[name]))


def test_a_job_is_costed_on_the_device_that_it_would_find_here(study, with_gpu):
    a, b = (study.job("quick", "fr_training", f"quick-{name}") for name in "ab")
    work = cost.work(a)
    found = cost.estimate(a)
    assert found.seconds == pytest.approx(work.seconds(speed.here()) / 100)
    assert found.source == f"its networks on {H100}"
    on_cpu = replace(a, parameters=a.parameters | {"device": "cpu"})
    assert cost.estimate(on_cpu).seconds == pytest.approx(work.seconds(speed.here()))
    finish(b, 900)  # by the processor
    rest = 900 - work.seconds(speed.here())
    assert cost.estimate(a).seconds == pytest.approx(work.seconds(speed.here()) / 100 + rest)
    assert cost.estimate(on_cpu).seconds == 900


def test_a_run_of_this_machines_gpu_was_measured_here(study, with_gpu):
    quick, full = (study.job(p, "fr_training", f"{p}-a") for p in ("quick", "full"))
    seconds = cost.work(quick).seconds(speed.here("cuda"))
    finish(quick, seconds + 7, device=H100)
    for machine in (None, speed.assumed("H100")):
        found = cost.estimate(quick, machine)
        assert (found.seconds, found.basis) == (seconds + 7, cost.HERE)
    found = cost.estimate(full)  # the rest is what the GPU, and no processor, left
    assert found.seconds == pytest.approx(cost.work(full).seconds(speed.here("cuda")) + 7)


def test_a_gpu_that_is_not_here_is_costed_without_one(study):
    a = study.job("quick", "fr_training", "quick-a")
    lost = replace(a, parameters=a.parameters | {"device": "cuda"})
    assert cost.estimate(lost).source == "its networks on here"


def test_the_rest_of_a_run_on_an_unknown_gpu_is_unknown(study):
    quick, b = (study.job("quick", "fr_training", f"quick-{name}") for name in "ab")
    full = study.job("full", "fr_training", "full-a")
    alone = cost.estimate(full).seconds
    finish(quick, 50, device="Abacus 3")
    assert cost.estimate(full).seconds == alone
    finish(b, cost.work(b).seconds(speed.here()) + 7)
    assert cost.estimate(full).seconds == pytest.approx(alone + 7)
    finished = {one.run: one for one in cost._finished([quick])}
    assert math.isnan(finished["quick-a"].rest_seconds)


def test_where_nothing_is_counted_a_time_is_of_the_same_parameters(study):
    words = study.job("quick", "words", "quick")
    finish(words, 21)
    assert cost.estimate(words).basis == cost.HERE
    more = replace(words, parameters=words.parameters | {"draws": 30_000})
    found = cost.estimate(more)
    assert (found.seconds, found.basis) == (21, cost.OTHER)
    assert found.source == "all as words/quick"
    assert math.isnan(found.counted)
    full = study.job("full", "words", "full")  # other than quick in the profile's name alone
    found = cost.estimate(full)
    assert (found.seconds, found.counted, found.basis) == (21, 21, cost.HERE)
    assert found.source == "words/quick on here"


def test_of_other_profiles_the_one_with_the_same_parameters_counts(study):
    """On a machine that is assumed, what has no networks takes as long as where it was measured."""
    words, full = (study.job(profile, "words", profile) for profile in ("quick", "full"))
    finish(replace(full, parameters=full.parameters | {"draws": 30_000}), 500)
    other = cost.estimate(words, speed.assumed("A100"))
    assert (other.seconds, other.basis) == (500, cost.OTHER)
    finish(words, 21)
    beside = replace(words, folder=words.folder.with_name("quick-again"))
    for job in (words, full, beside):
        found = cost.estimate(job, speed.assumed("A100"))
        assert (found.seconds, found.basis) == (21, cost.COMPUTED)
        assert found.source == "all as words/quick"


def test_what_was_never_run_and_cannot_be_counted_is_unknown(study):
    words = study.job("quick", "words", "quick")
    found = cost.estimate(words)
    assert math.isnan(found.seconds) and math.isnan(found.bytes)
    assert found.basis == cost.UNKNOWN
    assert math.isnan(found.counted)


def test_a_dry_run_says_what_is_in_no_sum(study):
    words, b = study.job("quick", "words", "quick"), study.job("quick", "fr_training", "quick-b")
    finish(words, 21)
    finish(b, 60)
    more = replace(words, parameters=words.parameters | {"draws": 30_000})
    said, other = cli._budget([b, more], 1), "the 1 timed with other parameters alone."
    assert said.startswith("In all about 60 s of work, 60 s with 1 at a time")
    assert said.endswith(f"of disk without {other}")
    after = study.job("quick", "after", "quick-a")  # quantises a network that nobody knows
    said = cli._budget([b, more, after], 1)
    assert said.endswith(f"of disk without the 1 of which nothing is known and {other}")


def test_what_was_not_counted_when_it_was_stored_takes_as_long_again(study, done, monkeypatch):
    copies, full = (study.job(profile, "copies", profile) for profile in ("quick", "full"))
    finish(copies, 37)
    with monkeypatch.context() as before:
        before.setattr(cost, "_copying", lambda given: cost.Work())
        cost.store(study.root)
    shutil.rmtree(copies.folder)
    found = cost.estimate(copies)
    assert (found.seconds, found.basis) == (37, cost.ELSEWHERE)
    assert cost.estimate(full).basis == cost.COMPUTED


def test_estimates_are_in_the_order_of_the_jobs(study):
    jobs = study.jobs("quick")
    finish(jobs[1], 50)
    found = cost.estimates(jobs)
    assert len(found) == len(jobs)
    assert found[1].basis == cost.HERE and found[1].seconds == 50
    assert cost.estimates([]) == []


def test_a_notebook_with_other_parameters_of_these_names_is_unknown(tmp_path):
    study = plan.load(project.make(tmp_path / "p") / "study.yml")
    assert [one.basis for one in cost.estimates(study.jobs("smoke"))] == [cost.UNKNOWN] * 3
    assert cost._work({"architecture": 3, "epochs": "many"}, tmp_path, {}) == cost.Work()


# --- several at a time ---------------------------------------------------------------------------


def job(name, inputs=(), alone=False):
    folder = Path("/runs/x") / name
    made = {"root": Path("/"), "experiment": "x", "name": name, "profile": "quick", "title": "x"}
    made |= {"notebook": Path("/x.ipynb"), "folder": folder, "parameters": {}, "alone": alone}
    return plan.Job(**made, inputs=tuple(Path("/runs/x") / i for i in inputs))


def test_makespan_keeps_the_order_of_what_is_read():
    jobs = [job("a"), job("b"), job("c", ["a"]), job("report", ["b", "c"])]
    assert cost.makespan(jobs, [5, 3, 4, 2], 2) == 5 + 4 + 2
    assert cost.makespan(jobs, [5, 3, 4, 2], 1) == 14
    assert cost.makespan(jobs, [5, 3, 4, 2], 100) == 11
    assert cost.makespan(jobs, [5, 3, math.nan, 2], 2) == 7
    assert cost.makespan([], [], 3) == 0


def test_a_job_that_runs_alone_waits_and_is_waited_for():
    jobs = [job("a"), job("b"), job("timed", alone=True), job("c")]
    assert cost.makespan(jobs, [5, 3, 4, 2], 2) == 5 + 4 + 2


def test_no_place_is_refused():
    with pytest.raises(errors.ParameterError) as told:
        cost.makespan([job("a")], [1], 0)
    assert str(told.value) == errors.BAD_SIZE.format(what="n", least=1, value=0)


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=30), st.integers(1, 8))
def test_makespan_of_free_jobs_is_within_grahams_bounds(seconds, n):
    jobs = [job(str(i)) for i in range(len(seconds))]
    found, least = cost.makespan(jobs, seconds, n), max(max(seconds), sum(seconds) / n)
    assert least <= found * (1 + 1e-9) + 1e-9
    assert found <= sum(seconds) / n + max(seconds) + 1e-6


def test_a_budget_adds_up_what_is_known():
    costs = [
        cost.Estimate(4, 10, cost.HERE, ""),
        cost.Estimate(6, 20, cost.COMPUTED, ""),
        cost.Estimate(700, 800, cost.OTHER, ""),
        cost.Estimate(math.nan, math.nan, cost.UNKNOWN, ""),
    ]
    assert cost.budget([job(name) for name in "abcd"], costs, 2) == {
        "runs": 4,
        "here": 1,
        "elsewhere": 0,
        "computed": 1,
        "other": 1,
        "unknown": 1,
        "work_seconds": 10,
        "seconds": 6,
        "bytes": 30,
    }


# --- disk ----------------------------------------------------------------------------------------


def test_bytes_on_disk_are_those_of_the_arrays():
    assert cost.packed_bytes(7, 48) == torch.zeros(7, 48, 48, 3, dtype=torch.uint8).nbytes
    rows = torch.zeros(7, 2, 64, dtype=torch.float16)
    assert cost.cache_bytes(7, 64) == rows.nbytes
    assert cost.cache_bytes(7, 64, mirrored=False) == rows[:, :1].clone().nbytes
    assert cost.checkpoint_bytes(100, 50) == 2 * 4 * 150


def test_a_saved_network_is_as_large_as_said(tmp_path, study):
    given_ = plan.effective(study.job("quick", "fr_training", "quick-a"))
    network = models.build("iresnet", **TRAINED["settings"], size=32, seed=0)
    about = {"architecture": "iresnet", "settings": TRAINED["settings"] | {"size": 32}}
    models.save(network, tmp_path / "network.safetensors", about)
    weights = cost._work(given_ | {"pairs_per_group": 0}, tmp_path, {}).bytes
    assert (tmp_path / "network.safetensors").stat().st_size == pytest.approx(weights, rel=0.05)


# --- the table that is carried -------------------------------------------------------------------


@pytest.fixture
def done(monkeypatch):
    """Let every finished run be up to date."""
    state = {True: plan.State("done"), False: plan.State("missing")}
    monkeypatch.setattr(
        plan, "standing", lambda job, code=None: state[(job.folder / runs.RECORD).exists()]
    )


def test_stored_times_are_measured_elsewhere(study, done):
    a = study.job("quick", "fr_training", "quick-a")
    full = study.job("full", "fr_training", "full-a")
    finish(a, 5000, machine="that one")
    before = cost.estimate(full)
    path = cost.store(study.root)
    assert path == study.root / cost.TABLE
    shutil.rmtree(a.folder)
    found = cost.estimate(a)
    assert (found.seconds, found.basis) == (5000, cost.ELSEWHERE)
    assert found.source == "fr_training/quick-a on that one"
    assert cost.estimate(full).seconds == pytest.approx(before.seconds, abs=0.01)


@pytest.mark.parametrize("digest", [None, "000000000012"])  # not to be read as a number
def test_stored_times_of_what_has_no_networks_are_found_again(study, done, monkeypatch, digest):
    if digest:
        monkeypatch.setattr(cost, "_digest", lambda parameters: digest)
    words = study.job("quick", "words", "quick")
    finish(words, 21)
    cost.store(study.root)
    shutil.rmtree(words.folder)
    found = cost.estimate(words)
    assert (found.seconds, found.basis) == (21, cost.ELSEWHERE)
    assert found.source == "words/quick on here"


def test_the_times_of_a_gpu_are_stored_as_such(study, done, with_gpu, monkeypatch):
    a = study.job("quick", "fr_training", "quick-a")
    finish(a, cost.work(a).seconds(speed.here("cuda")) + 7, device=H100)
    row = pd.read_csv(cost.store(study.root)).iloc[0]
    assert row[["machine", "device"]].tolist() == [H100, "cuda"]
    assert row["rest_seconds"] == pytest.approx(7)
    shutil.rmtree(a.folder)
    assert cost.estimate(a).basis == cost.ELSEWHERE
    on_cpu = replace(a, parameters=a.parameters | {"device": "cpu"})
    assert cost.estimate(on_cpu).basis == cost.COMPUTED


def test_storing_again_keeps_other_machines_and_replaces_ones_own(study, done):
    a = study.job("quick", "fr_training", "quick-a")
    finish(a, 50, machine="that one")
    cost.store(study.root)
    shutil.rmtree(a.folder)
    finish(a, 20)
    cost.store(study.root)
    shutil.rmtree(a.folder)
    finish(a, 21)
    table = pd.read_csv(cost.store(study.root))
    assert list(table.columns) == list(cost.COLUMNS)
    assert table[["machine", "seconds"]].to_numpy().tolist() == [["here", 21.0], ["that one", 50.0]]
    assert not list(
        path for path in (study.root / cost.TABLE).parent.iterdir() if path.suffix != ".csv"
    )


def test_stale_runs_are_not_stored(study, monkeypatch):
    finish(study.job("quick", "fr_training", "quick-a"), 50)
    monkeypatch.setattr(plan, "standing", lambda job, code=None: plan.State("stale", ("x",)))
    with pytest.raises(errors.RunError) as told:
        cost.store(study.root)
    assert str(told.value) == errors.NO_COSTS.format(folder=study.runs_dir)
    assert not (study.root / cost.TABLE).exists()


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_a_damaged_table_is_refused(study, text):
    path = study.root / cost.TABLE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(errors.DataError, match="not the table of measured times") as told:
        cost.estimate(study.job("quick", "fr_training", "quick-a"))
    assert str(path) in str(told.value)


def test_spans_are_said_in_the_nearest_unit():
    said = [cost.span(s) for s in (0.4, 59, 600, 7200, 200_000, 3e6, math.nan)]
    assert said == ["0 s", "59 s", "10 min", "2.0 h", "2.3 days", "35 days", "unknown"]


def test_the_plan_of_the_study_itself_can_be_costed():
    jobs = plan.load(ROOT / "study.yml").jobs("full")
    found = cost.estimates(jobs, speed.assumed("H100"))
    trained = [one for j, one in zip(jobs, found, strict=True) if j.experiment == "fr_training"]
    assert len(trained) >= 15
    assert all(60 < one.seconds < 10 * 86_400 for one in trained)
