"""Detectors: from feature vectors to class scores and boundary offsets on a temporal feature pyramid."""
