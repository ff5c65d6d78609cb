"""What a run's parameters are: one frozen, typed section per stage, with units and sources.

Reading order: `Run` (everything) holds `Source`, `Features`, `Windows`, `Model`, `Training`,
`Detection`, `Evaluation` and `Runtime`. Fields have no defaults: every value comes from a file in
`params/`, so that no constant hides in code. `rdfa.params` composes the files and builds these.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$")]
"""Names become parts of paths and of shell commands: lower-case letters, digits, `_` and `.` only."""
Quantiles = Annotated[tuple[NotNegativeFloat, ...], Field(min_length=2)]
"""Values at equally spaced quantiles, drawn from by interpolation. The first is the minimum, the last the end of a
tail that gives the interpolated values the mean of the data (rdfa.data.statistics), at most the maximum."""


class Section(BaseModel):
    """A group of parameters: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


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


class Archive(Section):
    """A file to be unpacked, known by its checksum."""

    url: str
    """Where people who have the internet get it."""
    variable: str
    """Environment variable that may hold the path of a local copy."""
    sha256: tuple[str, ...]
    """Accepted SHA-256 checksums: of the archive itself, or of its content (rdfa.data.sources.archive.content_digest),
    which is the same however the files were packed."""
    terms: str
    """Terms of use, printed where the data is fetched."""


class Hub(Section):
    """A data set of features on the Hugging Face Hub."""

    repository: str
    suffix: str
    """What follows a video's name in the name of its feature file."""


class Source(Section):
    """Where a data set comes from; exactly the sub-section of its kind is given."""

    kind: Literal["sample", "hapt", "hub"]
    statistics: Statistics | None
    sample: Sample | None
    archive: Archive | None
    hub: Hub | None

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        needed = {"sample": ("sample", "statistics"), "hapt": ("archive",), "hub": ("hub",)}[self.kind]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"kind {self.kind!r} needs the section {name!r}")
        return self


class Features(Section):
    """What the feature store must hold; a store that disagrees is refused."""

    encoder: str
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
    min_kept: Fraction
    """An instance cut by a crop counts if at least this share of it is inside."""


class Block(Section):
    """The Feature Aggregated Bi-S6 block (paper section 3; docs/fidelity.md names the open points)."""

    aggregate: Literal["sum_maps", "sum_outputs", "concatenate"]
    """sum_maps: the convolutions' outputs are summed, one scan (paper). sum_outputs: a scan per kernel,
    outputs summed. concatenate: a scan per kernel, outputs side by side (released code)."""
    share_bc: bool
    """B and C of every kernel come from the first kernel's convolution (released code)."""
    gradients: Literal["exact", "official"]
    """exact: of the forward pass. official: of the released code's defective backward (models/official_backward)."""
    state: Positive
    """N, states per channel."""
    expand: Positive
    """Inner channels per channel."""
    dt_min: PositiveFloat
    dt_max: PositiveFloat
    dt_floor: PositiveFloat
    """Initial step sizes are log-uniform in [dt_min, dt_max], at least dt_floor (Mamba's defaults)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.share_bc and self.aggregate == "sum_maps":
            raise ValueError("block.share_bc means nothing with block.aggregate 'sum_maps' (one map): set it to false")
        if self.gradients == "official" and not (self.aggregate == "concatenate" and self.share_bc):
            raise ValueError("block.gradients 'official' needs block.aggregate 'concatenate' and block.share_bc true")
        if self.dt_min > self.dt_max:
            raise ValueError("block.dt_min exceeds block.dt_max")
        return self


class Stem(Section):
    """The recurrent Dual Bi-S6 stem."""

    blocks: NotNegative
    """Stem blocks with weights of their own, one after the other (untied depth)."""
    recurrence: Positive
    """r: how often the stem is applied with the same weights."""
    dual: Literal["none", "temporal", "channel", "dual"]
    residual: Literal["input", "previous"]
    """What each iteration's output is added to: the stem's input (paper, released) or the previous iterate."""
    temporal_kernels: tuple[Positive, ...]
    channel_kernels: tuple[Positive, ...]
    channel_input: Literal["stem_input", "temporal_output"]
    """What the channel path pools: temporal_output (paper) or the un-normalised stem input (released)."""
    channel_width: Positive
    """Steps that time is pooled to before the channel path: 1 (paper), 2304 // 4 (released)."""


class Branch(Section):
    """The blocks between two pyramid levels."""

    kernels: tuple[Positive, ...]
    dual: Literal["none", "temporal", "channel", "dual"]


class Heads(Section):
    """The classification and the offset head; same shape, weights of their own."""

    width: Positive
    """Channels of the hidden layers."""
    layers: Positive
    """Convolutions, the last one included."""
    kernel: Positive
    prior: Annotated[float, Field(gt=0, lt=1)]
    """Initial class probability (focal loss's prior)."""


class Model(Section):
    """The detector."""

    family: Literal["rdfa"]
    width: Positive
    """Channels of the backbone (embedding dimension)."""
    embedding_layers: Positive
    embedding_kernel: Positive
    block: Block
    stem: Stem
    branch: Branch
    heads: Heads
    regression_ranges: Annotated[tuple[tuple[NotNegativeFloat, PositiveFloat], ...], Field(min_length=1)]
    """Per pyramid level, the distances to a boundary that it predicts, in grid steps."""
    padding: Literal["masked", "leaky"]
    """masked: nothing of the padding reaches a valid step. leaky: as the released code."""
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    """Probability that a residual path is dropped for a video in training."""
    path_scale: PositiveFloat
    """Initial value of the learned scale of each residual path."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for low, high in self.regression_ranges:
            if low >= high:
                raise ValueError(f"regression_ranges: [{low}, {high}] is empty")
        if self.heads.kernel % 2 == 0 or self.embedding_kernel % 2 == 0:
            raise ValueError("heads.kernel and embedding_kernel must be odd, or the length changes")
        for name, dual in (("stem", self.stem.dual), ("branch", self.branch.dual)):
            if dual == "channel" and self.stem.channel_input == "temporal_output":
                raise ValueError(f"{name}.dual 'channel' has no temporal path: set stem.channel_input to 'stem_input'")
        return self


class Loss(Section):
    """Focal and DIoU losses and their normaliser."""

    normalizer: Literal["constant", "running"]
    """constant: (1 - m) * initial + m * positives of this batch (released). running: ActionFormer's running mean."""
    normalizer_initial: PositiveFloat
    normalizer_momentum: Fraction
    """Weight of the old value, 0.9 in both."""
    regression_weight: PositiveFloat
    label_smoothing: Fraction
    focal_alpha: Fraction
    focal_gamma: NotNegativeFloat


class Average(Section):
    """Exponential moving average of the weights."""

    decay: Annotated[float, Field(ge=0, lt=1)]
    ramp: bool
    """Raise the decay as (1 + t) / (10 + t) up to `decay`; off: constant, as the released code."""


class Training(Section):
    """Optimisation, and which epoch's weights are kept."""

    epochs: Positive
    """Epochs that are run."""
    schedule_epochs: Positive
    """Epochs that the cosine spans, warm-up included (released: 50 while 49 are run)."""
    warmup_epochs: NotNegative
    learning_rate: PositiveFloat
    min_learning_rate: NotNegativeFloat
    weight_decay: NotNegativeFloat
    decay_state: bool
    """Weight decay also on A_log and D, as the released code does by oversight."""
    batch_size: Positive
    gradient_clip: NotNegativeFloat
    """Largest norm of the gradient; 0 turns clipping off."""
    center_radius: NotNegativeFloat
    """Centre sampling radius in units of the level's stride; 0: every point inside the segment."""
    loss: Loss
    average: Average
    precision: Literal["float32", "bfloat16", "float16"]
    """Autocast type; scans keep float32 states. float16 needs CUDA."""
    selection: Literal["last", "best_test"]
    """best_test evaluates on the test split each epoch and keeps the best weights, as the released code does."""
    selection_from: Positive
    """First epoch that best_test looks at."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_epochs >= self.schedule_epochs:
            raise ValueError("warmup_epochs must be smaller than schedule_epochs")
        if self.selection == "best_test" and self.selection_from > self.epochs:
            raise ValueError("selection_from lies beyond the last epoch")
        return self


class Detection(Section):
    """Decoding and suppression."""

    weights: Literal["averaged", "plain"]
    score_threshold: Fraction
    """Class scores below it are not decoded."""
    top_k: Positive
    """Candidates per pyramid level that are decoded."""
    min_duration: NotNegativeFloat
    """Shortest segment in grid steps."""
    nms: Literal["gaussian", "linear", "hard", "none"]
    sigma: PositiveFloat
    tiou: Fraction
    """tIoU threshold of hard and linear NMS."""
    min_score: Fraction
    max_segments: Positive
    """Detections kept per video."""
    multiclass: bool
    """NMS within each class; otherwise over all classes together."""
    voting: Fraction
    """tIoU from which neighbours vote on a boundary; 0 turns voting off. Unused when multiclass (released)."""
    voting_weight: Literal["score", "score_times_tiou"]
    external_classes: NotNegative
    """Top classes of the video-level classifier that each segment is given; 0: the head classifies."""


class Evaluation(Section):
    """How detections are judged."""

    protocol: Literal["activitynet", "thumos14"]
    tious: Annotated[tuple[Fraction, ...], Field(min_length=1)]


class Runtime(Section):
    """Where and with what a run computes: not part of a run's identity."""

    device: Literal["auto", "cpu", "cuda"]
    threads: Positive
    """CPU threads of one job."""
    workers: NotNegative
    """Processes that read features; 0 reads in the training process."""
    gpus: NotNegative
    """GPUs that a training job reserves with Snakemake."""
    memory_mb: Positive
    minutes: Positive


class Run(Section):
    """Everything that a run reads: data set x model x variant x seed x scale, resolved."""

    dataset: Name
    model_name: Name
    variant: Name
    scale: Name
    seed: NotNegative
    train_subset: str
    test_subset: str
    num_classes: Positive
    """Classes of the data set."""
    source: Source
    features: Features
    windows: Windows
    model: Model
    training: Training
    detection: Detection
    evaluation: Evaluation
    runtime: Runtime

    @property
    def head_classes(self) -> int:
        """Classes of the detector's head: one ("action") where an external classifier names them."""
        return 1 if self.detection.external_classes else self.num_classes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        coarsest = 2 ** (len(self.model.regression_ranges) - 1)
        if self.windows.max_length % coarsest:
            raise ValueError(
                f"windows.max_length {self.windows.max_length} is not a multiple of the coarsest stride {coarsest}"
            )
        if self.detection.external_classes > self.num_classes:
            raise ValueError("detection.external_classes exceeds num_classes")
        return self
