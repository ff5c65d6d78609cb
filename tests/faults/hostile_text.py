"""Text that would do harm: YAML, interpolations, names, labels, addresses."""

import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml

from rdfa.data.annotations import read_annotations
from rdfa.data.detections import Detections, read_detections, write_detections
from rdfa.data.features import FeatureWriter
from rdfa.data.fetch import fetch
from rdfa.evaluation.of_files import as_csv, evaluate_files
from rdfa.params import compose, parse_override, read_run, read_yaml
from rdfa.reporting.formats import to_csv, to_latex, to_markdown
from rdfa.reporting.grids import read_table
from rdfa.reporting.pages import table_page
from rdfa.reporting.timeline import write_timeline
from rdfa.stages.track import outlook_stage
from tests.conftest import ROOT
from tests.faults.campaign import SURVIVED, WRONG, Outcome, Scene
from tests.faults.hostile_calls import (
    accepted_or_refused,
    and_nothing_ran,
    command,
    inside,
    refused,
    refused_command,
)

RUN = "thumos14-rdfa-paper-sample-s0"
SECRET = "hunter2-of-the-environment"
PIECES = (
    *[
        ";",
        "$",
        "`",
        "'",
        '"',
        "|",
        "&",
        "<",
        ">",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "*",
        "?",
        "!",
        "#",
        "~",
        "\\",
        "/",
        "%",
        "^",
        "=",
        "+",
        "-",
        "@",
        ",",
        ":",
        ".",
    ],
    *(" ", "..", "\n", "\r", "\t", "\x1b[31m", "\x00", "\u202e", "\u2028", "\ud800", "\u0430", "\uff0e", "\u00df"),
    *("$(touch M)", "`touch M`", "; touch M", "| touch M", "$x^{$", "$\\frac$", "<script>alert(1)</script>", "--help"),
    *(
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1))",
        "\\input{/etc/passwd}",
        "=cmd|' /C calc'!A0",
        "@SUM(1)",
    ),
    *("a", "b", "walk", "9", "{wildcards.run}", "{{7*7}}", "%s", "${oc.env:SECRET}", "]]>", "<!--", "&amp;", "-->"),
)
TAGS = (
    "!!python/object/apply:os.system ['touch M']",
    "!!python/object/new:os.system ['touch M']",
    "!!python/object/apply:subprocess.check_output [['touch', 'M']]",
    "!!python/object/apply:pathlib.Path [x]",
    "!!python/object:pathlib.PosixPath {}",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1]",
    "!!binary aGVsbG8=",
    "!!set {a}",
    "!!timestamp 2001-01-01",
    "!custom x",
    "!!str x",
    "&a [*a]",
    "&a {b: *a}",
    "[" * 500,
    "{a: " * 500,
    "9" * 5000,
    "[&a [1,1,1,1,1,1,1,1,1], &b [*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b], [*c,*c,*c,*c,*c,*c,*c,*c,*c]]",
    "[&a [1], " + "*a, " * 5000 + "]",
    "? [a]\n: 1",
)
ESCAPES = (
    "${oc.env:SECRET}",
    "${oc.decode:${oc.env:SECRET}}",
    "${oc.create:{a: 1}}",
    "${oc.dict.keys:training}",
    "${x}",
)


def yaml_texts(scene: Scene) -> Iterator[Outcome]:
    with inside(scene.folder):
        for _ in range(scene.count(60, 1500)):
            tag = scene.random.choice(TAGS)
            place = scene.random.choice(("file", "run", "override", "command", "data.dvc", "table"))
            what = f"{tag[:60]!r} in {place}"
            path = scene.folder / "x.yaml"
            path.write_text(f"features:\n  encoder: {tag}\n" if not tag.startswith("?") else tag)
            if place == "file":
                outcome = refused(what, partial(read_yaml, path), path)
            elif place == "run":
                outcome = refused(what, partial(read_run, path), path)
            elif place == "override":
                outcome = refused(what, lambda: parse_override(f"features.encoder={tag}"), "features.encoder")  # noqa: B023
            elif place == "command":
                arguments = ("params", RUN, "--set", f"features.encoder={tag}")
                outcome = refused_command(what, arguments, "features.encoder")
            elif place == "data.dvc":
                (scene.folder / "data.dvc").write_text(f"outs: {tag}\n")
                outcome = accepted_or_refused(what, lambda: outlook_stage((), scene.folder))
            else:
                folder = _with_table(scene.folder / "own", f"title: {tag}\n")
                outcome = refused(what, lambda: read_table("x", folder=folder), "x.yaml")  # noqa: B023
            yield and_nothing_ran(outcome, what, scene.folder)


def _with_table(folder: Path, text: str) -> Path:
    """A folder of parameters with one table of its own."""
    if not folder.exists():
        folder.mkdir()
        for name in ("defaults.yaml", "datasets", "models", "scales"):
            (folder / name).symlink_to(ROOT / "params" / name)
        (folder / "tables").mkdir()
    (folder / "tables" / "x.yaml").write_text(text)
    return folder


def environment(scene: Scene) -> Iterator[Outcome]:
    with inside(scene.folder, SECRET=SECRET, RDFA_TEST=SECRET):
        for _ in range(scene.count(30, 600)):
            value = scene.random.choice(ESCAPES)
            spelt = scene.random.choice(
                (value, f"'{value}'", json.dumps(value), json.dumps(value).replace("$", "\\x24"), f"[1, '{value}']",
                 f"{{'{value}': 1}}",
                 json.dumps(value).replace("{", "\\u007b"), f"{{a: [{{b: '{value}'}}]}}")
            )  # fmt: skip
            key = scene.random.choice(("features.encoder", "train_subset", "source.hub.archives", "training.epochs"))
            if scene.random.random() < 0.5:
                outcome = refused_command(f"{key}={spelt}", ("params", RUN, "--set", f"{key}={spelt}"), key)
            else:
                path = scene.folder / "x.yaml"
                path.write_text(f"{key}: {spelt}\n")
                outcome = refused(f"{spelt} in a file", partial(read_run, path), path)
            yield outcome
        for variable in ("SECRET", "HOME", "PATH", "RDFA_TEST"):
            setting = f"source.archive.variable={variable}"
            status, said = command("fetch", "hapt", "--set", setting)
            known = variable.startswith("RDFA_")  # it is the path that the user gave
            good = status == 2 and (known or (SECRET not in said and scene.folder.as_posix() not in said))
            yield Outcome(SURVIVED) if good else Outcome(WRONG, f"{setting}: status {status}: {said}")


def drawn_name(scene: Scene) -> str:
    if scene.random.random() < 0.05:
        return "a" * scene.random.choice((255, 300, 5000))
    return "".join(scene.random.choice(PIECES) for _ in range(scene.random.randrange(1, 5))) or "a"


def names(scene: Scene) -> Iterator[Outcome]:
    with inside(scene.folder):
        for number in range(scene.count(60, 1500)):
            name = drawn_name(scene)
            what = f"the name {name[:60]!r}"
            if number % 3 == 0:
                outcome = _as_argument(scene, name.replace("\x00", ""), what)
            elif number % 3 == 1:
                outcome = accepted_or_refused(f"{what} in a store", lambda: _stored(scene.folder / "v.h5", name))  # noqa: B023
            else:
                outcome = accepted_or_refused(f"{what} in annotations", lambda: _through_files(scene.folder, name))  # noqa: B023
            yield and_nothing_ran(outcome, what, scene.folder)
            for left in scene.folder.glob("M*"):
                left.unlink()
                yield Outcome(WRONG, f"{what}: its command ran")


def _as_argument(scene: Scene, name: str, what: str) -> Outcome:
    first = f"./{name}" if name.startswith("-") else name  # else it is an option: argparse's
    call = scene.random.choice(
        (
            ("params", f"{first}-rdfa-paper-sample-s0"),
            ("params", f"thumos14-{first}-paper-sample-s0"),
            ("params", f"thumos14-rdfa-{first}-sample-s0"),
            ("params", f"thumos14-rdfa-paper-{first}-s0"),
            ("params", f"thumos14-rdfa-paper-sample-s{first}x"),
            ("fetch", f"x{first}"), ("check-data", f"x{first}"), ("track", f"x{first}"),
            ("table", f"x{first}"), ("figures", f"x{first}"), ("site", f"x{first}"),
            ("detect", "--checkpoint", f"x{first}", "--features", "b"), ("import-checkpoint", f"x{first}", RUN),
            ("new-dataset", f"x {first}", "--annotations", "x.csv", "--features", "y"),
        )
    )  # fmt: skip
    return refused_command(f"{what} for {call[0]}", call)


def _stored(path: Path, name: str) -> None:
    with FeatureWriter(path) as writer:
        writer.add(
            name,
            "test",
            np.ones((2, 2), np.float32),
            fps=1.0,
            stride=1,
            window=1,
            duration=2.0,
            encoder="x",
            source="y",
        )


def _through_files(folder: Path, name: str) -> None:
    """A video and a class of a name: annotations, detections, evaluation as CSV, and a picture."""
    truth, found = folder / "truth.json", folder / "found.json"
    video = {"subset": "test", "duration": 9.0, "annotations": [{"segment": [1, 2], "label": name}]}
    truth.write_text(json.dumps({"database": {name: video}}))
    read_annotations(truth)
    detections = Detections(
        videos=(name,), video_index=np.zeros(1, np.int64), segments=np.array([[1.0, 2.0]]), scores=np.ones(1),
        label_index=np.zeros(1, np.int64), classes=(name,),
    )  # fmt: skip
    write_detections(found, detections)
    assert read_detections(found).videos == (name,)
    result = evaluate_files(truth, found, subset=None, protocol="activitynet", tious=[0.5])
    cells = [row[0] for row in csv.reader(io.StringIO(as_csv(result)))]
    assert cells[1] in (name, f"'{name}"), f"another name in the CSV: {cells}"
    assert not cells[1].startswith(("=", "+", "-", "@")), f"a formula: {cells}"
    if len(name) < 300:
        write_timeline(folder / "t.svg", detections, [9.0])
        tree = ElementTree.parse(folder / "t.svg")
        assert any(name in "".join(each.itertext()) for each in tree.iter()) or name != name.strip(), (
            "not in the picture"
        )
        assert not [each for each in tree.iter() if each.tag.endswith("script")]


class _Page(HTMLParser):
    """What a browser would run in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.harm: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "img", "iframe", "object", "embed", "svg", "form", "base"):
            self.harm.append(tag)
        for name, value in attributes:
            if name.startswith("on") or (value or "").strip().lower().startswith(("javascript:", "data:", "vbscript:")):
                self.harm.append(f"{tag} {name}={value}")


def pages(scene: Scene) -> Iterator[Outcome]:
    with inside(scene.folder):
        for _ in range(scene.count(30, 600)):
            label, title = drawn_name(scene), drawn_name(scene)
            row = {"model": "rdfa", "variant": "paper", "label": label}
            table = {"title": title, "dataset": "thumos14", "scale": "sample", "seeds": [0], "rows": [row]}
            text = yaml.safe_dump(table, allow_unicode=False)
            folder = _with_table(scene.folder / "own", text)
            what = f"the label {label[:60]!r} and the title {title[:60]!r}"
            yield accepted_or_refused(what, lambda: _shown(folder))  # noqa: B023


def _shown(folder: Path) -> None:
    table, entries = read_table("x", folder=folder)
    label = entries[0].row.shown
    empty = dict.fromkeys(
        ("std", "low", "high", "change", "change std", "change low", "change high", "noise", "best of test")
    )
    row: dict[str, Any] = {
        "data set": "thumos14", "variant": label, "scale": "sample", "average": 1.0, **empty, "low": 0.5, "high": 1.5,
        "runs": "a b", "row": label,
    }  # fmt: skip
    cells = next(csv.DictReader(io.StringIO(to_csv([row]))))
    assert not cells["variant"].startswith(("=", "+", "-", "@")), f"a formula: {cells['variant']!r}"
    page = _Page()
    page.feed(table_page(to_markdown(table.title, [row], 0.95), table.title))
    assert not page.harm, f"a page with {page.harm}"
    latex = to_latex(table.title, [row], 0.95)
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    known = (
        r"\\(textbackslash|textasciitilde|textasciicircum|begin|end|toprule|midrule|bottomrule|centering|small|caption"
    )
    commands = re.sub(known + r"|medskip|pm)\b|\\[&%$#_{}]|\\\\", "", body)
    assert "\\" not in commands, f"LaTeX with a command: {commands!r}"


def addresses(scene: Scene) -> Iterator[Outcome]:
    secret = scene.folder / "secret.txt"
    secret.write_text(SECRET)
    bad = (
        secret.as_uri(), "file:///etc/passwd", "FILE:///etc/passwd", "ftp://localhost/x", "data:text/plain,x",
        "/etc/passwd",
        f"http://user:{SECRET}@localhost/x", "http://localhost/ x", "local_file:///etc/passwd", "", "gopher://x", "http:///x",
    )  # fmt: skip
    with inside(scene.folder):
        for _ in range(scene.count(10, 100)):
            url = scene.random.choice(bad)
            yield refused_command(
                url, ("params", "hapt-rdfa-paper-full-s0", "--set", f"source.archive.url={url}"), "url"
            )
        with _redirecting() as (server, port):
            for _ in range(scene.count(6, 40)):
                server.target = scene.random.choice((*bad[:5], "//etc/passwd", "file:/etc/passwd"))
                setting = f"source.archive.url=http://127.0.0.1:{port}/x"
                run = compose(dataset="hapt", model="rdfa", variant="paper", scale="full", overrides=(setting,)).run
                outcome = refused(
                    f"redirected to {server.target}", partial(fetch, run, Path("data/hapt"), "k"), "127.0.0.1"
                )
                left = [path for path in (scene.folder / "data").rglob("*") if path.is_file()]
                yield Outcome(WRONG, f"{server.target}: left {left}") if left else outcome
    for variable in ("MLFLOW_TRACKING_URI", "HF_ENDPOINT"):
        address = f"http://user:{SECRET}@127.0.0.1:9"
        with inside(scene.folder, **{variable: address}):
            call = ("import-runs",) if variable.startswith("MLFLOW") else ("fetch", "hacs", "--dry-run")
            _, said = command(*call)
            good = SECRET not in said and "127.0.0.1:9" in said
            yield Outcome(SURVIVED) if good else Outcome(WRONG, f"{variable}: {said}")


class _Redirecting:
    def __enter__(self) -> tuple[Any, int]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", self.server.target)  # type: ignore[attr-defined]
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self.server, self.server.server_port

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def _redirecting() -> _Redirecting:
    return _Redirecting()
