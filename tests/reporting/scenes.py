"""A project folder with a table whose runs were never trained: invented detections, with the metrics that they have."""

from pathlib import Path

import numpy as np
import yaml

from rdfa.data.annotations import Annotations, Video, write_annotations
from rdfa.data.detections import UNNAMED, collect_detections, write_detections
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.judgement import as_judged
from rdfa.files import write_json, write_text
from rdfa.identity import Paths, paths
from rdfa.params import PARAMS, leaves, parse_override, read_yaml
from rdfa.reporting.formats import to_csv, to_markdown
from rdfa.reporting.grids import read_table, table_key
from rdfa.reporting.tables import averages, curves_csv, rows_of
from rdfa.schema import Run
from tests.conftest import ROOT, TINY
from tests.reporting.runs import RECORD

CLASSES = ("BaseballPitch", "CliffDiving", "Diving <&>", "HighJump", "Shotput", "TennisSwing")
SEEDS = (0, 1, 2)
RECURRENCE = {
    "r = 1": ({"recurrence": 1}, 2.6),
    "r = 2": ({"recurrence": 2}, 1.9),
    "r = 4": ({"recurrence": 4}, 1.5),
    "2 blocks, untied": ({"recurrence": 1, "blocks": 2}, 1.7),
}
"""Rows: what each changes in the stem, and the seconds by which its detections miss."""


def tiny_params() -> dict[str, object]:
    values: dict[str, object] = {}
    for setting in TINY:
        for key, value in leaves(parse_override(setting)):
            *path, last = key.split(".")
            section = values
            for part in path:
                section = section.setdefault(part, {})  # type: ignore[assignment]
            section[last] = value
    return values


def write_project(root: Path, tables: dict[str, str]) -> None:
    """The project's own parameters with other tables: name → text of its file."""
    (root / "params" / "tables").mkdir(parents=True, exist_ok=True)
    for path in (ROOT / "params").iterdir():
        if path.name != "tables" and not (root / "params" / path.name).exists():
            (root / "params" / path.name).symlink_to(path)
    for name, text in tables.items():
        (root / "params" / "tables" / f"{name}.yaml").write_text(text)


def recurrence_table() -> str:
    rows = [
        {"model": "rdfa", "variant": "paper", "label": label, "params": {"model": {"stem": stem}}}
        | ({"against": "r = 1"} if label != "r = 1" else {})
        for label, (stem, _) in RECURRENCE.items()
    ]
    about = {"title": "Recurrence <of> the stem", "dataset": "thumos14", "scale": "sample", "seeds": list(SEEDS)}
    return yaml.safe_dump(about | {"params": tiny_params(), "rows": rows})


def proposals_table() -> str:
    """Two rows whose detections have no labels, as those of proposals without a classifier."""
    rows = [{"model": "rdfa", "variant": "paper", "label": label} for label in ("near", "far")]
    rows[1]["params"] = {"model": {"stem": {"recurrence": 1}}}
    about = {"title": "Proposals", "dataset": "thumos14", "scale": "sample", "seeds": [0]}
    return yaml.safe_dump(about | {"params": tiny_params() | {"evaluation": {"agnostic": True}}, "rows": rows})


def write_runs(root: Path, name: str, misses: dict[str, float]) -> None:
    """Data, detections, metrics, histories and the table itself, in the working directory `root`."""
    table, entries = read_table(name, folder=root / PARAMS)
    truth = ground_truth()
    for entry in entries:
        for composed in entry.runs:
            where = paths(composed.run, root)
            write_annotations(where.data / "annotations.json", truth)
            write_json(where.manifest, {"files": {}})
            _write_run(composed.run, where, truth, misses[entry.row.shown])
    rows = rows_of(entries, root, read_yaml(root / PARAMS / "published.yaml"))
    results = root / "results"
    write_text(results / f"{name}.csv", to_csv(rows))
    write_text(results / f"{name}.md", to_markdown(table.title, rows, 0.95))
    write_text(results / f"{name}-curves.csv", curves_csv(entries, root))
    write_json(results / f"{name}.json", averages(rows, table_key(entries)))


def ground_truth() -> Annotations:
    """12 videos of 200 s with 8 instances of up to three classes each."""
    random = np.random.default_rng(0)
    videos = []
    for number in range(12):
        starts = np.sort(random.choice(np.arange(2, 190, 12), 8, replace=False)).astype(float)
        segments = np.stack([starts, starts + random.uniform(2, 11, 8)], axis=1)
        own = random.choice(len(CLASSES), 3, replace=False)
        labels = tuple(CLASSES[index] for index in random.choice(own, 8))
        videos.append(Video(f"video_test_{number:07}", "Test", 200.0, 30.0, segments, labels))
    return Annotations(tuple(videos), CLASSES)


def _write_run(run: Run, where: Paths, truth: Annotations, misses: float) -> None:
    random = np.random.default_rng([run.seed, int(100 * misses)])
    found = []
    for video in truth.videos:
        labels = np.array([CLASSES.index(label) for label in video.labels])
        near = video.segments + random.normal(0, misses, video.segments.shape)
        far = np.sort(random.uniform(0, video.duration, (16, 2)), axis=1)
        segments = np.clip(np.sort(np.concatenate([near, far]), axis=1), 0, video.duration)
        scores = np.concatenate([random.uniform(0.3, 1, len(near)), random.uniform(0, 0.6, len(far))])
        wrong = random.integers(0, len(CLASSES), len(far))
        named = np.concatenate([labels, wrong])
        found.append((video.name, segments, scores, np.zeros_like(named) if run.evaluation.agnostic else named))
    detections = collect_detections(found, (UNNAMED,) if run.evaluation.agnostic else CLASSES)
    write_detections(where.detections, detections)
    judged = as_judged(truth, detections, run.evaluation)
    result = mean_average_precision(*judged, run.evaluation.tious, run.evaluation.protocol)
    about = {"run": where.folder.name, "data_set": run.dataset, "scale": run.scale, "planted_data": True}
    bootstrap = {"replicates": 20, "seed": 0, "average_mAP": [result.average] * 20}
    write_json(where.metrics, about | result.as_json() | {"bootstrap": bootstrap})
    write_json(where.folder / "run.json", RECORD)
    losses = [misses * np.exp(-epoch / 4) + 0.1 + 0.02 * random.uniform() for epoch in range(12)]
    lines = [f"{epoch},{loss:.5f}" for epoch, loss in enumerate(losses, 1)]
    write_text(where.folder / "history.csv", "\n".join(["epoch,loss", *lines]) + "\n")
