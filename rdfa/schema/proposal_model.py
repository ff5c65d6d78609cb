"""Detectors on a map of proposals (BMN, G-TAD), and RCL's continuous, recurrently refined map on top of either.

Sources: Lin et al. 2019, "BMN" (arXiv 1907.09702); Xu et al. 2020, "G-TAD" (arXiv 1911.11462); Wang et al. 2022, "RCL"
(arXiv 2203.07112) with its supplement. What these leave open is marked 'ours'; docs/fidelity.md tells more.

Legend: T steps of a window, D longest duration in steps. Cell (d, s) of the map is the segment from half a step before
step s to half a step after step s + d: its duration is d + 1 steps.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rdfa.schema.section import Fraction, NotNegative, NotNegativeFloat, Positive, PositiveFloat, Section


class Base(Section):
    """The convolutions that the features pass first; G-TAD's graph block follows them."""

    width: Positive
    """Channels (256)."""
    layers: Positive
    """Convolutions with ReLU: 2 (BMN), 1 (G-TAD)."""
    kernel: Positive
    """Odd (3)."""
    groups: Positive
    """Groups of each convolution (4)."""


class Graph(Section):
    """G-TAD's GCNeXt blocks: edges to the neighbours in time, and to the nearest steps in feature space."""

    neighbours: Positive
    """k: semantic edges of a step, the one to itself included (3)."""
    groups: Positive
    """Paths of each of the two graph convolutions (32)."""
    group_width: Positive
    """Channels of a path (4)."""


class Boundaries(Section):
    """Start and end probabilities (TEM)."""

    kind: Literal["convolution", "graph"]
    """What comes before the last layer of each: a convolution over 3 steps (BMN), or a GCNeXt block (G-TAD). RCL on
    G-TAD says "other settings are the same as for BMN": convolution."""
    groups: Positive
    """Groups of that convolution (4); not read with kind graph."""


class BoundaryMatching(Section):
    """BMN's features of a segment: samples at equal distances over the extended segment."""

    kind: Literal["boundary_matching"]
    samples: Positive
    """N (32)."""
    points: Positive
    """Points whose mean is one sample: 3 in the public code, not in the paper."""
    extend: NotNegativeFloat
    """Share of its length by which the segment is extended at each side (0.5)."""
    width: Positive
    """Channels that are sampled, from a convolution over 3 steps (128)."""


class SGAlign(Section):
    """G-TAD's features of a segment: means over bins of the extended segment, of the steps and of their neighbours."""

    kind: Literal["sgalign"]
    samples: Positive
    """Bins of the steps' own features (32)."""
    context: Positive
    """Bins of the mean over each step's semantic neighbours (4)."""
    context_points: Positive
    """Points whose mean is a context bin's value (2); a bin of the own features has one for every step that it
    spans, as in the public code."""
    extend: NotNegativeFloat
    """Share of its length by which the segment is extended at each side (0.5)."""


Alignment = Annotated[BoundaryMatching | SGAlign, Field(discriminator="kind")]
"""How a segment of any length becomes features of a fixed size."""


class Confidence(Section):
    """From aligned features to the map of confidences (PEM)."""

    aligned: Positive
    """Channels after the convolution over all samples of a segment (512)."""
    width: Positive
    """Channels of the map (128)."""
    layers: NotNegative
    """Convolutions on the map (2)."""
    kernel: Positive
    """Odd: 3 (BMN), 1 (G-TAD)."""


class Instances(Section):
    """Segments that a continuous detector is asked for at inference."""

    kind: Literal["grid", "scale_invariant"]
    """grid: the cells. scale_invariant: durations at equal ratios, centres at equal shares of the duration (ours)."""
    scales: Annotated[int, Field(ge=2)]
    """Durations from 1 to D steps (ours); not read with kind grid."""
    spacing: PositiveFloat
    """Distance of neighbouring centres as a share of the duration (ours); not read with kind grid."""


class Rcl(Section):
    """RCL: a confidence for any segment (CAR), refined by a recurrent network (RRM)."""

    coordinates: Literal["offset", "absolute"]
    """The two channels beside the nearest cell's features: centre and duration relative to that cell in steps, or as
    shares of T and D. Not in the paper; offset is ours, since the cell's features already tell where it is."""
    hidden_layer: Positive
    """Channels of the layer between features with coordinates and confidences (ours)."""
    instances: Instances
    iterations: NotNegative
    """Refinements of the map (10); 0: none, and no network for it."""
    state: Positive
    """Channels of the GRU's state (64)."""
    context: Positive
    """Channels of the context (32)."""
    temporal: NotNegative
    """Channels of the "temporal features" in the GRU's input: 1, which with 2 confidences and 32 context channels and
    a 3 x 3 layer for the change gives the printed cost of an iteration (ours)."""
    supervise: Literal["every", "final"]
    """Maps that are trained besides the unrefined one, which always weighs 1: every iteration's, which share a weight
    of 1, or the last one, which has it alone (the name of an unused list in the supplement's code suggests the former;
    ours). So the losses are comparable between both, and between numbers of iterations."""
    gamma: Annotated[float, Field(gt=0, le=1)]
    """With `every`, the map after k of n iterations weighs in proportion to gamma^(n - k): 0.8, RAFT's; not in the
    paper."""


class Sampling(Section):
    """Segments that a training step learns from."""

    kind: Literal["grid", "sparse_half", "sparse_power", "scale_invariant"]
    """grid: all cells. sparse_half: every second start where the duration exceeds half of D. sparse_power: every
    2^l-th start, l = floor(duration / 0.2 D). Both also thin what is detected. scale_invariant: continuous, the
    logarithm of the duration and the centre uniform; for RCL only. Which starts are kept, and that durations count
    relative to D, is ours."""
    coordinates: Positive
    """Segments per video and step with scale_invariant (ours); not read otherwise."""


class ProposalLoss(Section):
    """Balanced losses (BMN's, in the form of its public codes)."""

    boundary_width: PositiveFloat
    """Steps around a boundary that count as it (3)."""
    boundary_overlap: Fraction
    """A step is a boundary where more than this share of it is in such a region (0.5)."""
    positive: Fraction
    """tIoU above which a segment is positive for the classification (0.9)."""
    high: Fraction
    """tIoU above which a segment counts as high for the regression (0.7)."""
    low: Fraction
    """tIoU up to which it counts as low (0.3)."""
    boundary_weight: NotNegativeFloat
    """Of the boundaries' loss (1)."""
    classification_weight: NotNegativeFloat
    """Of the classification's loss (1)."""
    regression_weight: NotNegativeFloat
    """Of the squared error (5: BMN's 10 on half of it)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"proposal_loss: low {self.low} is not below high {self.high}")
        return self


class ProposalModel(Section):
    """A detector on a map of D durations times T starts."""

    family: Literal["bmn", "gtad"]
    """Whose base feature: bmn, local convolutions; gtad, a GCNeXt block after them."""
    steps: Positive
    """T: 100 for ActivityNet, 256 for THUMOS-14."""
    durations: Positive
    """D: 100 for ActivityNet, 64 for THUMOS-14."""
    base: Base
    graph: Graph | None
    """Of every GCNeXt block; null where there is none."""
    boundaries: Boundaries
    alignment: Alignment
    confidence: Confidence
    refine: Rcl | None
    """null: the plain detector."""
    sampling: Sampling
    score: Literal["boundaries_times_confidence", "confidence"]
    """What ranks a segment: start x end x classification x regression (BMN), or the latter two alone (G-TAD, RCL)."""
    proposal_loss: ProposalLoss

    @property
    def coarsest(self) -> int:
        """As of a pyramid of one level."""
        return 1

    @property
    def all_learn(self) -> bool:
        """Whether every weight gets a gradient."""
        return True

    @model_validator(mode="after")
    def _graph_is_there(self) -> Self:
        users = {
            "family 'gtad'": self.family == "gtad",
            "boundaries.kind 'graph'": self.boundaries.kind == "graph",
            "alignment.kind 'sgalign'": self.alignment.kind == "sgalign",
        }
        for user, used in users.items():
            if used and self.graph is None:
                raise ValueError(f"{user} needs the section 'graph'")
        if self.graph is not None and not any(users.values()):
            raise ValueError("nothing here has a graph: set it to null")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.durations > self.steps:
            raise ValueError(f"durations {self.durations} exceeds steps {self.steps}: no such segment fits")
        if self.base.width % self.base.groups or self.base.width % self.boundaries.groups:
            raise ValueError("base.width must be a multiple of base.groups and of boundaries.groups")
        if self.graph is not None and self.graph.neighbours > self.steps:
            raise ValueError(f"graph.neighbours {self.graph.neighbours} exceeds steps {self.steps}")
        if self.base.kernel % 2 == 0 or self.confidence.kernel % 2 == 0:
            raise ValueError("base.kernel and confidence.kernel must be odd, or the length changes")
        if self.sampling.kind == "scale_invariant" and self.refine is None:
            raise ValueError("sampling.kind 'scale_invariant' needs a confidence for any segment: set refine")
        if self.refine is not None and self.refine.instances.kind != "grid" and self.sampling.kind.startswith("sparse"):
            raise ValueError(f"sampling.kind {self.sampling.kind!r} is one of cells: set refine.instances.kind 'grid'")
        return self
