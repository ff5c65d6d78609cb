"""Use of a trained model on any features: `load` a run's folder, `detect` in an array, a file, a video of hours.

In the order of reading: `passes` (the detector over one video), `timing` (steps to seconds), `trained` (load and
detect).
"""
