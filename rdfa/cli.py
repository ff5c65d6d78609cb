"""The command line: parse, call one function, print. Heavy modules are imported by the command that needs them."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rdfa import __version__
from rdfa.errors import RdfaError

if TYPE_CHECKING:
    from rdfa.params import Composed

_RUN = "DATASET-MODEL-VARIANT-SCALE-sSEED, as thumos14-rdfa-paper-sample-s0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 2 a user's mistake, 130 interrupted."""
    options = _parser().parse_args(arguments)
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)  # progress goes to the bar on a terminal, and to the run's log file
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[console])
    logging.getLogger("rdfa").setLevel(logging.INFO)
    try:
        options.command(options)
    except RdfaError as error:
        _say(f"rdfa: error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("rdfa: interrupted; the same command goes on from here")
        return 130
    except BrokenPipeError:
        return 141
    return 0


def _say(last_words: str) -> None:
    # Of the processes that torchrun starts on a machine one speaks: they agree on what happened.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with suppress(BrokenPipeError):  # a scheduler's signal may have ended the reader too
            print(last_words, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rdfa", description="Reproduce RDFA-S6 and RCL: temporal action localization."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "params", "print a run's resolved parameters, each with the file that set it", _params)
    fetch = _add(commands, "fetch", "fill the folder of a run's data set from its source", _fetch)
    fetch.add_argument("--archive", type=Path, help="local copy of the source's archive, instead of downloading it")
    _tracked(_add(commands, "train", "train a run's detector, or go on with an interrupted training", _train))
    _add(commands, "detect", "write a trained run's detections on the test split", _detect)
    evaluate = _add(
        commands, "evaluate", "evaluate a run's detections, or any project's files", _evaluate, optional=True
    )
    _tracked(evaluate)
    _files(evaluate)
    importer = commands.add_parser(
        "import-checkpoint", help="take a checkpoint of the official RDFA-S6 as a trained run"
    )
    importer.add_argument("file", type=Path, metavar="FILE", help="as the official repository saves it (.pt)")
    _run_arguments(importer, _import_checkpoint)
    _diagnosis(commands.add_parser("diagnose", help="what kind of errors detections make, as JSON and figures"))
    table = commands.add_parser("table", help="write a table from its runs' metrics")
    table.add_argument("name", help="a file of params/tables, without .yaml")
    table.add_argument("--scale", help="instead of the table's own scale")
    _tracked(table)
    table.set_defaults(command=_table)
    gc = commands.add_parser("gc", help="list the folders of runs that no table uses any more")
    gc.add_argument("--delete", action="store_true", help="delete them too")
    gc.set_defaults(command=_gc)
    profile = _add(commands, "profile", "parameters, multiply-accumulates and memory of a run's detector", _profile)
    profile.add_argument("--measure", action="store_true", help="also time a few training steps on random windows")
    doctor = commands.add_parser(
        "doctor", help="which selective-scan backend is used, why, and how to get a faster one"
    )
    doctor.set_defaults(command=_doctor)
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    help_text: str,
    function: Callable[[argparse.Namespace], None],
    optional: bool = False,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help_text)
    _run_arguments(parser, function, optional)
    return parser


def _run_arguments(
    parser: argparse.ArgumentParser, function: Callable[[argparse.Namespace], None], optional: bool = False
) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?" if optional else None, help=_RUN)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a parameter")
    parser.set_defaults(command=function)


def _tracked(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-tracking", action="store_true", help="do not log to MLflow")


def _files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("evaluation of files, instead of a RUN")
    files.add_argument(
        "--ground-truth", type=Path, help="ActivityNet JSON, or a folder of the THUMOS'14 kit's text files"
    )
    files.add_argument("--detections", type=Path, help="ActivityNet result JSON, or a .txt file of the THUMOS'14 kit")
    files.add_argument("--subset", help="split of the ground truth, if it has several")
    files.add_argument(
        "--protocol",
        choices=["activitynet", "thumos14"],
        default="activitynet",
        help="activitynet: what TAL papers report, interpolated AP (default); thumos14: the original challenge kit's",
    )
    files.add_argument("--tiou", default="0.5:0.95:0.05", help="START:END:STEP or a list with commas (%(default)s)")
    files.add_argument(
        "--count-repeated",
        action="store_true",
        help="count ground truth that repeats in a video, as ActivityNet's toolkit does and the others do not",
    )
    files.add_argument("--json", type=Path, metavar="FILE", help="write the result with per-class AP")
    files.add_argument("--csv", type=Path, metavar="FILE", help="write AP per class and tIoU")


def _diagnosis(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ground-truth", type=Path, required=True, help="ActivityNet JSON")
    parser.add_argument("--detections", type=Path, required=True, nargs="+", metavar="FILE", help="result JSON")
    parser.add_argument("--subset", help="split of the ground truth, if it has several")
    parser.add_argument("--tiou", default="0.5:0.95:0.05", help="START:END:STEP or a list with commas (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where JSON and figures go")
    parser.add_argument("--name", action="append", default=[], help="of a FILE, once for each (default: file names)")
    parser.add_argument("--title", help="data set and scale, the heading of the figures")
    parser.add_argument(
        "--bins",
        action="append",
        default=[],
        help="quantiles (default), activitynet, thumos14 (DETAD's), or edges, as length=0,3,6,12,18,inf; repeatable",
    )
    parser.set_defaults(command=_diagnose)


def _compose(options: argparse.Namespace) -> "Composed":
    from rdfa.identity import parse_run_name
    from rdfa.params import compose

    return compose(**parse_run_name(options.run), overrides=tuple(options.set))


def _params(options: argparse.Namespace) -> None:
    from rdfa.params import resolved_yaml

    print(resolved_yaml(_compose(options)), end="")


def _fetch(options: argparse.Namespace) -> None:
    from rdfa.stages.fetch import fetch_stage

    run = _compose(options).run
    print(fetch_stage(run, Path(), options.archive))


def _train(options: argparse.Namespace) -> None:
    from rdfa.stages.train import train_stage

    folder = train_stage(_compose(options), Path(), not options.no_tracking)
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of the process
        print(folder)


def _detect(options: argparse.Namespace) -> None:
    from rdfa.stages.detect import detect_stage

    print(detect_stage(_compose(options).run, Path()))


def _import_checkpoint(options: argparse.Namespace) -> None:
    from rdfa.stages.import_checkpoint import import_checkpoint_stage

    print(import_checkpoint_stage(options.file, _compose(options), Path()))


def _evaluate_files(options: argparse.Namespace) -> None:
    from rdfa.evaluation.of_files import as_csv, as_table, evaluate_files, parse_tious
    from rdfa.files import write_json, write_text

    if options.run is not None or options.ground_truth is None or options.detections is None:
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


def _evaluate(options: argparse.Namespace) -> None:
    if options.run is None or options.ground_truth is not None or options.detections is not None:
        return _evaluate_files(options)
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


def _diagnose(options: argparse.Namespace) -> None:
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


def _table(options: argparse.Namespace) -> None:
    from rdfa.stages.table import table_stage

    for path in table_stage(options.name, Path(), options.scale, not options.no_tracking):
        print(path)


def _gc(options: argparse.Namespace) -> None:
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


def _profile(options: argparse.Namespace) -> None:
    from rdfa.stages.profile import profile_stage

    print(profile_stage(_compose(options).run, options.measure), end="")


def _doctor(options: argparse.Namespace) -> None:
    from rdfa.doctor import diagnose

    print(diagnose())


if __name__ == "__main__":
    sys.exit(main())
