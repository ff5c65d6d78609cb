"""Detectors on a map of proposals: BMN, G-TAD, and RCL's continuous, recurrently refined map on either.

Reading order: `detector` (the whole), `base` with `gcnext` (features), `tem` (boundaries), `pem` with
`boundary_matching` and `sgalign` (features of every cell), `car` (a confidence for any segment), `rrm` (refinement),
`cells` (where the segments are).

Legend: B batch, T steps of a window, C channels, D longest duration in steps, P segments, N samples of a segment.
Cell (d, s) is the segment [s - 0.5, s + d + 0.5] in grid steps: it holds the steps s to s + d.
"""
