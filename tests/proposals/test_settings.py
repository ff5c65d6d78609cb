"""Parameters of detectors on a map of proposals: what they start from, what they pass over, what is refused."""

from pathlib import Path

import pytest

from rdfa.errors import RdfaError
from rdfa.identity import closure, keys
from rdfa.models.cost import costs
from rdfa.params import Composed, compose, flatten, read_yaml
from rdfa.reporting.columns import printed_rows, published_result
from rdfa.reporting.grids import read_table
from tests.conftest import ROOT

PUBLISHED = read_yaml(ROOT / "params" / "published.yaml")


def composed(dataset: str, model: str, variant: str, *overrides: str, scale: str = "full") -> Composed:
    return compose(
        dataset=dataset, model=model, variant=variant, scale=scale, overrides=overrides, folder=ROOT / "params"
    )


def test_a_data_set_that_extends_another_is_that_one_but_for_what_it_says() -> None:
    on_tsn, base = (composed(name, "bmn", "rcl") for name in ("activitynet_tsn", "activitynet"))
    before, after = flatten(base.run), flatten(on_tsn.run)
    assert {name.split(".")[0] for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        "dataset",
        "features",
        "source",
    }
    assert on_tsn.origins["features.dimension"].endswith("activitynet_tsn.yaml")
    assert on_tsn.origins["num_classes"].endswith("/activitynet.yaml")
    assert on_tsn.run.features.dimension == 400 and on_tsn.run.windows.max_length == 100


def test_gtad_is_bmn_but_for_its_own_values_and_variants() -> None:
    plain, refined = (composed("thumos14_tsn", "gtad", variant).run.model for variant in ("plain", "rcl"))
    bmn = composed("thumos14_tsn", "bmn", "rcl").run.model
    assert plain.alignment.kind == "sgalign" and plain.boundaries.kind == "graph"  # type: ignore[union-attr]
    assert plain.base.width == bmn.base.width and plain.base.layers == 1  # type: ignore[union-attr]
    same = {"family", "base", "graph"}
    assert refined.model_dump(exclude=same) == bmn.model_dump(exclude=same)


def test_sections_that_a_model_has_alone_pass_over_what_data_sets_and_scales_say_for_the_others() -> None:
    found = composed("activitynet", "bmn", "plain", scale="sample")
    alone = ("model.", "windows.", "training.", "detection.")
    others = ("defaults.yaml", "bmn.yaml")
    origins = {name: origin for name, origin in found.origins.items() if name.startswith(alone)}
    assert origins and all(origin.endswith(others) for origin in origins.values())
    assert found.origins["evaluation.tious"].endswith("activitynet.yaml")
    assert found.origins["runtime.threads"].endswith("sample.yaml")


def test_a_file_that_extends_itself_or_what_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "params"
    for path in (ROOT / "params").rglob("*.yaml"):
        copy = folder / path.relative_to(ROOT / "params")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    file = folder / "datasets" / "activitynet_tsn.yaml"
    for base, words in (("activitynet_tsn", "extends itself"), ("nothing", "no dataset 'nothing'"), ("[1]", "name of")):
        file.write_text(file.read_text().replace("extends: activitynet\n", f"extends: {base}\n"))
        with pytest.raises(RdfaError, match=words):
            compose(dataset="activitynet_tsn", model="bmn", variant="rcl", scale="full", folder=folder)
        file.write_text(file.read_text().replace(f"extends: {base}\n", "extends: activitynet\n"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.steps=64", "bmn.yaml and command line: model.steps 64 is not windows.max_length 256"),
        ("windows.overlap=null", "sees windows of 256 steps only: set windows.resample to true, or windows.overlap"),
        ("windows.resample=true", "windows.overlap means nothing with windows.resample true"),
        ("detection.external_classes=0", "set detection.external_classes above 0, or evaluation.agnostic to true"),
        ("evaluation.agnostic=true", "evaluation.agnostic means nothing with detection.external_classes above 0"),
        ("model.durations=300", "durations 300 exceeds steps 256"),
        ("model.famly=gtad", "unknown parameter 'model.famly'; did you mean 'family'?"),
        ("model.base.widht=3", "unknown parameter 'model.base.widht'; did you mean 'width'?"),
        ("model.sampling.kind=scale_invariant", "needs a confidence for any segment: set refine"),
    ],
)
def test_combinations_that_cannot_be_are_refused_with_file_and_key(override: str, words: str) -> None:
    with pytest.raises(RdfaError) as error:
        composed("thumos14_tsn", "bmn", "plain", override)
    assert words in str(error.value)
    assert "command line" in str(error.value)


def test_the_code_of_proposal_maps_is_in_no_key_of_the_other_models() -> None:
    roots = ["rdfa.training.loop", "rdfa.evaluation.detect", "rdfa.evaluation.judgement"]
    of_pyramid, of_maps = (closure(roots, family) for family in ("rdfa", "bmn"))
    own = of_maps - of_pyramid
    assert {"rdfa.models.proposals.detector", "rdfa.training.proposal_losses"} <= own
    assert all("proposal" in name or name == "rdfa.ops.sparse_rows" for name in own)
    assert of_pyramid <= of_maps


def test_what_is_refined_decides_the_training_s_key_and_no_data_s() -> None:
    first, second = (
        keys(composed("activitynet_tsn", "bmn", "rcl", f"model.refine.iterations={count}").run) for count in (1, 5)
    )
    assert first.fetch == second.fetch and first.train != second.train


def test_each_row_of_table_1_has_its_own_printed_number_beside_it_on_real_features_only() -> None:
    printed = {0: 35.41, 1: 35.60, 5: 35.85, 10: 35.98, 15: 35.64}
    _, entries = read_table("rcl_table1", scale="full", folder=ROOT / "params")
    runs = [entry.runs[0].run for entry in entries]
    found = {run.model.refine.iterations: published_result(run, PUBLISHED) for run in runs}  # type: ignore[union-attr]
    assert {count: result["average"] for count, result in found.items()} == printed
    assert found[10]["tious"] == {0.5: 54.19} and found[10]["flops"] == 115.5
    _, sample = read_table("rcl_table1", scale="sample", folder=ROOT / "params")
    assert [published_result(entry.runs[0].run, PUBLISHED) for entry in sample] == [{}] * 5


def test_table_1_of_other_data_has_the_supplement_s_own_apart_and_calls_it_not_comparable() -> None:
    for name in ("rcl_table1", "hapt_rcl_table1"):
        printed = read_table(name, folder=ROOT / "params")[0].printed
        assert printed is not None
        assert printed.title == "printed, ActivityNet-1.3 with TSN features, not comparable"
        rows = printed_rows(printed, PUBLISHED)
        assert [row["iterations"] for row in rows] == [0, 1, 5, 10, 15]
        assert rows[3] == {"iterations": 10, "mAP@0.5": 54.19, "average": 35.98, "G MACs": 115.5}


@pytest.mark.parametrize("table", ["rcl_sampling", "hapt_rcl_sampling"])
def test_one_thing_changes_between_the_rows_of_sampling_and_the_last_is_trained_for_table_1(table: str) -> None:
    _, entries = read_table(table, folder=ROOT / "params")
    grid, trained, asked = (entry.runs[0].run for entry in entries[3:])
    changed = []
    for run, other in ((grid, trained), (trained, asked)):
        before, after = flatten(run), flatten(other)
        changed.append({name for name in before.keys() | after.keys() if before.get(name) != after.get(name)})
    assert changed == [{"model.sampling.kind"}, {"model.refine.instances.kind"}]
    unrefined = read_table(table.replace("sampling", "table1"), folder=ROOT / "params")[1][0]
    assert [keys(each.run).train for each in unrefined.runs] == [keys(each.run).train for each in entries[-1].runs]


@pytest.mark.parametrize("table", ["rcl_table1", "rcl_table2", "rcl_sampling"])
def test_rcl_s_tables_have_three_seeds_where_the_data_are_real(table: str) -> None:
    (seeds,) = {
        tuple(each.run.seed for each in row.runs) for row in read_table(f"hapt_{table}", folder=ROOT / "params")[1]
    }
    assert seeds == (0, 1, 2)


def test_each_iteration_costs_what_the_supplement_prints() -> None:
    _, entries = read_table("rcl_table1", scale="full", folder=ROOT / "params")
    macs = [costs(entry.runs[0].run)[""].macs for entry in entries[1:3]]
    assert round((macs[1] - macs[0]) / 4 / 1e9, 2) == 1.72


def test_a_table_whose_runs_ignore_labels_says_so_in_its_title() -> None:
    table, _ = read_table("hapt_rcl_table2", folder=ROOT / "params")
    assert table.title.endswith(
        "(hapt, scale reduced); labels ignored: every instance and every detection is an action"
    )
    assert "labels" not in read_table("rcl_table2", folder=ROOT / "params")[0].title
