"""MLflow's model registry: the best run of each table, as the registered model `<experiment>-<table>`."""

from collections.abc import Mapping
from contextlib import suppress

from mlflow.exceptions import MlflowException

from rdfa.tracking.store import Store

RUN = "run"
"""The tag by which a version is found again: the metrics file that made its run the best."""


def register(store: Store, table: str, alias: str, model_id: str, tags: Mapping[str, str], description: str) -> str:
    """Let `alias` of a table's registered model be a logged model; returns the version. The same again changes nothing.

    Args:
        model_id: of a model that `Store.log_model` logged.
        tags: the version's; `RUN` is among them.
    """
    name = f"{store.name}-{table}"
    with suppress(MlflowException):  # it is there already; what else may be wrong, the next call says too
        store.client.create_registered_model(name, description=f"The best run of {table}, as it was last written.")
    known = store.client.search_model_versions(f"name = '{name}'")
    same = [version for version in known if version.tags.get(RUN) == tags[RUN]]
    version = (
        same[0]
        if same
        else store.client.create_model_version(
            name,
            f"models:/{model_id}",
            store.client.get_logged_model(model_id).source_run_id,
            tags=dict(tags),
            description=description,
            await_creation_for=0,
            model_id=model_id,
        )
    )
    store.client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)
