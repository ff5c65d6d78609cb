"""All that knows MLflow. In order of reading: `store` (trainings), `tables` (an experiment each), `registry` (models).

MLflow is for looking and comparing. Nothing is read back from it: results live in `results/`, and `rdfa import-runs`
rebuilds the store from there. The store is `MLFLOW_TRACKING_URI`, or else an SQLite file `mlflow.db` in the root.
"""

from rdfa.tracking.store import Store, tolerated

__all__ = ["Store", "tolerated"]
