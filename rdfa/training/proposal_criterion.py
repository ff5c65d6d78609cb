"""What a detector on a map of proposals is trained on: its boundaries and the overlap of its segments."""

from rdfa.data.windows import Batch
from rdfa.models.proposals.detector import ProposalMaps
from rdfa.schema import ProposalModel, Run
from rdfa.training.criterion import OfBatch
from rdfa.training.proposal_losses import ProposalLosses, proposal_losses
from rdfa.training.proposal_targets import proposal_targets


class ProposalCriterion:
    """Balanced losses on boundaries and segments (`proposal_losses`)."""

    carried = 0.0
    """Nothing goes from one step to the next."""

    def __init__(self, run: Run) -> None:
        assert isinstance(run.model, ProposalModel)
        self.params = run.model

    def __call__(self, output: ProposalMaps, batch: Batch, of_batch: OfBatch) -> ProposalLosses:
        """See `rdfa.training.criterion.Criterion`."""
        segments = [window.segments for window in batch.windows]
        targets = proposal_targets(segments, self.params.steps, self.params.proposal_loss)
        return proposal_losses(output, targets.to(output.start.device), self.params, of_batch)
