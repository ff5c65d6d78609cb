"""rdfa: a reproducibility pipeline for RDFA-S6 (arXiv 2407.13078) and RCL (CVPR 2022)."""

__version__ = "0.1.0"
