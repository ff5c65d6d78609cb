"""`rdfa import-checkpoint`: a checkpoint in the official form, made from golden state dicts, by three commands."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rdfa.cli import main
from rdfa.models.detector import Detector
from rdfa.models.official import from_official, official_name, our_name, to_official
from rdfa.training.checkpoint import load_weights
from tests.conftest import ROOT
from tests.models.test_parity import OFFICIAL, load, released

RUN = "thumos14-rdfa-released-sample-s0"
SIZES = (
    *OFFICIAL[:-3],  # the sample data has its own 20 classes: the heads are cut to fit below
    *OFFICIAL[-2:],
    "model.block.state=16",
    "source.sample.train_videos=4",
    "source.sample.test_videos=4",
    "features.stride=64",
)
SETTINGS = [f"--set={setting}" for setting in SIZES]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params").symlink_to(ROOT / "params")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(shared: Path, tag: str) -> dict[str, Tensor]:
    """A golden state dict, its 5 classes repeated to the 20 of the sample data."""
    found = load(shared / "golden" / "rdfa_small" / f"state_{tag}.npz")
    for name in ("cls_head.cls_head.conv.weight", "cls_head.cls_head.conv.bias"):
        found[name] = found[name].repeat(4, *[1] * (found[name].dim() - 1))
    return found


def checkpoint(shared: Path) -> dict[str, Any]:
    parameter = torch.nn.Parameter(torch.ones(2))
    adam = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    adam.step()
    return {
        "epoch": 42,
        "model": {f"module.{name}": value for name, value in state(shared, "init").items()},
        "model_ema": state(shared, "pert"),
        "optimizer": adam.state_dict(),
        "scheduler": {"last_epoch": 42, "base_lrs": [1e-4]},
        "mAP": np.float64(0.5),
    }


def refused(capsys: pytest.CaptureFixture[str], path: Path) -> str:
    assert main(["import-checkpoint", str(path), RUN, *SETTINGS]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith(f"rdfa: error: {path.name}")
    assert len(message.splitlines()) <= 2
    assert not Path("results").exists()
    return message


def test_an_official_checkpoint_is_imported_detects_and_evaluates(
    checkout: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(checkpoint(shared), "official.pt")
    assert main(["fetch", RUN, *SETTINGS]) == 0
    assert main(["import-checkpoint", "official.pt", RUN, *SETTINGS]) == 0
    assert main(["detect", RUN, *SETTINGS]) == 0
    assert main(["evaluate", "--no-tracking", RUN, *SETTINGS]) == 0
    assert "average" in capsys.readouterr().out
    (folder,) = Path("results/runs").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["imported_from"]["epoch"] == 42
    assert record["imported_from"]["mAP"] == 0.5
    annotations = json.loads(Path("data/thumos14-sample/annotations.json").read_text())["database"].values()
    used = {each["label"] for video in annotations for each in video["annotations"]}
    assert used <= set(record["classes"])
    assert len(record["classes"]) == 20
    assert len(record["imported_from"]["sha256"]) == 64
    with (folder / "history.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == []
    weights = load_weights(folder / "checkpoint.safetensors")
    for prefix, tag in (("plain.", "init"), ("averaged.", "pert")):
        ours = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        back, expected = to_official(ours), state(shared, tag)
        assert back.keys() == expected.keys()
        assert all(torch.equal(back[name], expected[name]) for name in expected)
    assert json.loads(next(folder.glob("detections-*.json")).read_text())["results"]


def test_an_imported_checkpoint_does_not_replace_a_run_that_is_there(
    checkout: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(checkpoint(shared), "official.pt")
    assert main(["import-checkpoint", "official.pt", RUN, *SETTINGS]) == 0
    assert main(["import-checkpoint", "official.pt", RUN, *SETTINGS]) == 2
    assert "a run is there already" in capsys.readouterr().err


def test_a_checkpoint_whose_two_state_dicts_share_their_tensors_is_imported(checkout: Path, shared: Path) -> None:
    content = checkpoint(shared)
    torch.save(content | {"model": content["model_ema"]}, "official.pt")
    assert main(["import-checkpoint", "official.pt", RUN, *SETTINGS]) == 0


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("payload-ran"),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_payload_is_refused_and_not_run(
    checkout: Path, shared: Path, capsys: pytest.CaptureFixture[str], zipped: bool
) -> None:
    torch.save(checkpoint(shared) | {"extra": Payload()}, "bad.pt", _use_new_zipfile_serialization=zipped)
    assert "holds other things than tensors" in refused(capsys, Path("bad.pt"))
    assert not Path("payload-ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(
    checkout: Path, shared: Path, capsys: pytest.CaptureFixture[str], share: float, zipped: bool
) -> None:
    torch.save(checkpoint(shared), "bad.pt", _use_new_zipfile_serialization=zipped)
    whole = Path("bad.pt").read_bytes()
    Path("bad.pt").write_bytes(whole[: int(share * len(whole))])
    refused(capsys, Path("bad.pt"))


def test_a_missing_a_surplus_and_a_misshapen_parameter_are_refused_by_name(
    checkout: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "backbone.stem_module.blocks.0.t_mamba.conv1ds.1.weight"

    def message(edit: Any) -> str:
        content = checkpoint(shared)
        edit(content["model_ema"])
        torch.save(content, "bad.pt")
        return refused(capsys, Path("bad.pt"))

    assert f"model_ema: does not fit the run's detector: missing {name}; left over nothing" in message(
        lambda ema: ema.pop(name)
    )
    assert "missing nothing; left over backbone.new" in message(lambda ema: ema.update({"backbone.new": torch.ones(1)}))
    scale = "reg_head.scale.3.scale"
    assert f"missing {scale}" in message(lambda ema: ema.pop(scale))
    text = message(lambda ema: ema.update({name: ema[name].transpose(0, 2)}))
    assert f"{name} has shape (3, 1, 32), the run's detector (32, 1, 3)" in text


def test_what_is_no_official_checkpoint_is_refused(
    checkout: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such file" in refused(capsys, Path("absent.pt"))
    torch.save([1, 2], "bad.pt")
    assert "must hold a dictionary" in refused(capsys, Path("bad.pt"))
    torch.save({"model": state(shared, "init")}, "bad.pt")
    assert "has no state dict 'model_ema'" in refused(capsys, Path("bad.pt"))
    Path("bad.pt").write_text("not a checkpoint")
    refused(capsys, Path("bad.pt"))


def test_every_official_name_goes_to_ours_and_back(shared: Path) -> None:
    official = load(shared / "golden" / "rdfa_small" / "state_pert.npz")
    for name in official:
        ours = our_name(name)
        assert ours is not None
        assert official_name(ours) == name
    translated, surplus = from_official(official, Detector(48, 5, released().model).state_dict())
    assert surplus == []
    back = to_official(translated)
    assert back.keys() == official.keys()
    assert all(torch.equal(back[name], official[name]) for name in official)
