# One rule per experiment or report of study.yml, one job per run. `study run` calls this; by hand:
#   snakemake --cores 2           the quick profile, two notebooks at a time
#     --config profile=smoke      another profile than quick
#     --config threads=4          threads per run (default 1: runs side by side, not threads)
#     --config group=8            eight runs of an experiment in one job, one after another
#     --profile profiles/slurm --jobs 8     on a cluster, eight jobs at a time
# Whether a run is done is decided by studylib.plan. Snakemake sees it through an empty file in the
# folder of a job's first run, whose name holds a hash of what its runs are made from: parameters,
# notebook and library.
import hashlib
import sys
from itertools import groupby
from pathlib import Path

from studylib import plan, runs

ROOT = Path(workflow.basedir)
FORCE = ["--force"] if config.get("force") else []
GROUP = int(config.get("group", 1))
# Elsewhere, nobody counts the cores: an executor is told of a number of jobs alone.
CLUSTER = workflow.remote_exec or workflow.resource_settings.cores is None
ONLY = set(config["jobs"]) if "jobs" in config else None
CODE = runs.code_hashes()
WHOLE = plan.load(ROOT / plan.FILE).jobs(config.get("profile", "quick"))
WANTED = [job for job in WHOLE if ONLY is None or job.id in ONLY]
SHARES = {}  # the first run's ID: the runs that share its job
for experiment, found in groupby(WANTED, key=lambda job: job.experiment):
    members = list(found)
    for i in range(0, len(members), GROUP):
        SHARES[members[i].id] = members[i : i + GROUP]


def stamp(first):
    made_from = "".join(plan.fingerprint(job, CODE) for job in SHARES[first])
    return f"{first}/.made-from-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"


STAMPS = {job.folder: made for first in SHARES for made in [stamp(first)] for job in SHARES[first]}


def needs(experiment):
    """What a job reads: notebook, files of the project, and the runs made before it."""

    def of(wildcards):
        members = SHARES[f"{experiment}/{wildcards.first}"]
        files = [path for job in members for path in (job.notebook, *job.files)]
        made = [STAMPS[f] for job in members for f in job.inputs if f in STAMPS]
        return list(dict.fromkeys([*map(str, files), *made]))

    return of


def words(experiment):
    """What `studylib.execute` is told of a job."""

    def of(wildcards):
        members = SHARES[f"{experiment}/{wildcards.first}"]
        return ["--profile", members[0].profile, *FORCE, experiment, *(j.name for j in members)]

    return of


def resources(job):
    """What a cluster is asked for: study.yml's word, above it that of `study run`."""
    alone = {"slurm_extra": "--exclusive"} if job.alone else {}
    return alone | job.resources | config.get("resources", {})


workdir: ROOT / "runs"


rule all:
    input:
        sorted(set(STAMPS.values())),


for experiment, found in groupby(WANTED, key=lambda job: job.experiment):
    job = next(found)

    rule:
        name:
            experiment.replace("-", "_")
        input:
            needs(experiment),
        output:
            touch(experiment + "/{first}/.made-from-{hash}"),
        wildcard_constraints:
            first="[^/]+",
            hash="[0-9a-f]+",
        params:
            python=sys.executable,
            root=ROOT,
            words=words(experiment),
        # A chapter that needs no runs may be the longest job of all: it must not be left to the end.
        priority: int(job.name == job.profile and not job.inputs)
        # A job that takes times holds all cores, so that nothing runs beside it; on a cluster it
        # has a node to itself (`resources`), and one thread there like every other.
        threads: workflow.cores if job.alone and not CLUSTER else int(config.get("threads", 1))
        resources:
            **resources(job),
        shell:
            "{params.python:q} -m studylib.execute --project {params.root:q}"
            " --threads {threads} {params.words:q}"
