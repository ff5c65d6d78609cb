"""Where a data set comes from, what its features are, and how a video becomes the model's input."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rdfa.schema.section import (
    Address,
    Commit,
    Fraction,
    Line,
    NotNegative,
    NotNegativeFloat,
    Positive,
    PositiveFloat,
    Quantiles,
    Section,
    Sha256,
)


class Statistics(Section):
    """The shape of a data set's annotations, from which the sample source draws."""

    origin: str
    """Where the numbers come from: measured from which file, or taken from which publication."""
    video_seconds: Quantiles
    """Video durations, seconds."""
    instances_per_video: Quantiles
    """Annotated instances in a video that has any."""
    instance_seconds: Quantiles | None
    """Instance durations in seconds; null where `instance_coverage` is given."""
    instance_coverage: Quantiles | None
    """Instance durations as a fraction of their video, for data sets whose instances grow with it."""
    class_weights: Quantiles
    """Instances of a class, classes in increasing order: the long tail. Only ratios matter."""
    classes_per_video: Quantiles
    """Different classes in one video."""
    overlapping: Fraction
    """Share of the instances that overlap another one in time."""

    @model_validator(mode="after")
    def _one_duration(self) -> Self:
        if (self.instance_seconds is None) == (self.instance_coverage is None):
            raise ValueError("give exactly one of instance_seconds and instance_coverage")
        for name in ("video_seconds", "instances_per_video", "instance_seconds", "instance_coverage", "class_weights"):
            values = getattr(self, name)
            if values is not None and list(values) != sorted(values):
                raise ValueError(f"{name}: quantiles must not decrease")
        return self


class Context(Section):
    """Decoys and cues of the sample source: what happens far away says whether an event is an action.

    A decoy is a whole action in all but its annotation. A cue is a short event, of one kind before decoys and of
    another before actions; it counts for all that follows, up to the next cue. In the videos of some classes it
    counts for all that precedes, back to the cue before.
    """

    decoys: NotNegativeFloat
    """Decoys per planted instance, as far as the background has room for them with their cues; 0: no cues either."""
    distance: tuple[PositiveFloat, PositiveFloat]
    """Steps between a cue and the nearest event that it counts for, log-uniform; never less than that event lasts."""
    steps: Positive
    """Steps that a cue lasts."""
    size: PositiveFloat
    """Amplitude of a cue; an action has amplitude 1."""
    following: Fraction
    """Share of the classes in whose videos the cue comes after what it counts for."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.distance[0] > self.distance[1]:
            raise ValueError("distance: the first is the least and must not exceed the second")
        return self


class Rhythm(Section):
    """Repeated textures of the sample source: sister classes that differ in nothing but how fast they alternate."""

    share: Fraction
    """Share of the pairs of sister classes that differ so; 0: none."""
    periods: Annotated[tuple[Annotated[float, Field(ge=2, allow_inf_nan=False)], ...], Field(min_length=1)]
    """Periods in steps, drawn from for each pair: one sister's; the other's is twice as long."""
    size: PositiveFloat
    """Amplitude of the texture, which is added to the action's phases."""


class Sample(Section):
    """How the sample source plants actions into features. All of it is ours."""

    seed: NotNegative
    """Seed of the generator; the same seed gives the same bytes."""
    train_videos: Positive
    test_videos: Positive
    max_instances: Positive
    """Instances per video are cut here, so that one video does not take the whole CPU budget."""
    noise: NotNegativeFloat
    """Standard deviation of the white noise on each feature channel; an action has amplitude 1."""
    drift: NotNegativeFloat
    """Standard deviation of the slow change of a video's background."""
    background: NotNegativeFloat
    """Standard deviation of a video's constant background on each feature channel."""
    gain: Fraction
    """Amplitudes of videos and of events vary uniformly within 1 - gain and 1 + gain."""
    distractors: NotNegativeFloat
    """Background events per planted instance that look like an action without its second half."""
    confusable: Fraction
    """Share of an action's appearance that it has in common with its sister class."""
    actionness: Fraction
    """Share of an action's appearance that all classes have in common."""
    ordered: Fraction
    """Share of the pairs of sister classes that differ in nothing but the order of their two phases."""
    score_accuracy: Fraction
    """How often the planted external video-level classifier names the right class first."""
    context: Context
    rhythm: Rhythm

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.ordered + self.rhythm.share > 1:
            raise ValueError("ordered and rhythm.share are shares of the same pairs: together at most 1")
        return self


class Archive(Section):
    """A file to be unpacked, known by its checksum."""

    url: Address
    """Where people who have the internet get it."""
    variable: Annotated[str, Field(pattern="^RDFA_[A-Z0-9_]+$")]
    """Environment variable that may hold the path of a local copy."""
    sha256: tuple[str, ...]
    """Accepted SHA-256 checksums: of the archive itself, or of its content (rdfa.data.sources.archive.content_digest),
    which is the same however the files were packed."""
    terms: str
    """Terms of use, printed where the data is fetched."""


class Beside(Section):
    """A file that goes with the features and is published elsewhere: annotations, or external class scores."""

    what: str
    """What it is, by the name that others know it by."""
    where: str
    """Where people get it."""
    url: Address | None
    """Address that it is downloaded from; null where none is known that lasts: then it is asked for."""
    sha256: Sha256 | None
    """Its SHA-256, checked wherever it came from; null where it is not known."""

    @model_validator(mode="after")
    def _downloads_are_checked(self) -> Self:
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of what is behind it")
        return self


class Hub(Section):
    """A data set of features on the Hugging Face Hub: archives of one tensor file per video."""

    repository: str | None
    """null: the features are in no repository that we know of, but in `features`."""
    revision: Commit | None
    """Full hash of the commit; null: what `main` is at the first call, written down in the manifest."""
    archives: Annotated[tuple[str, ...], Field(min_length=1)]
    """A pattern of file names for each .tar.gz: what matches, joined in the order of names, is the archive."""
    prefix: str
    """What precedes a video's name in the name of its feature file."""
    suffix: str
    """What follows a video's name in the name of its feature file."""
    axes: tuple[Literal["time", "channel", "mean"], ...]
    """What a tensor's axes are, in order; over those called `mean` the mean is taken (positions in a frame)."""
    missing_at_most: Fraction
    """Share of a split's videos that may lack features; a larger one is refused."""
    store_per_download: PositiveFloat
    """Bytes of the feature store per downloaded byte: an estimate, for the check of the disk."""
    attempts: Positive
    """Tries in a row that may bring no byte before a download is given up."""
    annotations: Beside
    scores: Beside | None
    """External class scores of the test split; null where the data set is used without."""
    features: Beside | None
    """What features.h5 is to be made of where `repository` is null; a person puts that file in place."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.axes.count("time") != 1 or self.axes.count("channel") != 1:
            raise ValueError("axes needs 'time' and 'channel', each once")
        if (self.repository is None) == (self.features is None):
            raise ValueError("give exactly one of hub.repository and hub.features")
        return self


class Own(Section):
    """A user's own files, written by `rdfa new-dataset`; paths are absolute or relative to the root of a checkout."""

    annotations: str
    """ActivityNet JSON, or CSV (rdfa.data.annotations_csv)."""
    features: str
    """Folder of one file per video, or one HDF5 file."""
    suffix: str | None
    """What follows a video's name in the name of its feature file; null where `features` is one HDF5 file."""
    layout: Literal["TC", "CT"]
    """Axes of each array: T steps, C channels."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of the content of these files (rdfa.data.sources.own_digest). Where the files are decides nothing."""


OWN_PATHS = {"annotations", "features"}
"""What of `Own` says only where the files are: in no key and in no manifest."""


class Source(Section):
    """Where a data set comes from; exactly the sub-section of its kind is given."""

    kind: Literal["sample", "hapt", "hub", "own"]
    statistics: Statistics | None
    sample: Sample | None
    archive: Archive | None
    hub: Hub | None
    own: Own | None

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        needed = {"sample": ("sample", "statistics"), "hapt": ("archive",), "hub": ("hub",), "own": ("own",)}[self.kind]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"kind {self.kind!r} needs the section {name!r}")
        return self


class Features(Section):
    """What the feature store must hold; a store that disagrees is refused."""

    encoder: Line
    dimension: Positive
    """Channels of a feature vector."""
    stride: Positive
    """Frames between two feature vectors."""
    window: Positive
    """Frames that one feature vector sees."""
    fps: PositiveFloat | None
    """Frames per second; null where it differs by video and stands in the store."""
    keep_every: Positive
    """Feature vectors are thinned by this factor when read (FineAction: 2)."""


class Windows(Section):
    """How a video becomes the model's input."""

    max_length: Positive
    """Feature vectors of a training window; shorter test videos are padded to it."""
    resample: bool
    """Stretch every video to `max_length` by linear interpolation (ActivityNet)."""
    crop_ratio: tuple[PositiveFloat, PositiveFloat] | None
    """Random crops of videos that fit keep a share of their length from this range."""
    overlap: Annotated[float, Field(ge=0, lt=1)] | None
    """Videos are cut into windows of `max_length` of which this share is seen by the next one too, in training and in
    detection, where all windows' segments together are a video's. null: training crops each video at random once per
    epoch, and detection sees it whole."""
    min_kept: Fraction
    """An instance cut by a crop or window counts if at least this share of it is inside."""

    @model_validator(mode="after")
    def _stretched_or_cut(self) -> Self:
        if self.resample and self.overlap is not None:
            raise ValueError("windows.overlap means nothing with windows.resample true (one window): set it to null")
        return self
