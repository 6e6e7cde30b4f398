"""What a run costs before it is run: seconds and bytes, from what others took or by arithmetic.

Sources, the first that knows: the run's own earlier record; other finished runs of its notebook in
its profile; the table of measured times that the study carries (`book/results/costs`); and else a
computed time: the network's operations over the rate of the machine (`speed`), to which comes what
the rest of the notebook took where it was measured. A measured time counts only for the same amount
of work, and where work cannot be counted for the same parameters; and a processor's time does not
count where a run would find a GPU, nor a GPU's where it would find none. Where work cannot be
counted and the notebook was run with other parameters alone, such a run's time is named as what it
is, and is in no sum: nobody knows how much more or less there is to do.

What is computed is the work of networks and the drawing of simulated faces. Other parts, such as
resampling, are taken as they were where they were measured, and a teacher's embeddings, which all
its students share, are counted for none of them.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from studylib import datasets, errors, photographs, plan, recognition, runs, speed
from studylib.models import PRETRAINED
from studylib.qat import SCHEDULES
from studylib.speed import FORWARD, TRAINING, Kind, Machine

TABLE = Path("book/results/costs/costs.csv")
COLUMNS = (
    *("experiment", "notebook", "profile", "run", "parameters", "machine", "device", "threads"),
    *("seconds", "rest_seconds", "bytes", "rest_bytes", "networks", "operations", "pixels"),
)
_WORDS = (*COLUMNS[:7], "networks")  # the columns that are no numbers
HERE, ELSEWHERE, COMPUTED, UNKNOWN = speed.HERE, "measured elsewhere", "computed", "unknown"
OTHER = "of other parameters"  # where a notebook was run with them alone
PER_IDENTITY = 45  # pictures, where nobody published their number: 1,248,932 of 27,997 in BUPT
SCORE_BYTES = 10  # of a pair's score in a table of outcomes, compressed
_FLOAT = 4  # bytes
_SAME, _SCALED = 1.02, 3.0  # amounts of work that differ by a factor below are one, or compared
_SFACE = ("mobilefacenet", {})  # what it is in all but its last layer
_HEADS = 3  # that `kd_adaface` trains, with each seed
_RECORD_FIELDS = ("parameters", "profile", "wall_seconds", "cpu", "device", "threads")


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    seconds, bytes : float
        NaN where nothing is known. Bytes of the run's own folder (and its checkpoints).
    basis : str
        `HERE`, `ELSEWHERE`, `COMPUTED`, `OTHER` or `UNKNOWN`.
    source : str
        In words: whose time it is, or what it was computed from.
    """

    seconds: float
    bytes: float
    basis: str
    source: str

    @property
    def counted(self) -> float:
        """The seconds that are in sums: NaN where nothing is known, or of other parameters."""
        return math.nan if self.basis == OTHER else self.seconds


@dataclass(frozen=True)
class Work:
    """What a run's parameters ask for.

    Attributes
    ----------
    operations : dict
        Floating point operations by `speed.Kind` of network.
    pixels : float
        Of simulated faces to be drawn.
    bytes : float
        Of trained weights, checkpoints and scores.
    """

    operations: dict[Kind, float] = field(default_factory=dict)
    pixels: float = 0.0
    bytes: float = 0.0

    @property
    def total(self) -> float:
        """All operations."""
        return sum(self.operations.values())

    def seconds(self, machine: Machine) -> float:
        """How long a machine takes for it."""
        trained = sum(done / machine.rate(kind) for kind, done in self.operations.items())
        return trained + (self.pixels / machine.drawing() if self.pixels else 0.0)

    @property
    def networks(self) -> str:
        """The kinds of network, in words."""
        return ", ".join(f"{kind.family} {kind.width:g}" for kind in sorted(self.operations))


@dataclass(frozen=True)
class Measured:
    """A finished run, as far as its cost goes."""

    experiment: str
    notebook: str
    profile: str
    run: str
    parameters: str  # their digest
    machine: str
    device: str  # cpu or cuda
    threads: int
    seconds: float
    bytes: float
    here: bool = False  # made by the processor or a GPU of this machine
    work: Work | None = None  # of a run in the study's folder; a row of the table has sums instead
    row: dict = field(default_factory=dict)

    @property
    def id(self) -> str:
        """EXPERIMENT/RUN."""
        return f"{self.experiment}/{self.run}"

    @cached_property
    def operations(self) -> float:
        """Of all networks."""
        return self.work.total if self.work else self.row["operations"]

    @cached_property
    def networks(self) -> str:
        """Their kinds, in words."""
        return self.work.networks if self.work else self.row["networks"]

    @cached_property
    def pixels(self) -> float:
        """Drawn."""
        return self.work.pixels if self.work else self.row["pixels"]

    @cached_property
    def rest_seconds(self) -> float:
        """What is left without networks and drawing; NaN where they ran on an unknown GPU.

        Measuring this machine takes a second.
        """
        if not self.work:
            return self.row["rest_seconds"]
        maker = speed.here() if self.device == "cpu" else speed.find_gpu(self.machine)
        return max(0.0, self.seconds - self.work.seconds(maker)) if maker else math.nan

    @cached_property
    def rest_bytes(self) -> float:
        """What is left without weights and scores."""
        return max(0.0, self.bytes - self.work.bytes) if self.work else self.row["rest_bytes"]


def estimate(job: plan.Job, machine: Machine | None = None) -> Estimate:
    """Say what one job will take: see `estimates`."""
    return estimates([job], machine)[0]


def estimates(jobs: Sequence[plan.Job], machine: Machine | None = None) -> list[Estimate]:
    """Say what jobs will take, each for itself.

    Parameters
    ----------
    jobs : sequence of plan.Job
        Of one project.
    machine : speed.Machine, optional
        Where they would run; by default this one, on the device that each job's parameter `device`
        chooses here. Times of other machines count as `ELSEWHERE`; for a GPU that is assumed only
        times of its model count.

    Returns
    -------
    list of Estimate
        One a job, in their order.
    """
    if not jobs:
        return []
    by_notebook: dict[str, list[Measured]] = {}
    for one in (*_finished(jobs), *carried(jobs[0].root)):
        by_notebook.setdefault(one.notebook, []).append(one)
    folders = {job.folder: job for job in jobs}
    found, present = [], {}  # this machine by the device that a job asks for
    for job in jobs:
        given = plan.effective(job)
        device = str(given.get("device", "auto"))
        if machine is None and device not in present:
            present[device] = _present(device)
        near = by_notebook.get(_notebook(job), [])
        near = sorted(near, key=lambda one: _distance(one, job))
        own = _work(given, job.root, folders)
        digests = _digests(given, {one.profile for one in near})
        known = [(one, one.parameters == digests[one.profile]) for one in near]
        found.append(_estimate(own, job.profile, known, machine or present[device]))
    return found


def _present(device: str) -> Machine:
    """Return the device that a parameter asks for, or the processor where it is not there."""
    try:
        return speed.here(runs.resolve_device(device))
    except errors.ParameterError:
        return speed.here()


def _estimate(
    own: Work, profile: str, known: list[tuple[Measured, bool]], machine: Machine
) -> Estimate:
    """Take the nearest measured time, scale one of its profile, or compute one.

    Known are runs of its notebook, and whether they had the same parameters.
    """
    placed = [
        (one, _ratio(own, one, same))
        for one, same in known
        if (same or one.profile == profile) and _counts(one, machine)
    ]
    for one, ratio in placed:
        if 1 / _SAME < ratio < _SAME:
            basis = HERE if one.here else ELSEWHERE
            return Estimate(one.seconds, one.bytes, basis, _told(one))
    for one, ratio in placed:
        if 1 / _SCALED < ratio < _SCALED:
            source = f"{ratio:.2f} times {_told(one)}"
            return Estimate(ratio * one.seconds, own.bytes + one.rest_bytes, COMPUTED, source)
    return _computed(own, known, machine)


def _counts(one: Measured, machine: Machine) -> bool:
    """Whether a measured time says what a machine takes: no processor's does for a GPU."""
    if machine.basis == speed.HERE:
        return one.device == machine.device
    return speed.is_model(one.machine, machine.name)


def _ratio(own: Work, one: Measured, same: bool) -> float:
    """How much more a job has to do than a run had; infinite where they cannot be compared."""
    if one.operations == one.pixels == 0:  # nothing counted: only the same again takes as long
        return 1.0 if same else math.inf
    if own.networks != one.networks:
        return math.inf
    mine, theirs = (own.total, one.operations) if own.total else (own.pixels, one.pixels)
    return mine / theirs if theirs else math.inf


def _digests(given: dict, profiles: Iterable[str]) -> dict[str, str]:
    """Digests of the same parameters in each profile, whose name is one but changes nothing."""
    named = {"profile"} & given.keys()
    return {each: _digest(given | dict.fromkeys(named, each)) for each in profiles}


def _digest(parameters: dict) -> str:
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]


def _told(one: Measured) -> str:
    return f"{one.id} on {one.machine}" + ("" if one.threads == 1 else ", several threads")


def _computed(own: Work, known: list[tuple[Measured, bool]], target: Machine) -> Estimate:
    """Work over rate, and what the rest took where the notebook was measured in any profile.

    Where nothing can be counted everything is rest; it is as much only with the same parameters.
    """
    if own.operations:
        seconds, size, source = own.seconds(target), own.bytes, f"its networks on {target.name}"
        rests = (one for one, _ in known if not math.isnan(one.rest_seconds))
        if (first := next(rests, None)) is not None:
            seconds, size = seconds + first.rest_seconds, size + first.rest_bytes
            source += f", the rest as {first.id}"
        return Estimate(seconds, size, COMPUTED, source)
    if known:
        first, same = max(known, key=lambda pair: pair[1])  # of several the nearest
        basis = COMPUTED if same else OTHER
        return Estimate(first.seconds, first.bytes, basis, f"all as {first.id}")
    return Estimate(math.nan, math.nan, UNKNOWN, "nothing like it has been run")


def _distance(one: Measured, job: plan.Job) -> tuple:
    """Order measured runs by how much they tell of a job: itself first, then its experiment's."""
    return (
        (one.experiment, one.run) != (job.experiment, job.folder.name),
        one.experiment != job.experiment,
        one.profile != job.profile,
        one.work is None,
        one.profile == "smoke",  # proves the path alone
    )


def makespan(jobs: Sequence[plan.Job], seconds: Sequence[float], n: int) -> float:
    """How long jobs take together, n at a time, in the plan's order.

    Each starts when a place is free and what it reads is made; one that runs alone waits for all
    and keeps all waiting. Unknown times (NaN) count as none. A place is kept for the next job of
    the plan while that waits for what it reads, where Snakemake would take another: so this is
    rather more than will pass.

    Parameters
    ----------
    jobs : sequence of plan.Job
        Each after those it reads.
    seconds : sequence of float
        Of each job.
    n : int
        How many run at a time, at least 1.
    """
    errors.at_least(1, n=n)
    free, ends = [0.0] * n, {}
    for job, took in zip(jobs, seconds, strict=True):
        ready = max((ends.get(folder, 0.0) for folder in job.inputs), default=0.0)
        start = max(free) if job.alone else heapq.heappop(free)
        end = max(start, ready) + (0.0 if math.isnan(took) else took)
        ends[job.folder] = end
        if job.alone:
            free = [end] * n
        else:
            heapq.heappush(free, end)
    return max(ends.values(), default=0.0)


def budget(jobs: Sequence[plan.Job], costs: Sequence[Estimate], n: int) -> dict:
    """Sum up what jobs take: one row of a table.

    Parameters
    ----------
    jobs, costs : sequence
        Jobs and their estimates.
    n : int
        How many run at a time.

    Returns
    -------
    dict
        runs; here, elsewhere, computed, other and unknown (numbers of runs, by where their time is
        from); work_seconds (one after the other), seconds (n at a time) and bytes, all without what
        is unknown or of other parameters.
    """
    seconds = [one.counted for one in costs]
    bases = [one.basis for one in costs]
    return {
        "runs": len(jobs),
        "here": bases.count(HERE),
        "elsewhere": bases.count(ELSEWHERE),
        "computed": bases.count(COMPUTED),
        "other": bases.count(OTHER),
        "unknown": bases.count(UNKNOWN),
        "work_seconds": sum(took for took in seconds if not math.isnan(took)),
        "seconds": makespan(jobs, seconds, n),
        "bytes": sum(one.bytes for one in costs if not math.isnan(one.counted)),
    }


# --- what a job has to do ------------------------------------------------------------------------


def work(job: plan.Job, jobs: dict[Path, plan.Job] | None = None) -> Work:
    """Count what a job's parameters ask for; nothing where they name no network that is known.

    Parameters
    ----------
    job : plan.Job
    jobs : dict, optional
        Other jobs by folder, where the networks it takes are to be trained.
    """
    return _work(plan.effective(job), job.root, jobs or {})


def _work(given: dict, root: Path, jobs: dict[Path, plan.Job]) -> Work:
    """Count by what is declared: an architecture is trained, a list of precisions is tried, ...

    A notebook of somebody's own may declare other things by these names: then nothing is known.
    """
    try:
        if {"architecture", "epochs", "training_seeds"} <= given.keys():
            return _comparing(given)
        if {"architecture", "epochs", "n_faces", "seeds"} <= given.keys():
            return _copying(given)
        if {"architecture", "epochs"} <= given.keys():
            return _training(given)
        if {"network", "precisions"} <= given.keys():
            return _quantising(given, root, jobs)
        if {"variants", "epochs"} <= given.keys():
            return _expressions(given)
    except (KeyError, TypeError, errors.StudyError):
        return Work()
    return Work()


def _training(given: dict) -> Work:
    """Training a recognition network and its head, testing it, and testing it compressed."""
    settings = given["settings"] | {"size": given["size"]}
    operations, parameters = speed.count(given["architecture"], settings)
    identities, pictures = _identities(given)
    classes = identities * settings.get("embedding", _embedding(given["architecture"]))
    head = 2 * classes * given.get("partial", 1.0)  # of the logits of a face
    variants = 1 + len(given.get("compress", ()))
    tested, pixels = _tested(given, given["size"])
    done = TRAINING * (operations + head) * pictures * given["epochs"]
    done += 2 * FORWARD * operations * tested * variants  # each face and its mirror image
    drawn = pictures * given["size"] ** 2 if _is_drawn(given) else 0
    kept = _FLOAT * parameters + SCORE_BYTES * _pairs(given) * variants
    if given.get("checkpoints"):
        kept += checkpoint_bytes(parameters, classes)
    return Work({speed.kind_of(given["architecture"], settings): float(done)}, drawn + pixels, kept)


def _comparing(given: dict) -> Work:
    """Training and testing a network with each head and seed; none of them is kept."""
    one, trainings = _training(given), _HEADS * len(given["training_seeds"])
    operations = {kind: trainings * done for kind, done in one.operations.items()}
    return Work(operations, one.pixels, trainings * SCORE_BYTES * _pairs(given))


def _copying(given: dict) -> Work:
    """Training a network on each set of faces with each seed, by a teacher's embeddings alone.

    Testing is left to the rest: how many faces the test has is known when they are read.
    """
    settings = given["settings"] | {"size": given["size"], "embedding": _embedding(_SFACE[0])}
    operations, _ = speed.count(given["architecture"], settings)
    seeds = len(given["seeds"])
    students = len(photographs.SETS) * seeds
    done = TRAINING * operations * given["n_faces"] * given["epochs"] * students
    # scored are these, an untrained one of each seed and the teacher; no network is kept
    kept = SCORE_BYTES * given["n_pairs"] * (students + seeds + 1)
    return Work({speed.kind_of(given["architecture"], settings): float(done)}, bytes=kept)


def _quantising(given: dict, root: Path, jobs: dict[Path, plan.Job]) -> Work:
    """Calibrating, training and testing a network in each precision."""
    found = _network(given["network"], root, jobs)
    if found is None:
        return Work()
    architecture, settings = found
    operations, _ = speed.count(architecture, settings)
    quantised = sum(name != "fp32" for name in given["precisions"])
    tested, pixels = _tested(given, settings.get("size", 112))
    faces = given["n_calibration"] * quantised + 2 * tested * len(given["precisions"])
    passes = {"qat": FORWARD + TRAINING, "rounding": TRAINING}.get(given["method"], 0)
    if passes:  # qat has a teacher beside the student; rounding learns layer by layer
        faces += passes * (given["steps"] or _steps(given)) * given["batch_size"] * quantised
    kept = SCORE_BYTES * _pairs(given) * len(given["precisions"])
    return Work({speed.kind_of(architecture, settings): operations * faces}, pixels, kept)


def _steps(given: dict) -> int:
    return SCHEDULES[given["schedule"]].epochs * (given["n_train"] // given["batch_size"])


def _expressions(given: dict) -> Work:
    """Training the expression network, and tuning what was pruned or clustered."""
    if given["data_set"] != recognition.SIMULATED:
        return Work()
    size = given["size"] or 48
    operations, _ = speed.count_expression(given["width"], size)
    tuned = given["epochs"]
    tuned += given["prune_epochs"] * sum("s" in name or "ch" in name for name in given["variants"])
    tuned += given["cluster_epochs"] * sum(
        any(part[0] == "c" and part[1].isdigit() for part in name.split("+"))
        for name in given["variants"]
    )
    faces = TRAINING * given["n_train"] * tuned + given["n_test"] * (1 + len(given["variants"]))
    pixels = (given["n_train"] + given["n_test"]) * size**2
    kept = 2 * SCORE_BYTES * given["n_test"] * (1 + len(given["variants"]))
    return Work({Kind("expression", given["width"]): operations * faces}, pixels, kept)


def _network(name, root: Path, jobs: dict[Path, plan.Job]) -> tuple[str, dict] | None:
    """The architecture and settings of a network: pretrained, or of a run's folder."""
    if name in PRETRAINED:
        return _SFACE if name == "sface" else None
    folder = (root / str(name)).parent
    if folder in jobs:
        given = plan.effective(jobs[folder])
    elif record := runs.read_record(folder):
        given = record["parameters"]
    else:
        return None
    if not {"architecture", "settings", "size"} <= given.keys():
        return None
    return given["architecture"], given["settings"] | {"size": given["size"]}


def _identities(given: dict) -> tuple[int, float]:
    """How many identities and pictures a network is trained on."""
    if "training_set" in given:
        real = _of_set(given, given["real_set"], given["n_people"], given["per_person"])
        made = _of_set(
            given,
            given["synthetic_set"],
            given["n_synthetic"] or given["n_people"],
            given["per_synthetic"] or given["per_person"],
        )
        share = {"real": 0.0, "synthetic": 1.0}.get(given["training_set"], given["share"])
        identities, pictures = (
            a * (1 - share) + b * share for a, b in zip(real, made, strict=True)
        )
        return round(identities), pictures
    name = given.get("data_set") or given.get("real_set", recognition.SIMULATED)
    return _of_set(given, name, given["n_people"], given["per_person"])


def _of_set(given: dict, name: str, people: int, each: int) -> tuple[int, float]:
    if name == recognition.SIMULATED:
        return people, float(people * each)
    known = datasets.PUBLISHED_IDENTITIES.get(name, {})
    identities = known.get("identities", 0)
    return identities, float(known.get("pictures", identities * PER_IDENTITY))


def _is_drawn(given: dict) -> bool:
    sets = (given.get(name) for name in ("data_set", "real_set", "synthetic_set"))
    return all(name in (None, recognition.SIMULATED) for name in sets)


def _tested(given: dict, size: int) -> tuple[int, float]:
    """Faces to test on, and the pixels to draw for them."""
    if given.get("eval_set") != recognition.SIMULATED:
        return 2 * _pairs(given), 0.0
    faces = given["n_test_people"] * given["per_test_person"]
    return faces, faces * float(size**2)


def _pairs(given: dict) -> int:
    """Pairs of the test; none where their number is not known before the faces are read."""
    if given.get("eval_set") == recognition.SIMULATED:
        return given["pairs_per_group"] * len(recognition.SHARES["balanced"])
    return sum(datasets.PUBLISHED_PAIRS.get(given.get("eval_set"), {}).values())


def _embedding(architecture: str) -> int:
    return 128 if architecture == "mobilefacenet" else 512


# --- what lies on the disk -----------------------------------------------------------------------


def packed_bytes(images: int, size: int, channels: int = 3) -> int:
    """Bytes of a packed set's pixels: one each for every channel.

    >>> packed_bytes(5_822_653, 112) / 1e9  # MS1MV2
    219.11...
    """
    return images * size**2 * channels


def cache_bytes(images: int, embedding: int, *, mirrored: bool = True) -> int:
    """Bytes of a teacher's embeddings in half precision, of mirror images too or not."""
    return images * (2 if mirrored else 1) * embedding * 2


def checkpoint_bytes(parameters: int, head: int) -> int:
    """Bytes of a checkpoint: network and head, and as many values of momentum."""
    return 2 * _FLOAT * (parameters + head)


# --- what was measured ---------------------------------------------------------------------------


def _finished(jobs: Iterable[plan.Job]) -> Iterator[Measured]:
    """The finished runs of these jobs' experiments."""
    notebooks = {job.folder.parent: (job.root, _notebook(job)) for job in jobs}
    present = {speed.here().name, *speed.gpus()}
    for folder, (root, notebook) in notebooks.items():
        for path in sorted(folder.glob(f"[!.]*/{runs.RECORD}")):
            record = runs.read_record(path.parent)
            if record and record.keys() >= set(_RECORD_FIELDS):
                yield _measured(path.parent, record, root, notebook, present)


def _measured(folder: Path, record: dict, root: Path, notebook: str, present: set[str]) -> Measured:
    on_cpu = record["device"] == "cpu"
    machine = record["cpu"] if on_cpu else record["device"]
    return Measured(
        experiment=folder.parent.name,
        notebook=notebook,
        profile=record["profile"] or "by hand",
        run=folder.name,
        parameters=_digest(record["parameters"]),
        machine=machine,
        device="cpu" if on_cpu else "cuda",
        threads=record["threads"],
        seconds=record["wall_seconds"],
        bytes=sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
        here=machine in present,
        work=_work(record["parameters"], root, {}),
    )


def _notebook(job: plan.Job) -> str:
    return job.notebook.relative_to(job.root).as_posix()


def carried(root: Path) -> list[Measured]:
    """Read the times that a project carries: none where there is no table.

    Raises
    ------
    DataError
        The table cannot be read.
    """
    if not (root / TABLE).exists():
        return []
    table = _read(root / TABLE)
    own = (*COLUMNS[:9], "bytes")
    return [Measured(**{k: row[k] for k in own}, row=row) for row in table.to_dict("records")]


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(_WORDS, str))[list(COLUMNS)]
        return table.fillna({"networks": ""})  # of runs without any
    except (OSError, ValueError, KeyError) as problem:
        text = errors.COST_TABLE.format(file=path, problem=str(problem).rstrip("."))
        raise errors.DataError(text) from problem


def measured(study: plan.Plan) -> pd.DataFrame:
    """The times of all finished runs of a plan that are up to date, with the columns `COLUMNS`.

    Seconds and bytes; `rest_` is without networks and drawing, and without weights and scores.
    """
    jobs = [job for profile in study.profiles for job in study.jobs(profile)]
    code = runs.code_hashes()
    done = {job.folder for job in jobs if plan.standing(job, code).kind == "done"}
    found = [one for one in _finished(jobs) if study.runs_dir / one.id in done]
    return pd.DataFrame(
        [{name: getattr(one, name) for name in COLUMNS} for one in found], columns=COLUMNS
    )


def store(root: Path | str = ".") -> Path:
    """Write the times of a project's finished runs into the table that the study carries.

    Rows of other machines, and of runs that are not finished here, stay. To be called on the
    machine where they ran, with nothing else running: it measures that machine's speed.

    Returns
    -------
    pathlib.Path
        The table.

    Raises
    ------
    RunError
        Nothing is finished.
    DataError
        The table that is there cannot be read.
    """
    study = plan.load(Path(root) / plan.FILE)
    fresh = measured(study)
    if fresh.empty:
        raise errors.RunError(errors.NO_COSTS.format(folder=study.runs_dir))
    path = study.root / TABLE
    keys = ["machine", "experiment", "run"]
    parts = [_read(path), fresh] if path.exists() else [fresh]
    table = pd.concat(parts).drop_duplicates(keys, keep="last").sort_values(keys)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    table.round(2).to_csv(scratch, index=False, lineterminator="\n")
    scratch.replace(path)
    return path


def span(seconds: float) -> str:
    """A duration in words, to two digits.

    Examples
    --------
    >>> span(40), span(1000), span(30_000), span(900_000), span(float("nan"))
    ('40 s', '17 min', '8.3 h', '10 days', 'unknown')
    """
    if math.isnan(seconds):
        return "unknown"
    for unit, length, most in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 180_000)):
        if seconds < most:
            value = seconds / length
            return f"{value:.0f} {unit}" if value >= 10 or unit == "s" else f"{value:.1f} {unit}"
    return f"{seconds / 86_400:,.1f} days" if seconds < 864_000 else f"{seconds / 86_400:,.0f} days"
