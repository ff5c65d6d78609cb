"""Annotations, features and detections: their files, their sources, and windows for the detector."""
