"""Published numbers: shown beside runs on the same real features only, and consistent with their own cells."""

import statistics
from pathlib import Path
from typing import Any

import pytest

from rdfa.files import write_json
from rdfa.identity import paths
from rdfa.params import Composed, compose, read_yaml
from rdfa.reporting.grids import Entry, Row
from rdfa.reporting.tables import rows_of
from tests.conftest import ROOT

PUBLISHED = read_yaml(ROOT / "params" / "published.yaml")


def shown(root: Path, model: str, variant: str, dataset: str, *overrides: str, scale: str = "full") -> Any:
    """What a table has in its column `published` for a finished run."""
    composed: Composed = compose(
        dataset=dataset, model=model, variant=variant, scale=scale, overrides=overrides, folder=ROOT / "params"
    )
    where = paths(composed.run, root)
    tious = list(composed.run.evaluation.tious)
    write_json(where.metrics, {"average_mAP": 0.5, "mAP": [0.5] * len(tious), "tiou": tious})
    write_json(where.folder / "run.json", {"parameters": 1, "epoch": 1, "test_looks": None})
    entry = Entry(row=Row(dataset=dataset, model=model, variant=variant), runs=(composed,))
    return rows_of([entry], root, PUBLISHED)[0]["published"]


@pytest.mark.parametrize(
    ("model", "variant", "averages"),
    [
        ("rdfa", "paper", (74.2, 42.9, 29.6, 45.8)),
        ("rdfa", "released", (74.2, 42.9, 29.6, 45.8)),
        ("actionmamba", "dbm", (72.72, 42.02, 29.04, 44.56)),
        ("actionmamba", "vim", (72.44, 41.77, 28.36, 44.26)),
        ("actionformer", "paper", (71.86, 41.19, 27.22, 43.34)),
        ("convolution", "plain", (None, None, None, None)),
        ("temporalmaxer", "paper", (None, None, None, None)),
    ],
)
def test_a_run_on_real_features_has_its_own_models_and_variants_number_beside_it(
    tmp_path: Path, model: str, variant: str, averages: tuple[float | None, ...]
) -> None:
    datasets = ("thumos14", "activitynet", "fineaction", "hacs")
    assert tuple(shown(tmp_path, model, variant, dataset) for dataset in datasets) == averages
    assert all(shown(tmp_path, model, variant, dataset, scale="sample") is None for dataset in datasets)
    assert shown(tmp_path, model, variant, "hapt") is None


def test_a_number_on_other_features_is_not_shown(tmp_path: Path) -> None:
    on_i3d = ("features.encoder=I3D", "features.dimension=2048")
    assert shown(tmp_path, "temporalmaxer", "paper", "thumos14", *on_i3d) == 67.7
    assert shown(tmp_path, "actionformer", "paper", "thumos14", *on_i3d) is None


def _results(entry: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    inside = [each for variant in entry.get("variants", {}).values() for each in (variant, variant.get("opentad", {}))]
    return [item for each in (entry, *inside) for item in each.get("results", {}).items()]


@pytest.mark.parametrize("model", ["actionmamba", "actionformer", "temporalmaxer"])
def test_an_average_over_all_printed_cells_is_their_mean_unless_a_note_says_not(model: str) -> None:
    found = [result for dataset, result in _results(PUBLISHED[model]) if dataset == "thumos14"]
    assert found
    for result in found:
        close = abs(statistics.fmean(result["tious"].values()) - result["average"]) < 0.06
        assert close != ("mean of the five printed cells" in result.get("note", ""))
