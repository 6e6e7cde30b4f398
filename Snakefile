# One rule per run of study.yml. `study run` calls this; by hand: snakemake --cores 2
#   --config profile=smoke        another profile than quick
#   --config threads=4            threads per run (default 1: runs side by side, not threads)
#   --executor slurm --jobs 8     on a cluster, with Snakemake's plugin for it (not tested here)
# Whether a run is done is decided by studylib.plan. Snakemake sees it through an empty file in the
# run's folder whose name holds the fingerprint of parameters, notebook and library.
import sys
from pathlib import Path

from studylib import plan

ROOT = Path(workflow.basedir)
PROFILE = config.get("profile", "quick")
ONLY = str(config.get("jobs", "")).split(",") if "jobs" in config else None
FORCE = "--force" if config.get("force") else ""
JOBS = [j for j in plan.load(ROOT / plan.FILE).jobs(PROFILE) if ONLY is None or j.id in ONLY]
STAMPS = {j.folder: j.folder / f".made-from-{plan.fingerprint(j)}" for j in JOBS}


workdir: ROOT / "runs"


rule all:
    input:
        list(STAMPS.values()),


for job in JOBS:

    rule:
        name:
            f"{job.experiment}_{job.name}".replace("-", "_")
        input:
            notebook=job.notebook,
            runs=[STAMPS[folder] for folder in job.inputs if folder in STAMPS],
            files=job.files,
        output:
            touch(STAMPS[job.folder]),
        params:
            python=sys.executable,
            root=ROOT,
            words=f"--profile {job.profile} {job.experiment} {job.name} {FORCE}",
        # A chapter that needs no runs may be the longest job of all: it must not be left to the end.
        priority: int(job.name == job.profile and not job.inputs)
        # A job that takes times holds all cores, so that nothing runs beside it.
        threads: (workflow.cores if job.alone else None) or int(config.get("threads", 1))
        shell:
            "{params.python:q} -m studylib.execute --project {params.root:q}"
            " --threads {threads} {params.words}"
