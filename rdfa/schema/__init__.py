"""What a run's parameters are: one frozen, typed section per stage, with units and sources.

Reading order: `Run` (everything) holds `Source`, `Features`, `Windows`, `Model`, `Training`,
`Detection`, `Evaluation` and `Runtime`. Fields have no defaults: every value comes from a file in
`params/`, so that no constant hides in code. `rdfa.params` composes the files and builds these.
"""

from rdfa.schema.inference import Bootstrap, Detection, Evaluation, Runtime
from rdfa.schema.model import S6, Attention, Block, Branch, Convolution, Heads, Model, Scan, Stem, ViM
from rdfa.schema.proposal_model import (
    Base,
    Boundaries,
    BoundaryMatching,
    Confidence,
    Graph,
    Instances,
    ProposalLoss,
    ProposalModel,
    Rcl,
    Sampling,
    SGAlign,
)
from rdfa.schema.run import Run
from rdfa.schema.section import Line, Name, NotNegative, Positive, Section, Seed, invisible, visible
from rdfa.schema.source import OWN_PATHS, Archive, Beside, Features, Hub, Own, Sample, Source, Statistics, Windows
from rdfa.schema.training import Average, Loss, Training

__all__ = [
    "OWN_PATHS",
    "S6",
    "Archive",
    "Attention",
    "Average",
    "Base",
    "Beside",
    "Block",
    "Bootstrap",
    "Boundaries",
    "BoundaryMatching",
    "Branch",
    "Confidence",
    "Convolution",
    "Detection",
    "Evaluation",
    "Features",
    "Graph",
    "Heads",
    "Hub",
    "Instances",
    "Line",
    "Loss",
    "Model",
    "Name",
    "NotNegative",
    "Own",
    "Positive",
    "ProposalLoss",
    "ProposalModel",
    "Rcl",
    "Run",
    "Runtime",
    "SGAlign",
    "Sample",
    "Sampling",
    "Scan",
    "Section",
    "Seed",
    "Source",
    "Statistics",
    "Stem",
    "Training",
    "ViM",
    "Windows",
    "invisible",
    "visible",
]
