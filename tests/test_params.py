"""Parameters: composition, what is refused and how it is said, and the files themselves."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rdfa.errors import RdfaError
from rdfa.identity import keys, parse_run_name, run_name
from rdfa.params import compose, flatten, json_schema, read_run, read_yaml, resolved_yaml
from rdfa.reporting.grids import read_table, table_names
from tests.conftest import BASELINES, ROOT

FOLDER = ROOT / "params"
DATASETS = ("thumos14", "activitynet", "fineaction", "hacs")


def thumos(*overrides: str, variant: str = "paper", scale: str = "full"):  # type: ignore[no-untyped-def]
    return compose(
        dataset="thumos14", model="rdfa", variant=variant, scale=scale, overrides=tuple(overrides), folder=FOLDER
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", "command line: unknown parameter 'training.epoch'; did you mean 'epochs'?"),
        ("modle.width=3", "command line: unknown parameter 'modle'; did you mean 'model'?"),
        ("training.epochs=many", "command line: training.epochs: Input should be a valid integer (got 'many')"),
        ("training.epochs=0", "command line: training.epochs: Input should be greater than 0 (got 0)"),
        ("training.learning_rate=.nan", "command line: training.learning_rate: Input should be a finite number"),
        (
            "model.stem.dual=both",
            "command line: model.stem.dual: Input should be 'none', 'temporal', 'channel' or 'dual'",
        ),
        ("training.average.ramp=1", "command line: training.average.ramp: Input should be a valid boolean (got 1)"),
        ("training.warmup_epochs=60", "warmup_epochs must be smaller than schedule_epochs"),
        ("windows.max_length=2300", "windows.max_length 2300 is not a multiple of the coarsest stride 32"),
        ("model.block.share_bc=true", "means nothing with block.aggregate 'sum_maps'"),
        ("model.block.aggregat=3", "unknown parameter 'model.block.aggregat'; did you mean 'aggregate'?"),
        ("model.block.state=0", "command line: model.block.state: Input should be greater than 0 (got 0)"),
        ("model.block.kind=lstm", "does not match any of the expected tags: 's6', 'vim', 'attention', 'convolution'"),
        ("model.regression_ranges=[[4, 4]]", "regression_ranges: [4.0, 4.0] is empty"),
        ("runtime.device=${oc.env:HOME}", "interpolations are not allowed"),
        ("seed=3", "are set by the run's name"),
        ("nonsense", "'nonsense' is not of the form section.key=value"),
        ("training=3", "command line: training: Input should be an object (got 3)"),
    ],
)
def test_a_bad_override_is_refused_with_key_and_reason(override: str, message: str) -> None:
    with pytest.raises(RdfaError) as error:
        thumos(override)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_parameters_of_another_kind_of_block_are_refused_one_by_one() -> None:
    with pytest.raises(RdfaError) as error:
        thumos("model.block.kind=vim")
    lines = [line.split(": ", 1)[1] for line in str(error.value).splitlines()]
    assert lines == [f"unknown parameter 'model.block.{name}'" for name in ("gradients", "aggregate", "share_bc")]


@pytest.mark.parametrize(
    ("model", "override", "message"),
    [
        ("actionformer", "model.block.window=8", "block.window must be odd"),
        ("actionformer", "model.block.heads=5", "width 512 is not a multiple of block.heads 5"),
        ("actionformer", "model.padding=leaky", "padding 'leaky' is not there for block.kind 'attention'"),
        ("actionformer", "model.stem.dual=dual", "stem.dual 'dual' needs another block.kind than 'attention'"),
        ("actionformer", "model.branch.kernels=[4]", "branch.kernels must be one odd width with block.kind"),
        ("convolution", "model.stem.temporal_kernels=[3, 5]", "stem.temporal_kernels must be one odd width"),
        ("temporalmaxer", "model.branch.dual=temporal", "branch.dual 'temporal' needs another block.kind than 'none'"),
        ("temporalmaxer", "model.block.state=8", "unknown parameter 'model.block.state'"),
    ],
)
def test_what_a_kind_of_block_cannot_do_is_refused(model: str, override: str, message: str) -> None:
    variant = dict(BASELINES)[model]
    with pytest.raises(RdfaError) as error:
        compose(dataset="thumos14", model=model, variant=variant, scale="full", overrides=(override,), folder=FOLDER)
    assert message in str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the parameter files to spoil."""
    for path in FOLDER.rglob("*.yaml"):
        target = tmp_path / path.relative_to(FOLDER)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "datasets/thumos14.yaml",
            "\nfeature: {stride: 4}\n",
            "datasets/thumos14.yaml: unknown parameter 'feature'; did you mean 'features'?",
        ),
        (
            "scales/full.yaml",
            "\ntraining: {epochs: soon}\n",
            "scales/full.yaml: training.epochs: Input should be a valid integer (got 'soon')",
        ),
        ("defaults.yaml", "\nx: ${oc.env:HOME}\n", "defaults.yaml: x: interpolations are not allowed"),
        ("defaults.yaml", "\n\tx: [\n", "defaults.yaml: not readable YAML"),
        (
            "models/rdfa.yaml",
            "\n!!python/object/apply:os.system ['true']: 1\n",
            "models/rdfa.yaml: not readable YAML",
        ),
    ],
)
def test_a_bad_file_is_refused_by_name(folder: Path, file: str, text: str, message: str) -> None:
    path = folder / file
    path.write_text(path.read_text() + text)
    with pytest.raises(RdfaError) as error:
        compose(dataset="thumos14", model="rdfa", variant="paper", scale="full", folder=folder)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset": "thumos"}, "no dataset 'thumos'; there is: activitynet, activitynet_tsn, "),
        ({"variant": "papers"}, "no variant 'papers'; it has: paper, released"),
        ({"scale": "../scales/full"}, "no scale '../scales/full'"),
        ({"model": "tridet"}, "no model 'tridet'; there is: actionformer, actionmamba, bmn, convolution, gtad, rdfa"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(changed: dict[str, str], message: str) -> None:
    names = {"dataset": "thumos14", "model": "rdfa", "variant": "paper", "scale": "full"} | changed
    with pytest.raises(RdfaError) as error:
        compose(**names, folder=FOLDER)  # type: ignore[arg-type]
    assert message in str(error.value)


@pytest.mark.parametrize("scale", ["full", "sample"])
@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_data_set_of_the_paper_composes_at_both_scales(dataset: str, variant: str, scale: str) -> None:
    run = compose(dataset=dataset, model="rdfa", variant=variant, scale=scale, folder=FOLDER).run
    assert run.source.kind == ("sample" if scale == "sample" else "hub")


@pytest.mark.parametrize("dataset", [*DATASETS, "hapt"])
@pytest.mark.parametrize(("model", "variant"), BASELINES)
def test_every_baseline_composes_with_every_data_set_at_both_scales(model: str, variant: str, dataset: str) -> None:
    for scale in ("full", "sample"):
        run = compose(dataset=dataset, model=model, variant=variant, scale=scale, folder=FOLDER).run
        assert parse_run_name(run_name(run))["model"] == model
        assert run.model.width == {"sample": 64}.get(
            scale, {"thumos14": 512, "fineaction": 512, "hapt": 128}.get(dataset, 256)
        )


@pytest.mark.parametrize(
    ("dataset", "window", "positions", "epochs"),
    [("thumos14", 19, False, 50), ("activitynet", 7, True, 15), ("fineaction", 7, False, 25), ("hacs", 25, True, 25)],
)
def test_a_model_refines_itself_for_a_data_set(dataset: str, window: int, positions: bool, epochs: int) -> None:
    run = compose(dataset=dataset, model="actionformer", variant="paper", scale="full", folder=FOLDER).run
    block = run.model.block
    assert block.kind == "attention"
    assert (block.window, block.positions, run.training.epochs) == (window, positions, epochs)


def test_refinements_are_applied_in_the_documented_order(folder: Path) -> None:
    """Place n sets the parameters from the n-th on, all to its own number: the n-th is then its own in the end."""
    names = ["epochs", "schedule_epochs", "batch_size", "warmup_epochs", "test_looks_from"]
    places = (
        ("models/rdfa.yaml", ["datasets", "thumos14"]),
        ("models/rdfa.yaml", ["datasets", "thumos14", "variants", "paper"]),
        ("scales/sample.yaml", []),
        ("models/rdfa.yaml", ["scales", "sample"]),
        ("datasets/thumos14.yaml", ["scales", "sample"]),
    )
    for number, (file, place) in enumerate(places):
        content = yaml.safe_load((folder / file).read_text())
        inside = content
        for name in place:
            inside = inside.setdefault(name, {})
        inside["training"] = dict.fromkeys(names[number:], 100 - number)
        (folder / file).write_text(yaml.safe_dump(content))
    composed = compose(dataset="thumos14", model="rdfa", variant="paper", scale="sample", folder=folder)
    training = composed.run.training.model_dump()
    assert [training[name] for name in reversed(names)] == [96, 97, 98, 99, 100]
    assert composed.origins["training.epochs"].endswith("models/rdfa.yaml")


def test_later_files_override_earlier_ones_and_every_value_knows_its_file() -> None:
    composed = thumos("training.epochs=7", variant="released", scale="sample")
    origin = {key: Path(file).name for key, file in composed.origins.items()}
    assert origin["training.gradient_clip"] == "defaults.yaml"
    assert origin["model.block.aggregate"] == "rdfa.yaml"
    assert origin["evaluation.protocol"] == "thumos14.yaml"
    assert origin["model.width"] == "sample.yaml"
    assert origin["training.epochs"] == "command line"
    assert composed.run.training.epochs == 7
    assert composed.run.model.width == 64
    unknown = [key for key in flatten(composed.run) if not any(k == key or k.startswith(f"{key}.") for k in origin)]
    assert unknown == []


def test_resolved_parameters_read_back_as_the_same_run(tmp_path: Path) -> None:
    composed = thumos(variant="released", scale="sample")
    path = tmp_path / "params.yaml"
    path.write_text(resolved_yaml(composed))
    assert read_run(path) == composed.run


def test_every_parameter_file_means_the_same_to_omegaconf_and_to_pyyaml() -> None:
    for path in FOLDER.rglob("*.yaml"):
        assert read_yaml(path) == yaml.safe_load(path.read_text()), f"{path}: write 1.0e-4, not 1e-4; true, not yes"


def test_the_schema_for_editors_is_the_one_of_now() -> None:
    committed = (ROOT / "workflow" / "schemas" / "run.schema.json").read_text()
    assert committed == json_schema(), (
        "regenerate: python -c 'from rdfa.params import *; print(json_schema(), end=\"\")'"
    )


def test_two_rows_of_a_table_that_would_have_one_name_are_refused(folder: Path) -> None:
    path = folder / "tables" / "table5.yaml"
    path.write_text(path.read_text().replace("label: DBM", "label: ViM"))
    with pytest.raises(RdfaError, match=r"table5.yaml: two rows of thumos14 are called 'ViM'"):
        read_table("table5", folder=folder)


def test_every_table_composes() -> None:
    for name in table_names(FOLDER):
        for scale in ("sample", "full"):
            table, entries = read_table(name, scale, folder=FOLDER)
            assert len(entries) == len([row for row in table.rows if scale in (row.scales or [scale])]) > 0


@given(
    dataset=st.sampled_from(["thumos14", "hapt"]),
    variant=st.sampled_from(["paper", "released"]),
    seed=st.integers(0, 10**6),
)
def test_a_runs_name_reads_back(dataset: str, variant: str, seed: int) -> None:
    run = compose(dataset=dataset, model="rdfa", variant=variant, scale="full", seed=seed, folder=FOLDER).run
    parts = parse_run_name(run_name(run))
    assert (parts["dataset"], parts["variant"], parts["scale"], parts["seed"]) == (dataset, variant, "full", seed)


@pytest.mark.parametrize(
    "name", ["", "thumos14", "thumos14-rdfa-paper-full", "a-b-c-d-s-1", "thumos14-rdfa-paper-full-s1; rm"]
)
def test_what_is_not_a_run_is_refused(name: str) -> None:
    with pytest.raises(RdfaError, match="is not a run"):
        parse_run_name(name)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("runtime.threads=2", ()),
        ("evaluation.tious=[0.5]", ("evaluate",)),
        ("detection.sigma=0.9", ("detect", "evaluate")),
        ("training.learning_rate=0.1", ("train", "detect", "evaluate")),
        ("source.sample.noise=2.0", ("fetch", "train", "detect", "evaluate")),
    ],
)
def test_keys_change_exactly_from_the_stage_on_that_reads_a_parameter(override: str, changed: tuple[str, ...]) -> None:
    before, after = vars(keys(thumos(scale="sample").run)), vars(keys(thumos(override, scale="sample").run))
    assert tuple(stage for stage in before if before[stage] != after[stage]) == changed
