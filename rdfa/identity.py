"""A run's name and keys: what its result depends on, hashed, so that a path can never hold something stale.

Each stage has a key: a hash of the key of the stage before, the parameters that it reads and the code that it runs
(parsed, without comments and docstrings, so that rewording retrains nothing). The code of a stage is its module and
all of rdfa that it imports. `rdfa.params` and `rdfa.schema` are left out: what they do is in the values.
"""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rdfa.errors import RdfaError
from rdfa.params import as_plain
from rdfa.schema import OWN_PATHS, Run

CHECKPOINT, RUN_JSON, HISTORY = "checkpoint.safetensors", "run.json", "history.csv"
PARAMS_YAML, LOG = "params.yaml", "log.txt"
"""The files of a run's folder that training writes."""
PACKAGE = Path(__file__).parent
_NOT_CODE = ("rdfa.params", "rdfa.schema", "rdfa.errors")
_OF_PROPOSALS = ("rdfa.models.proposals", "rdfa.training.proposal_", "rdfa.evaluation.proposal_")
"""What only detectors on a map of proposals use; imported where their family is told apart."""
_SOURCES = {".cpp", ".h", ".cu"}
_RUN_NAME = re.compile(
    r"(?P<dataset>[^-]+)-(?P<model_name>[^-]+)-(?P<variant>[^-]+)-(?P<scale>[^-]+)-s(?P<seed>[0-9]{1,9})"
)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Hexadecimal keys of eight digits, one per stage."""

    fetch: str
    train: str
    detect: str
    evaluate: str


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where a run's files are."""

    data: Path
    """Folder of annotations.json and features.h5."""
    manifest: Path
    """Written last by `rdfa fetch`; its name holds the data's key."""
    folder: Path
    """The run's own folder; its name holds the training's key."""
    detections: Path
    metrics: Path
    state: Path
    """Progress of an unfinished training, outside everything that is tracked."""


def run_name(run: Run) -> str:
    """`<data set>-<model>-<variant>-<scale>-s<seed>`, as a person types it."""
    return f"{run.dataset}-{run.model_name}-{run.variant}-{run.scale}-s{run.seed}"


def parse_run_name(name: str) -> dict[str, Any]:
    """The inverse of `run_name`, as arguments of `rdfa.params.compose`.

    Raises:
        RdfaError: not of that form.
    """
    match = _RUN_NAME.fullmatch(name)
    if match is None:
        raise RdfaError(
            f"{name!r} is not a run: it must be DATASET-MODEL-VARIANT-SCALE-sSEED, as thumos14-rdfa-paper-sample-s0"
        )
    parts = match.groupdict()
    return {
        "dataset": parts["dataset"],
        "model": parts["model_name"],
        "variant": parts["variant"],
        "scale": parts["scale"],
        "seed": int(parts["seed"]),
    }


def keys(run: Run) -> Keys:
    """The keys of all stages of a run."""
    values = as_plain(run)
    data = {name: values[name] for name in ("dataset", "num_classes", "train_subset", "test_subset")}
    own = values["source"]["own"]  # what the files hold decides, not where they are
    data["source"] = {name: value for name, value in values["source"].items() if name != "own"}
    data["source"] |= {"hub": _hub_identity(run)}
    if own is not None:
        data["source"]["own"] = {name: value for name, value in own.items() if name not in OWN_PATHS}
    data["features"] = {name: value for name, value in values["features"].items() if name != "keep_every"}
    data["scores"] = run.detection.external_classes > 0
    # Downloaded features are what their commit and checksums say, whatever code fetched them. Where the parameters name
    # neither, the key cannot know the content; then run.json holds its digest, and later stages compare.
    fetch_code = [] if run.source.kind == "hub" else [f"rdfa.data.sources.{run.source.kind}"]
    fetch = _digest("fetch", data, code_digest(fetch_code))
    training = {name: values[name] for name in ("seed", "features", "windows", "model", "training")}
    training_code = ["rdfa.training.loop"]
    if run.training.test_looks_from is not None:  # the looks are recorded, so what they are made with counts
        looks = {name: value for name, value in values["detection"].items() if name != "weights"}
        judged = {name: value for name, value in values["evaluation"].items() if name != "bootstrap"}
        training |= {"detection": looks, "evaluation": judged}
        training_code += ["rdfa.evaluation.detect", "rdfa.evaluation.judgement"]
    family = run.model.family
    train = _digest(fetch, training, code_digest(training_code, family))
    detect = _digest(train, values["detection"], code_digest(["rdfa.evaluation.detect"], family))
    evaluate = _digest(detect, values["evaluation"], code_digest(["rdfa.evaluation.judgement"], family))
    return Keys(fetch=fetch, train=train, detect=detect, evaluate=evaluate)


def _hub_identity(run: Run) -> dict[str, Any] | None:
    """Of a downloaded data set's parameters those that decide what it is, not how or from where it comes."""
    if run.source.kind != "hub":
        return None
    hub: dict[str, Any] = as_plain(run)["source"]["hub"]
    names = ("repository", "revision", "archives", "prefix", "suffix", "axes", "missing_at_most")
    beside = {name: hub[name] and hub[name]["sha256"] for name in ("annotations", "scores")}
    return {name: hub[name] for name in names} | beside


def paths(run: Run, root: Path = Path()) -> Paths:
    """Where the files of a run are, below a working directory."""
    key = keys(run)
    data = root / "data" / data_name(run)
    name = f"{run_name(run)}-{key.train}"
    folder = root / "results" / "runs" / name
    return Paths(
        data=data,
        manifest=data / f"manifest-{key.fetch}.json",
        folder=folder,
        detections=folder / f"detections-{key.detect}.json",
        metrics=folder / f"metrics-{key.evaluate}.json",
        state=root / "checkpoints" / f"{name}.safetensors",
    )


def parse_data_name(name: str) -> dict[str, Any]:
    """Arguments of `rdfa.params.compose` for a run on the data set `name`: its folder's name, or a run's.

    `thumos14-sample` is the data set thumos14 at the scale sample; without a scale, `full`. Which model reads the data
    decides nothing about it.
    """
    if _RUN_NAME.fullmatch(name):
        return parse_run_name(name)
    dataset, _, scale = name.partition("-")
    return {"dataset": dataset, "model": "rdfa", "variant": "paper", "scale": scale or "full", "seed": 0}


def data_name(run: Run) -> str:
    """Name of the folder of a data set: planted data is kept apart from the real one."""
    return f"{run.dataset}-{run.scale}" if run.source.kind == "sample" else run.dataset


def code_digest(modules: Iterable[str], family: str = "rdfa") -> str:
    """Hash of what modules of rdfa do, with everything of rdfa that they import for a family of detectors."""
    parts = hashlib.sha256()
    for name in sorted(closure(modules, family)):
        parts.update(f"{name}:{_module_digest(name)}\n".encode())
    return parts.hexdigest()


def closure(modules: Iterable[str], family: str) -> set[str]:
    """Modules of rdfa and all of rdfa that they import; what only the other families use is not in it."""
    left_out = (*_NOT_CODE, *(_OF_PROPOSALS if family == "rdfa" else ()))
    found: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name not in found and name != "rdfa" and not name.startswith(left_out):
            found.add(name)
            pending.extend(_imports(name))
    return found


@cache
def _imports(name: str) -> tuple[str, ...]:
    return tuple(
        target
        for node in ast.walk(_tree(name))
        for target in _targets(node)
        if target.split(".")[0] == "rdfa" and _file(target) is not None
    )


def _targets(node: ast.AST) -> Iterator[str]:
    """Modules that an import statement may load: `from a import b` loads a, and a.b if that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _module_digest(name: str) -> str:
    tree = _tree(name)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # Docstrings and the string literals that stand below attributes.
            kept = [part for part in body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
            node.body = kept  # type: ignore[attr-defined]
    digest = hashlib.sha256(canonical(tree).encode())
    file = _file(name)
    if file is not None and file.name == "__init__.py":
        for source in sorted(path for path in file.parent.rglob("*") if path.suffix in _SOURCES):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def canonical(tree: ast.AST) -> str:
    """A syntax tree as text, the same from every version of Python: the form of 3.11's `ast.dump`.

    Else a colleague with another Python would have other keys for the same code. 3.12 added `type_params`, 3.13 leaves
    out empty lists unless told otherwise.
    """
    options: dict[str, Any] = {"show_empty": True} if sys.version_info >= (3, 13) else {}
    return ast.dump(tree, **options).replace(", type_params=[]", "")


def _tree(name: str) -> ast.Module:
    file = _file(name)
    assert file is not None, name
    return ast.parse(file.read_text(encoding="utf-8"))


def _file(name: str) -> Path | None:
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for candidate in (base / "__init__.py", base.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def _digest(before: str, values: Any, code: str) -> str:
    text = json.dumps([before, values, code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
