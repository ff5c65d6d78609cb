"""The commands and their arguments."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rdfa import __version__
from rdfa.cli import commands

_DATA = "DATASET, or DATASET-SCALE as thumos14-sample (without SCALE: full)"
_RUN = "DATASET-MODEL-VARIANT-SCALE-sSEED, as thumos14-rdfa-paper-sample-s0"


def parser() -> argparse.ArgumentParser:
    """The whole command line; what is parsed has `command`, the function to call with it."""
    root = argparse.ArgumentParser(prog="rdfa", description="Reproduce RDFA-S6 and RCL: temporal action localization.")
    root.add_argument("--version", action="version", version=__version__)
    known = root.add_subparsers(required=True, metavar="COMMAND")
    _add(known, "params", "print a run's resolved parameters, each with the file that set it", commands.params)
    _fetching(known.add_parser("fetch", help="fill the folders of data sets from their sources"))
    _tracking_of_data(known.add_parser("track", help="enter fetched data sets into data.dvc, to share them with DVC"))
    _new_dataset_arguments(known.add_parser("new-dataset", help="describe data of one's own (docs/your-data.md)"))
    check = _add(known, "check-data", "what is in a data set, and what is wrong with it", commands.check_data, _DATA)
    check.add_argument("--out", type=Path, metavar="FILE", help="draw it too, as .png or .svg")
    _tracked(_add(known, "train", "train a run's detector, or go on with an interrupted training", commands.train))
    _detection(
        _add(
            known,
            "detect",
            "detect with a trained run: on its test split, or in your features",
            commands.detect,
            optional=True,
        )
    )
    evaluate = _add(
        known, "evaluate", "evaluate a run's detections, or any project's files", commands.evaluate, optional=True
    )
    _tracked(evaluate)
    _files(evaluate)
    importer = known.add_parser("import-checkpoint", help="take a checkpoint of the official RDFA-S6 as a trained run")
    importer.add_argument("file", type=Path, metavar="FILE", help="as the official repository saves it (.pt)")
    _run_arguments(importer, commands.import_checkpoint)
    _extraction(known.add_parser("extract", help="features from video files, for detection in your own videos"))
    _diagnosis(known.add_parser("diagnose", help="what kind of errors detections make, as JSON and figures"))
    table = known.add_parser("table", help="write a table from its runs' metrics")
    table.add_argument("name", help="a file of params/tables, without .yaml")
    table.add_argument("--scale", help="instead of the table's own scale")
    _tracked(table)
    table.set_defaults(command=commands.table)
    figures = known.add_parser("figures", help="draw a table's figures from its runs")
    figures.add_argument("name", help="of a table that is written")
    figures.add_argument("--scale", help="instead of the table's own scale")
    figures.add_argument(
        "--video",
        action="append",
        default=[],
        metavar="NAME",
        help="on the timeline (repeatable; default: the videos of median and worst AP)",
    )
    _tracked(figures)
    figures.set_defaults(command=commands.figures)
    site = known.add_parser("site", help="write tables and figures as static pages")
    site.add_argument("names", metavar="TABLE", nargs="*", help="tables with figures (default: all that are made)")
    site.add_argument("--scale", help="instead of the tables' own scales")
    site.add_argument("--out", type=Path, default=Path("site"), metavar="FOLDER", help="where to (%(default)s)")
    site.set_defaults(command=commands.site)
    runs = known.add_parser("import-runs", help="rebuild the MLflow store from results/, or add what it lacks")
    runs.add_argument("tables", nargs="*", metavar="TABLE", help="(default: all that are written, and runs of none)")
    runs.set_defaults(command=commands.import_runs)
    gc = known.add_parser("gc", help="list the folders of runs that no table uses any more")
    gc.add_argument("--delete", action="store_true", help="delete them too")
    gc.set_defaults(command=commands.gc)
    profile = _add(known, "profile", "parameters, products and memory of a run's detector", commands.profile)
    profile.add_argument("--measure", action="store_true", help="also time a few training steps on random windows")
    doctor = known.add_parser("doctor", help="which selective-scan backend is used, why, and how to get a faster one")
    doctor.set_defaults(command=commands.doctor)
    return root


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    help_text: str,
    function: Callable[[argparse.Namespace], int | None],
    what: str = _RUN,
    optional: bool = False,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help_text)
    _run_arguments(parser, function, what, optional)
    return parser


def _run_arguments(
    parser: argparse.ArgumentParser,
    function: Callable[[argparse.Namespace], int | None],
    what: str = _RUN,
    optional: bool = False,
) -> None:
    metavar = "RUN" if what == _RUN else "DATA"
    parser.add_argument("run", metavar=metavar, nargs="?" if optional else None, help=what)
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
    _without_run(parser, files)


def _fetching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="DATA", nargs="+", help=f"{_DATA}; or a run, for its data: {_RUN}")
    parser.add_argument("--archive", type=Path, help="local copy of the source's archive, instead of downloading it")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be downloaded, how large, where to; write nothing"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a parameter")
    parser.set_defaults(command=commands.fetch)


def _tracking_of_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", metavar="DATASET", nargs="*", help="folder of data/, as thumos14-sample (default: all that are there)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say how data.dvc compares with what is there; write nothing"
    )
    parser.set_defaults(command=commands.track)


def _detection(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("detection in your own features, instead of a RUN's test split")
    files.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="a trained run: results/runs/... or a copy")
    files.add_argument("--features", type=Path, metavar="PATH", help=".npy, .pt or .h5 file, or a folder of them")
    files.add_argument("--out", type=Path, default=Path("detections.json"), help="result JSON (%(default)s)")
    files.add_argument("--timeline", type=Path, metavar="FILE.svg", help="also draw the detections")
    files.add_argument("--scores", type=Path, help="external class scores of the videos, for runs that need them")
    files.add_argument("--classes", type=Path, help="annotations with the classes, where the run's folder lacks them")
    files.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(%(default)s)")
    for name, unit in (("fps", "per second"), ("stride", "frames"), ("window", "frames"), ("duration", "seconds")):
        files.add_argument(f"--{name}", type=float, help=f"{unit}, where the features' file does not say")
    files.add_argument("--steps", type=int, help="features per pass of the detector (default: the training's length)")
    overlap = "share of a pass that the next one sees too (default: that of the training's windows, or 0.5)"
    files.add_argument("--overlap", type=float, help=overlap)
    _without_run(parser, files)


def _without_run(parser: argparse.ArgumentParser, files: "argparse._ArgumentGroup") -> None:
    """Note the options that mean nothing beside a RUN, with their defaults: `of_files`."""
    parser.set_defaults(of_files={action.dest: action.default for action in files._group_actions})


def _extraction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO", help="a file that FFmpeg reads")
    parser.add_argument("--encoder", required=True, help="videomae, a plug-in's name, or module:function")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="of videomae, as the Hugging Face Hub has it")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="of videomae (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="a trained run: its stride, window and fps")
    parser.add_argument("--stride", type=int, help="frames between two features")
    parser.add_argument("--window", type=int, help="frames that a feature sees")
    parser.add_argument("--fps", type=float, help="frames per second to resample to (default: the run's or video's)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="feature store to write")
    parser.set_defaults(command=commands.extract)


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
    parser.set_defaults(command=commands.diagnose)


def _new_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="lower-case letters, digits, '_' and '.'")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="ActivityNet JSON, or CSV")
    parser.add_argument("--features", type=Path, metavar="PATH", help="folder of .npy or .pt files, or one .h5 file")
    parser.add_argument("--suffix", help="what follows a video's name in its file's name (default: the shared ending)")
    parser.add_argument("--layout", choices=["TC", "CT"], help="of each array: TC (steps, channels), or CT")
    parser.add_argument("--stride", type=int, help="frames from one feature vector to the next")
    parser.add_argument("--window", type=int, help="frames that a feature vector sees")
    parser.add_argument("--fps", type=float, help="frames per second, if all videos have the same")
    parser.add_argument("--encoder", help="what made the features, for tables")
    parser.add_argument("--train-subset", metavar="SUBSET", help="default: the one called train or training")
    parser.add_argument("--test-subset", metavar="SUBSET", help="default: the one called test, val or the like")
    parser.add_argument("--table", action="store_true", help="also write params/tables/NAME.yaml, for results/NAME.csv")
    parser.add_argument("--refresh", action="store_true", help="accept that the files of data set NAME have changed")
    parser.set_defaults(command=commands.new_dataset)
