"""What each command does: call one function, print what it says. Heavy modules are imported by the command."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rdfa.errors import RdfaError

if TYPE_CHECKING:
    from rdfa.params import Composed


def _compose_data(options: argparse.Namespace) -> "Composed":
    from rdfa.identity import parse_data_name
    from rdfa.params import compose

    return compose(**parse_data_name(options.run), overrides=tuple(options.set))


def _compose(options: argparse.Namespace) -> "Composed":
    from rdfa.identity import parse_run_name
    from rdfa.params import compose

    return compose(**parse_run_name(options.run), overrides=tuple(options.set))


def params(options: argparse.Namespace) -> None:
    from rdfa.params import resolved_yaml

    print(resolved_yaml(_compose(options)), end="")


def fetch(options: argparse.Namespace) -> None:
    from rdfa.stages.fetch import fetch_stage, outlook_stage

    runs = [_compose_data(argparse.Namespace(run=name, set=options.set)).run for name in options.runs]
    if options.dry_run:
        print(outlook_stage(runs, Path()), end="")
        return
    for run in runs:
        print(fetch_stage(run, Path(), options.archive))


def track(options: argparse.Namespace) -> None:
    from rdfa.stages.track import outlook_stage, track_stage

    if options.dry_run:
        print(outlook_stage(options.names, Path()), end="")
        return
    folders = track_stage(options.names, Path())
    print(*folders, sep="\n")
    print(f"next: commit data.dvc to Git, then: dvc push {' '.join(folders)}", file=sys.stderr)


def new_dataset(options: argparse.Namespace) -> None:
    from rdfa.stages.new_dataset import Request, new_dataset_stage, refresh_stage

    given = {name: value for name, value in vars(options).items() if name not in ("command", "refresh")}
    if options.refresh:
        if any(value for name, value in given.items() if name != "name"):
            raise RdfaError("--refresh takes nothing else: the files are those that the data set's parameters name")
        described = refresh_stage(options.name)
    elif options.annotations is None or options.features is None:
        raise RdfaError("new-dataset needs --annotations and --features (or --refresh); see docs/your-data.md")
    else:
        described = new_dataset_stage(Request(**given))
    print(described.summary, *described.paths, sep="\n")
    table = f", then: snakemake --cores all results/{options.name}.csv" if options.table else ""
    print(
        f"next: look at the values marked 'default', then: rdfa check-data {options.name}, "
        f"then: rdfa fetch {options.name}{table}",
        file=sys.stderr,
    )


def check_data(options: argparse.Namespace) -> int:
    from rdfa.reporting.inspection_text import as_text
    from rdfa.stages.check_data import check_data_stage

    found = check_data_stage(_compose_data(options).run, Path(), options.out)
    print(as_text(found), end="")
    return 1 if found.errors else 0


def train(options: argparse.Namespace) -> None:
    from rdfa.stages.train import train_stage

    folder = train_stage(_compose(options), Path(), not options.no_tracking)
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of the process
        print(folder)


def detect(options: argparse.Namespace) -> None:
    if options.run is None:
        return _detect_files(options)
    _refuse_file_options("detect", options)
    from rdfa.stages.detect import detect_stage

    print(detect_stage(_compose(options).run, Path()))


def _refuse_file_options(command: str, options: argparse.Namespace) -> None:
    given = [name for name, default in options.of_files.items() if getattr(options, name) != default]
    if given:
        option = given[0].replace("_", "-")
        raise RdfaError(f"{command} takes a RUN, or --{option} and what else is for files; see `rdfa {command} --help`")


def _detect_files(options: argparse.Namespace) -> None:
    if options.checkpoint is None or options.features is None or options.set:
        raise RdfaError("detect takes a RUN, or --checkpoint and --features; see `rdfa detect --help`")
    from rdfa.data.feature_files import Timing
    from rdfa.stages.detect_files import detect_files_stage

    remarks = detect_files_stage(
        options.checkpoint,
        options.features,
        options.out,
        given=Timing(fps=options.fps, stride=options.stride, window=options.window, duration=options.duration),
        steps=options.steps,
        overlap=options.overlap,
        device=options.device,
        scores=options.scores,
        classes=options.classes,
        timeline=options.timeline,
    )
    for remark in remarks:
        print(f"rdfa: {remark}", file=sys.stderr)
    print(options.out)


def extract(options: argparse.Namespace) -> None:
    from rdfa.stages.extract import extract_stage

    path = extract_stage(
        options.videos,
        options.out,
        encoder=options.encoder,
        weights=options.weights,
        device=options.device,
        checkpoint=options.checkpoint,
        stride=options.stride,
        window=options.window,
        fps=options.fps,
    )
    print(path)


def import_checkpoint(options: argparse.Namespace) -> None:
    from rdfa.stages.import_checkpoint import import_checkpoint_stage

    print(import_checkpoint_stage(options.file, _compose(options), Path()))


def _evaluate_files(options: argparse.Namespace) -> None:
    from rdfa.evaluation.of_files import as_csv, as_table, evaluate_files, parse_tious
    from rdfa.files import write_json, write_text

    if options.ground_truth is None or options.detections is None:
        raise RdfaError("evaluate takes a RUN, or --ground-truth and --detections; see `rdfa evaluate --help`")
    result = evaluate_files(
        options.ground_truth,
        options.detections,
        subset=options.subset,
        protocol=options.protocol,
        tious=parse_tious(options.tiou),
        count_repeated=options.count_repeated,
    )
    print(as_table(result), end="")
    if options.json is not None:
        write_json(options.json, result.as_json())
    if options.csv is not None:
        write_text(options.csv, as_csv(result))


def evaluate(options: argparse.Namespace) -> None:
    if options.run is None:
        return _evaluate_files(options)
    _refuse_file_options("evaluate", options)
    from rdfa.files import read_json
    from rdfa.stages.evaluate import evaluate_stage

    path = evaluate_stage(_compose(options).run, Path(), not options.no_tracking)
    metrics = read_json(path)
    for tiou, value in zip(metrics["tiou"], metrics["mAP"], strict=True):
        print(f"mAP@{tiou:<5g} {100 * value:6.2f}")
    print(
        f"average   {100 * metrics['average_mAP']:6.2f}"
        + ("   (planted sample data)" if metrics["planted_data"] else "")
    )
    print(path)


def diagnose(options: argparse.Namespace) -> None:
    from rdfa.evaluation.of_files import parse_tious
    from rdfa.stages.diagnose import as_table, diagnose_stage

    results = diagnose_stage(
        options.ground_truth,
        options.detections,
        options.out,
        subset=options.subset,
        tious=parse_tious(options.tiou),
        names=options.name,
        title=options.title,
        bins=options.bins,
    )
    print(as_table(results), end="")
    print(options.out)


def table(options: argparse.Namespace) -> None:
    from rdfa.stages.table import table_stage

    for path in table_stage(options.name, Path(), options.scale, not options.no_tracking):
        print(path)


def figures(options: argparse.Namespace) -> None:
    from rdfa.stages.figures import figures_stage

    print(figures_stage(options.name, Path(), options.scale, options.video, not options.no_tracking))


def site(options: argparse.Namespace) -> None:
    from rdfa.stages.site import site_stage

    print(site_stage(options.names, Path(), options.out, options.scale))


def import_runs(options: argparse.Namespace) -> None:
    from rdfa.stages.import_runs import import_runs_stage

    for line in import_runs_stage(options.tables, Path()):
        print(line)


def gc(options: argparse.Namespace) -> None:
    from rdfa.stages.unused import remove_unused, unused_runs

    unused = unused_runs(Path())
    for folder in unused:
        print(folder)
    print(
        f"{len(unused)} folders that no table uses" + ("" if options.delete else "; --delete removes them"),
        file=sys.stderr,
    )
    if options.delete:
        remove_unused(unused)


def profile(options: argparse.Namespace) -> None:
    from rdfa.stages.profile import profile_stage

    print(profile_stage(_compose(options).run, options.measure), end="")


def doctor(options: argparse.Namespace) -> None:
    from rdfa.doctor import diagnose

    print(diagnose())
