"""A run goes on only with the bytes that it was trained on."""

import json
from pathlib import Path

import pytest

from rdfa.errors import RdfaError
from rdfa.identity import paths
from rdfa.params import compose
from rdfa.stages.evaluate import evaluate_stage
from rdfa.stages.opened import data_digest
from rdfa.stages.train import train_stage
from tests.conftest import ROOT


def test_a_finished_run_is_only_taken_for_the_data_that_it_was_trained_on(tmp_path: Path) -> None:
    composed = compose(
        dataset="thumos14", model="rdfa", variant="paper", scale="full", overrides=(), folder=ROOT / "params"
    )
    where = paths(composed.run, tmp_path)
    where.folder.mkdir(parents=True)
    where.data.mkdir(parents=True)
    manifest = {"files": {"features.h5": {"sha256": "ab"}}}
    record = {"data_digest": data_digest(manifest)}
    (where.folder / "run.json").write_text(json.dumps(record))
    assert train_stage(composed, tmp_path, tracked=False) == where.folder, "results without their data are results"
    where.manifest.write_text(json.dumps(manifest))
    assert train_stage(composed, tmp_path, tracked=False) == where.folder
    where.manifest.write_text(json.dumps({"files": {"features.h5": {"sha256": "cd"}}}))
    for stage in (
        lambda: train_stage(composed, tmp_path, False),
        lambda: evaluate_stage(composed.run, tmp_path, False),
    ):
        with pytest.raises(RdfaError, match=r"was trained on data with the digest .* bring the old files back"):
            stage()
