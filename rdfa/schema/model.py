"""The detector: its blocks, stem, branch and heads."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rdfa.schema.section import NotNegative, NotNegativeFloat, Positive, PositiveFloat, Section

Kernels = Annotated[tuple[Positive, ...], Field(min_length=1)]
"""Widths of convolutions."""


class Scan(Section):
    """What every selective scan has."""

    state: Positive
    """N, states per channel."""
    expand: Positive
    """Inner channels per channel."""
    dt_min: PositiveFloat
    dt_max: PositiveFloat
    dt_floor: PositiveFloat
    """Initial step sizes are log-uniform in [dt_min, dt_max], at least dt_floor (Mamba's defaults)."""

    @model_validator(mode="after")
    def _step_sizes(self) -> Self:
        if self.dt_min > self.dt_max:
            raise ValueError("block.dt_min exceeds block.dt_max")
        return self


class S6(Scan):
    """The Feature Aggregated Bi-S6 block (paper section 3; docs/fidelity.md names the open points).

    With the one kernel [4] it is ActionMamba's DBM.
    """

    kind: Literal["s6"]
    aggregate: Literal["sum_maps", "sum_outputs", "concatenate"]
    """sum_maps: the convolutions' outputs are summed, one scan (paper). sum_outputs: a scan per kernel,
    outputs summed. concatenate: a scan per kernel, outputs side by side (released code)."""
    share_bc: bool
    """B and C of every kernel come from the first kernel's convolution (released code)."""
    gradients: Literal["exact", "official"]
    """exact: of the forward pass. official: of the released code's defective backward (models/official_backward)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.share_bc and self.aggregate == "sum_maps":
            raise ValueError("block.share_bc means nothing with block.aggregate 'sum_maps' (one map): set it to false")
        if self.gradients == "official" and not (self.aggregate == "concatenate" and self.share_bc):
            raise ValueError("block.gradients 'official' needs block.aggregate 'concatenate' and block.share_bc true")
        return self


class ViM(Scan):
    """ActionMamba's ViM block: a scan in each direction, each with weights of its own (Vision Mamba's "v2")."""

    kind: Literal["vim"]


class Attention(Section):
    """ActionFormer's Transformer block: attention within a sliding window, then two linear layers."""

    kind: Literal["attention"]
    heads: Positive
    window: Annotated[int, Field(ge=3)]
    """Steps that a step attends to, itself in the middle: odd."""
    hidden: Positive
    """Inner channels per channel of the two linear layers (4)."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """On the projected attention and after both linear layers."""
    positions: bool
    """Add sinusoidal positions to the embedding."""

    @model_validator(mode="after")
    def _symmetric(self) -> Self:
        if self.window % 2 == 0:
            raise ValueError("block.window must be odd: as many steps before as after")
        return self


class Convolution(Section):
    """Two convolutions with ReLU between (ActionFormer's ConvBlock)."""

    kind: Literal["convolution"]
    expand: Positive
    """Inner channels per channel (2)."""


class NoBlock(Section):
    """No block at all: max-pooling alone makes the levels (TemporalMaxer)."""

    kind: Literal["none"]


Block = Annotated[S6 | ViM | Attention | Convolution | NoBlock, Field(discriminator="kind")]
"""What mixes the steps of a sequence. Each kind has its own parameters and no others."""


class Stem(Section):
    """The recurrent stem."""

    blocks: NotNegative
    """Stem blocks with weights of their own, one after the other (untied depth)."""
    recurrence: Positive
    """r: how often the stem is applied with the same weights."""
    dual: Literal["none", "temporal", "channel", "dual"]
    residual: Literal["input", "previous"]
    """What each iteration's output is added to: the stem's input (paper, released) or the previous iterate."""
    temporal_kernels: Kernels
    """Widths of the block's convolutions; one where the kind is not s6."""
    channel_kernels: Kernels
    channel_input: Literal["stem_input", "temporal_output"]
    """What the channel path pools: temporal_output (paper) or the un-normalised stem input (released)."""
    channel_width: Positive
    """Steps that time is pooled to before the channel path: 1 (paper), 2304 // 4 (released)."""


class Branch(Section):
    """The blocks between two pyramid levels."""

    kernels: Kernels
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

    @property
    def coarsest(self) -> int:
        """Stride of the coarsest level: the length of what the detector sees is a multiple of it."""
        return int(2 ** (len(self.regression_ranges) - 1))

    @property
    def all_learn(self) -> bool:
        """Whether every weight gets a gradient: not so the blocks' convolutions, by the released backward."""
        return not (isinstance(self.block, S6) and self.block.gradients == "official")

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

    @model_validator(mode="after")
    def _block_fits(self) -> Self:
        kind = self.block.kind
        if kind == "s6":
            return self
        places = (
            ("stem", self.stem.dual, "temporal_kernels", self.stem.temporal_kernels),
            ("branch", self.branch.dual, "kernels", self.branch.kernels),
        )
        for name, dual, field, kernels in places:
            if dual not in (("none",) if kind == "none" else ("none", "temporal")):
                raise ValueError(f"{name}.dual {dual!r} needs another block.kind than {kind!r}")
            if dual == "temporal" and (len(kernels) != 1 or (kind != "vim" and kernels[0] % 2 == 0)):
                wanted = "width" if kind == "vim" else "odd width"
                raise ValueError(f"{name}.{field} must be one {wanted} with block.kind {kind!r}, not {list(kernels)}")
        if kind in ("attention", "convolution") and self.padding == "leaky":
            raise ValueError(f"padding 'leaky' is not there for block.kind {kind!r}: set it to 'masked'")
        if isinstance(self.block, Attention) and self.width % self.block.heads:
            raise ValueError(f"width {self.width} is not a multiple of block.heads {self.block.heads}")
        return self
