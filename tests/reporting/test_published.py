"""Published numbers: shown beside runs on the same real features only, and consistent with their own cells."""

import statistics
from typing import Any

import pytest

from rdfa.params import compose, read_yaml
from rdfa.reporting.columns import published_result
from tests.conftest import ROOT

PUBLISHED = read_yaml(ROOT / "params" / "published.yaml")


def shown(model: str, variant: str, dataset: str, *overrides: str, scale: str = "full") -> float | None:
    """What a table has in its column `published` for a run."""
    composed = compose(
        dataset=dataset, model=model, variant=variant, scale=scale, overrides=overrides, folder=ROOT / "params"
    )
    return published_result(composed.run, PUBLISHED).get("average")


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
    model: str, variant: str, averages: tuple[float | None, ...]
) -> None:
    datasets = ("thumos14", "activitynet", "fineaction", "hacs")
    assert tuple(shown(model, variant, dataset) for dataset in datasets) == averages
    assert all(shown(model, variant, dataset, scale="sample") is None for dataset in datasets)
    assert shown(model, variant, "hapt") is None


def test_a_number_on_other_features_is_not_shown() -> None:
    on_i3d = ("features.encoder=I3D", "features.dimension=2048")
    assert shown("temporalmaxer", "paper", "thumos14", *on_i3d) == 67.7
    assert shown("actionformer", "paper", "thumos14", *on_i3d) is None


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
