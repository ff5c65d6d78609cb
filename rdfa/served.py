"""The model that MLflow keeps of a training: code and a run's folder, no pickle. MLflow copies and runs this file.

`mlflow.pyfunc.load_model(...).predict(features)` takes one video's features (T, C) float32 and gives a table with the
columns label, score, start and end (seconds): what `rdfa.load(...).detect(features)` gives.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

import rdfa


class Served(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A trained detector as MLflow calls it."""

    def load_context(self, context: Any) -> None:
        """Build the detector from the files that were logged with the model."""
        self.detector = rdfa.load(Path(context.artifacts["checkpoint"]))

    # Without type hints: MLflow would read them as the columns of its input.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Detections of one video; `params` are keyword arguments of `TrainedDetector.detect`."""
        given = {name: value for name, value in (params or {}).items() if value is not None}
        return pd.DataFrame(self.detector.detect(model_input, **given), columns=rdfa.Segment._fields)


mlflow.models.set_model(Served())
