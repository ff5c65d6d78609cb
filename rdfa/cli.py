"""The command line: parse, call one function, print. Heavy modules are imported by the command that needs them."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
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
        print(f"rdfa: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rdfa: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    return 0


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
    _tracked(_add(commands, "evaluate", "evaluate a run's detections", _evaluate))
    table = commands.add_parser("table", help="write a table from its runs' metrics")
    table.add_argument("name", help="a file of params/tables, without .yaml")
    table.add_argument("--scale", help="instead of the table's own scale")
    _tracked(table)
    table.set_defaults(command=_table)
    gc = commands.add_parser("gc", help="list the folders of runs that no table uses any more")
    gc.add_argument("--delete", action="store_true", help="delete them too")
    gc.set_defaults(command=_gc)
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
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help_text)
    parser.add_argument("run", metavar="RUN", help=_RUN)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a parameter")
    parser.set_defaults(command=function)
    return parser


def _tracked(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-tracking", action="store_true", help="do not log to MLflow")


def _compose(options: argparse.Namespace) -> "Composed":
    from rdfa.identity import parse_run_name
    from rdfa.params import compose

    return compose(**parse_run_name(options.run), overrides=tuple(options.set))


def _params(options: argparse.Namespace) -> None:
    from rdfa.params import resolved_yaml

    print(resolved_yaml(_compose(options)), end="")


def _fetch(options: argparse.Namespace) -> None:
    from rdfa.stages import fetch_stage

    run = _compose(options).run
    print(fetch_stage(run, Path(), options.archive))


def _train(options: argparse.Namespace) -> None:
    from rdfa.stages import train_stage

    print(train_stage(_compose(options), Path(), not options.no_tracking))


def _detect(options: argparse.Namespace) -> None:
    from rdfa.stages import detect_stage

    print(detect_stage(_compose(options).run, Path()))


def _evaluate(options: argparse.Namespace) -> None:
    from rdfa.files import read_json
    from rdfa.stages import evaluate_stage

    path = evaluate_stage(_compose(options).run, Path(), not options.no_tracking)
    metrics = read_json(path)
    for tiou, value in zip(metrics["tiou"], metrics["mAP"], strict=True):
        print(f"mAP@{tiou:<5g} {100 * value:6.2f}")
    print(
        f"average   {100 * metrics['average_mAP']:6.2f}"
        + ("   (planted sample data)" if metrics["planted_data"] else "")
    )
    print(path)


def _table(options: argparse.Namespace) -> None:
    from rdfa.stages import table_stage

    for path in table_stage(options.name, Path(), options.scale, not options.no_tracking):
        print(path)


def _gc(options: argparse.Namespace) -> None:
    from rdfa.stages import remove_unused, unused_runs

    unused = unused_runs(Path())
    for folder in unused:
        print(folder)
    print(
        f"{len(unused)} folders that no table uses" + ("" if options.delete else "; --delete removes them"),
        file=sys.stderr,
    )
    if options.delete:
        remove_unused(unused)


def _doctor(options: argparse.Namespace) -> None:
    from rdfa.doctor import diagnose

    print(diagnose())


if __name__ == "__main__":
    sys.exit(main())
