"""Files that would do harm: archives, pickles, headers."""

import gzip
import io
import json
import lzma
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import rdfa
from rdfa.data.annotations import read_annotations
from rdfa.data.detections import read_detections
from rdfa.data.feature_files import open_features
from rdfa.data.features import FeatureStore
from rdfa.data.fetch import fetch
from rdfa.data.scores import read_scores
from rdfa.errors import RdfaError
from rdfa.params import compose, read_run, resolved_yaml
from rdfa.training.checkpoint import load_weights
from tests.conftest import ROOT
from tests.data.hub_server import serving
from tests.data.hub_sets import archive as packed_archive
from tests.data.hub_sets import member, miniature, parts, publish, tensor_file
from tests.faults.campaign import SURVIVED, WRONG, Outcome, Scene
from tests.faults.hostile_calls import MARKER, Payload, and_nothing_ran, inside, refused, refused_command

RUN = "thumos14-rdfa-released-sample-s0"
BOMB = 600 << 20
"""More bytes than an archive may unpack to."""
_PIECE = bytes(16 << 20)
NAMES = (
    "../{}",
    "/tmp/{}",
    "a/../../{}",
    "RawData/../../../{}",
    "..\\{}",
    "C:\\{}",
    "./../{}",
    "RawData/acc/../../../{}",
)
SAID = {"leads out": ["leads out of the archive"], "twice": ["two members"], "part": ["cannot be a part"]}
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
WRAPPED = {"w:gz": gzip.compress, "w:xz": lzma.compress}


def archives(scene: Scene) -> Iterator[Outcome]:
    run = compose(dataset="hapt", model="rdfa", variant="paper", scale="full", folder=ROOT / "params").run
    place = scene.folder / "data" / "hapt"

    def outcome(what: str, path: Path, *told: str) -> Outcome:
        place.parent.mkdir(exist_ok=True)
        before = {*scene.folder.rglob("*")}
        result = refused(what, lambda: fetch(run, place, "k", path), path, *told)
        left = {*scene.folder.rglob("*")} - before
        return Outcome(WRONG, f"{what}: left {left}") if left else result

    for number in range(scene.count(24, 400)):
        mode = scene.random.choice(("w", "w:gz", "w:xz", "w:bz2", "zip", "zip in zip"))
        kind = scene.random.choice(("leads out", "link", "twice", "declared"))
        path = scene.folder / f"archive{number}"
        path.write_bytes(_archive(scene, mode, kind))
        yield outcome(f"{mode}, {kind}", path, *SAID.get(kind, ()))
        path.unlink()
    for mode in ("w:gz", "w:xz"):
        for header in (False, True):
            if scene.full or (mode == "w:gz"):
                path = scene.folder / "bomb"
                path.write_bytes(_bomb(mode, header))
                yield outcome(f"{mode}, bomb in a {'header' if header else 'member'}", path, "refused")
    many = scene.folder / "many"
    with tarfile.open(many, "w:gz", compresslevel=1) as packed:
        for index in range(10_050):
            info = tarfile.TarInfo(f"d{index}")
            info.type = tarfile.DIRTYPE
            packed.addfile(info)
    yield outcome("folders without end", many, "members")


def _archive(scene: Scene, mode: str, kind: str) -> bytes:
    draw, buffer = scene.random, io.BytesIO()
    good = ("RawData/labels.txt", b"1 1 1 1 100\n")
    bad = draw.choice(NAMES).format(draw.choice(("labels.txt", "acc_exp01_user01.txt", "x")))
    members = [good, *([(bad, b"x")] if kind == "leads out" else [good] if kind == "twice" else [])]
    draw.shuffle(members)
    if mode.startswith("zip"):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members:
                info = zipfile.ZipInfo(name)
                info.filename = name
                if kind == "link":
                    info.external_attr = 0o120777 << 16
                packed.writestr(info, content)
        content = buffer.getvalue()
        if kind == "declared":
            at = content.index(b"PK\x01\x02") + 24
            content = content[:at] + struct.pack("<I", 0xFFFFFF00) + content[at + 4 :]
        if mode == "zip":
            return content
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w") as packed:
            packed.writestr("HAPT.zip", content)
        return outer.getvalue()
    with tarfile.open(fileobj=buffer, mode=mode) as packed:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if kind == "link":
                info.type, info.linkname, info.size = draw.choice(LINKS), "/etc/passwd", 0
            if kind == "declared":
                info.size = 1 << 40
                packed.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
                continue
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _bomb(mode: str, header: bool) -> bytes:
    info = tarfile.TarInfo("unused" if not header else "././@PaxHeader")
    info.type = tarfile.XHDTYPE if header else tarfile.REGTYPE
    info.size = BOMB
    pack = WRAPPED[mode]
    piece = pack(_PIECE)
    return pack(info.tobuf(tarfile.GNU_FORMAT)) + piece * (BOMB // len(_PIECE))


def downloads(scene: Scene) -> Iterator[Outcome]:
    with serving() as hub, inside(scene.folder, HF_ENDPOINT=hub.url):
        published = miniature("thumos14", videos=(2, 1))
        place, marker = scene.folder / "data" / "set", scene.folder / MARKER
        first = published.members()[0][0].name
        for _ in range(scene.count(6, 60)):
            kind = scene.random.choice(("leads out", "link", "pickle", "part"))
            members = published.members()
            info, content = member(f"x/{scene.random.random()}", b"")
            if kind == "leads out":
                info.name = scene.random.choice(NAMES).format("x")
            elif kind == "link":
                info.type, info.linkname = scene.random.choice(LINKS), "/etc/passwd"
            elif kind == "pickle":
                members = members[1:]
                info, content = member(first, tensor_file(scene.random.choice((Payload, _nested))(marker)))
            members.insert(scene.random.randrange(len(members) + 1), (info, content))
            files = parts(published.repository, packed_archive(members), 2)
            if kind == "part":
                name = max(files)
                files[f"{name}/{scene.random.choice(('..', 'listing.json', 'a b', '-x'))}"] = files.pop(name)
            hub.repositories.clear()
            publish(hub, published)
            hub.publish(published.repository, files, f"{scene.random.getrandbits(160):040x}")
            revision = {"revision": None, "archives": tuple(f"{each}*" for each in published.run.source.hub.archives)}
            run = _with_hub(published.run, revision)
            published.place(place)
            outcome = refused(f"{kind} of the Hub", partial(fetch, run, place, "k"), *SAID.get(kind, ()))
            yield and_nothing_ran(outcome, kind, scene.folder)
            shutil.rmtree(scene.folder / "data")


def _with_hub(run: Any, changes: dict[str, Any]) -> Any:
    source = run.source.model_copy(update={"hub": run.source.hub.model_copy(update=changes)})
    return run.model_copy(update={"source": source})


def _nested(marker: Path) -> Any:
    return {"model": {"w": torch.ones(2)}, "model_ema": [Payload(marker)]}


def pickles(scene: Scene) -> Iterator[Outcome]:
    marker = scene.folder / MARKER
    run = scene.folder / "run"
    run.mkdir()
    composed = compose(dataset="thumos14", model="rdfa", variant="paper", scale="sample", folder=ROOT / "params")
    record = json.dumps({"classes": [f"c{index}" for index in range(20)]}).encode()
    whole = {"params.yaml": resolved_yaml(composed).encode(), "run.json": record, "checkpoint.safetensors": b""}
    readers: dict[str, Any] = {
        "a.json": (read_annotations, read_detections, read_scores),
        "a.pkl": (read_annotations, read_scores),
        "a.yaml": (read_run,),
        "a.safetensors": (load_weights,),
        "a.npy": (lambda path: open_features(path, 8),),
        "a.pt": (lambda path: open_features(path, 8),),
        "a.pth": (lambda path: open_features(path, 8),),
        "a.h5": (lambda path: open_features(path, 8), lambda path: FeatureStore(path).videos),
    }
    with inside(scene.folder):
        for number in range(scene.count(60, 1000)):
            form, content = _pickle(scene, marker)
            if number % 4 == 0:
                name = scene.random.choice(sorted(whole))
                for file, right in whole.items():
                    (run / file).write_bytes(content if file == name else right)
                outcome = refused(f"{form} as a run's {name}", lambda: rdfa.load(run))
            elif number % 4 == 1:
                path = scene.folder / f"official{number}.pth"
                path.write_bytes(content)
                outcome = refused_command(f"{form} imported", ("import-checkpoint", path.name, RUN), path.name)
                path.unlink()
            else:
                path = scene.folder / scene.random.choice(sorted(readers))
                path.write_bytes(content)
                read = scene.random.choice(readers[path.name])
                outcome = refused(f"{form} as {path.name}", lambda: read(path), path)  # noqa: B023
            yield and_nothing_ran(outcome, form, scene.folder)


def _pickle(scene: Scene, marker: Path) -> tuple[str, bytes]:
    value: Any = scene.random.choice((Payload, _nested, lambda path: [torch.ones(3), Payload(path)]))(marker)
    form, buffer = scene.random.choice(("pickle", "torch zip", "torch legacy", "npy", "npz", "joined")), io.BytesIO()
    protocol = scene.random.randrange(6)
    if form.startswith("torch"):
        torch.save(value, buffer, _use_new_zipfile_serialization=form == "torch zip")
    elif form in ("npy", "npz"):
        array = np.array([Payload(marker)], dtype=object)
        (np.save if form == "npy" else np.savez)(buffer, array, allow_pickle=True)
    else:
        buffer.write(pickle.dumps(value, protocol))
        if form == "joined":  # torch's old form begins with a number of its own
            torch.save(torch.ones(3), buffer)
    return f"{form}, protocol {protocol}", buffer.getvalue()


def headers(scene: Scene) -> Iterator[Outcome]:
    path = scene.folder / "weights.safetensors"
    values: tuple[Any, ...] = (
        {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 50]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"w": {"dtype": "OBJECT", "shape": [2], "data_offsets": [0, 8]}},
        {"__metadata__": {"x": {"y": 1}}},
        {"__metadata__": ["x"]},
        [],
        {"../../w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    )
    for _ in range(scene.count(20, 1000)):
        text = json.dumps(scene.random.choice(values)).encode()
        size = scene.random.choice((len(text), len(text), len(text), 1 << 62, 0, len(text) - 1))
        path.write_bytes(struct.pack("<Q", size) + text + bytes(scene.random.choice((0, 8, 100))))
        yield refused(f"header {text!r} of {size} bytes", lambda: load_weights(path), path)
    store, secret = scene.folder / "features.h5", scene.folder / "secret.bin"
    secret.write_bytes(np.arange(64, dtype=np.float32).tobytes())
    with h5py.File(scene.folder / "other.h5", "w") as file:
        file["v"] = np.ones((8, 8), np.float32)
    for kind in ("external link", "link of a split", "external values", "virtual", "soft link out"):
        with h5py.File(store, "w") as file:
            group = file.require_group("Test")
            if kind == "external link":
                group["v"] = h5py.ExternalLink("other.h5", "/v")
            elif kind == "link of a split":
                file["Other"] = h5py.ExternalLink("other.h5", "/")
            elif kind == "external values":
                group.create_dataset("v", (8, 8), "f4", external=[(str(secret), 0, 256)])
            elif kind == "virtual":
                layout = h5py.VirtualLayout((8, 8), "f4")
                layout[:] = h5py.VirtualSource("other.h5", "v", (8, 8))
                group.create_virtual_dataset("v", layout)
            else:
                group["v"] = h5py.SoftLink("/elsewhere/../v")
        yield refused(f"a store with {kind}", lambda: FeatureStore(store).read("v"), store)
        yield _or_nothing(f"features with {kind}", store)


def _or_nothing(what: str, path: Path) -> Outcome:
    """Files of others: links are not followed, so that nothing is found, or the file is refused."""
    try:
        videos = open_features(path, 8)
    except RdfaError:
        return Outcome(SURVIVED)
    return Outcome(WRONG, f"{what}: {[video.place for video in videos]}")
