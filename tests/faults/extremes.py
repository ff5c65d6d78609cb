"""Extremes: the longest, the most, none, all equal, not finite. Right is an oracle's result or a clear error."""

from tests.faults import extremes_detection, extremes_evaluation

KINDS = (*extremes_evaluation.KINDS, *extremes_detection.KINDS)
