"""Faults on purpose: what happens to rdfa on shared machines, injected by seed and counted (docs/reliability.md)."""
