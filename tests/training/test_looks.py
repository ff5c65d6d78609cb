"""Looks at the test split: a second number from the same training, which they do not change."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from rdfa.errors import RdfaError
from rdfa.files import read_json
from rdfa.identity import paths
from rdfa.params import Composed, compose
from rdfa.reporting.formats import BEST_OF_TEST_NOTE, to_csv, to_markdown
from rdfa.reporting.grids import Entry, Row
from rdfa.reporting.tables import rows_of
from rdfa.stages.fetch import fetch_stage
from tests.conftest import ROOT, TINY
from tests.training.test_training import average_map

LOOKING = ("training.test_looks_from=1", "training.learning_rate=0.03")  # so fast that the first epoch is the best
ROW = Row(dataset="thumos14", model="rdfa", variant="released")
Tiny = Callable[..., Composed]


def test_one_training_gives_the_last_epochs_number_and_the_best_of_the_looks(tiny: Tiny, tmp_path: Path) -> None:
    last = tiny(variant="released", overrides=LOOKING)
    best = tiny(variant="released", overrides=(*LOOKING, "detection.weights=best_test"))
    headline, selected = average_map(last, tmp_path), average_map(best, tmp_path)
    folder = paths(last.run, tmp_path).folder
    assert paths(best.run, tmp_path).folder == folder
    with (folder / "history.csv").open(newline="") as file:
        looks = [float(row["test_mAP"]) for row in csv.DictReader(file)]
    assert len(looks) == 3
    assert looks[0] > max(looks[1:])
    assert headline == pytest.approx(looks[-1], rel=1e-9)
    assert selected == pytest.approx(looks[0], rel=1e-9)
    assert read_json(folder / "run.json")["test_looks"] == {"looks": 3, "best_epoch": 1, "best_mAP": selected}

    rows = rows_of([Entry(row=ROW, runs=(last,)), Entry(row=ROW, runs=(best,))], tmp_path, {})
    assert [row["average"] for row in rows] == [100 * headline, 100 * selected]
    assert [row["best of test"] for row in rows] == [100 * selected] * 2
    assert [row["test looks"] for row in rows] == ["best of 3 (epoch 1)"] * 2
    assert [row["selection"] for row in rows] == ["last (epoch 3)", "selected on test, best of 3 (epoch 1)"]
    assert "best of test" in to_csv(rows).splitlines()[0]
    assert BEST_OF_TEST_NOTE in to_markdown("Both", rows, 0.95)


def test_a_look_judges_by_the_videos_without_features_too_as_the_evaluation_does(tiny: Tiny, tmp_path: Path) -> None:
    planted = tiny().run
    fetch_stage(planted, tmp_path, None)
    downloaded = tmp_path / "data" / "thumos14"
    shutil.copytree(paths(planted, tmp_path).data, downloaded)
    next(downloaded.glob("manifest-*.json")).unlink()
    with h5py.File(downloaded / "features.h5", "r+") as file:
        del file["Test"][max(file["Test"])]
    known = ("source.hub.annotations.sha256=null", "source.hub.missing_at_most=0.5", "runtime.workers=0")
    small = [setting for setting in TINY if not setting.startswith("source.sample.")]
    composed = compose(
        dataset="thumos14",
        model="rdfa",
        variant="paper",
        scale="full",
        overrides=(*small, *LOOKING, *known, "model.path_scale=0.1"),
        folder=ROOT / "params",
    )
    headline = average_map(composed, tmp_path)
    assert headline > 0
    with (paths(composed.run, tmp_path).folder / "history.csv").open(newline="") as file:
        assert float(list(csv.DictReader(file))[-1]["test_mAP"]) == pytest.approx(headline, rel=1e-9)


def test_a_run_that_did_not_look_has_no_such_number(tiny: Tiny, tmp_path: Path) -> None:
    composed = tiny()
    average_map(composed, tmp_path)
    assert read_json(paths(composed.run, tmp_path).folder / "run.json")["test_looks"] is None
    (row,) = rows_of([Entry(row=ROW, runs=(composed,))], tmp_path, {})
    assert (row["best of test"], row["test looks"], row["selection"]) == (None, None, "last (epoch 3)")
    assert "best of test" not in to_markdown("None", [row], 0.95)


def test_weights_of_a_look_need_a_look(tiny: Tiny) -> None:
    with pytest.raises(RdfaError, match="'best_test' needs a look at the test split"):
        tiny(overrides=("detection.weights=best_test",))


def test_looks_that_never_come_are_refused(tiny: Tiny) -> None:
    with pytest.raises(RdfaError, match=r"test_looks_from 4 lies beyond the last epoch \(training.epochs 3\)"):
        tiny(overrides=("training.test_looks_from=4",))
