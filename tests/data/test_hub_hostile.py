"""What archives and tensor files from outside may hold: refused by name, with nothing of it run or left."""

import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rdfa.data.fetch import fetch
from rdfa.data.sources import hub_features
from rdfa.data.tensors import read_tensor
from rdfa.errors import RdfaError
from tests.data.hub_server import Hub
from tests.data.hub_sets import (
    Member,
    Published,
    archive,
    assert_whole,
    downloads,
    entries,
    member,
    parts,
    publish,
    refusal,
    tensor_file,
)

BOMB = hub_features.SLACK * 5 // 4


def hostile(kind: str) -> Member:
    info, content = member("thumos14_6b/x_spatial_feature.pt", b"")
    if kind in ("../escape", "/absolute", "a\\b"):
        info.name = kind
    elif kind == "bomb":
        return member("thumos14_6b/x_spatial_feature.pt", bytes(BOMB))
    elif kind == "unused bomb":
        return member("thumos14_6b/unused", bytes(BOMB))
    else:
        info.type = {"symlink": tarfile.SYMTYPE, "link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}[kind]
        info.linkname = "/etc/passwd"
    return info, content


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("../escape", "leads out of the archive"),
        ("/absolute", "leads out of the archive"),
        ("a\\b", "leads out of the archive"),
        ("symlink", "is a link or a device"),
        ("link", "is a link or a device"),
        ("device", "is a link or a device"),
        ("bomb", "unpacks to more than features can"),
        ("unused bomb", "unpacks to more than features can"),
    ],
)
def test_a_hostile_archive_is_refused(hub: Hub, published: Published, place: Path, kind: str, said: str) -> None:
    content = archive([*published.members(), hostile(kind)])
    hub.publish(published.repository, parts(published.repository, content, 2))
    message = refusal(published, place)
    assert said in message and f"removing {downloads(place)} begins anew" in message
    assert entries(place) == ["annotations.json"]
    assert entries(place.parent) == [place.name, f"{place.name}.downloads"], "and nothing beside it"
    # A mended archive is another commit; the parts of the old one are no use to it.
    publish(hub, published, "ab" * 20)
    shutil.rmtree(downloads(place))  # as the message says
    fetch(published.run, place, "k")
    assert_whole(published, place)


def test_a_header_that_unpacks_to_a_bomb_is_refused(hub: Hub, published: Published, place: Path) -> None:
    """Extended headers are read into memory before any member is seen."""
    info = member("thumos14_6b/x", b"")[0]
    info.pax_headers = {"comment": "x" * BOMB}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT, compresslevel=1) as packed:
        packed.addfile(info)
    hub.publish(published.repository, parts(published.repository, buffer.getvalue(), 2))
    assert "unpacks to more than features can; refused" in refusal(published, place)


@pytest.mark.parametrize("kind", ["a part is missing", "no gzip", "cut between members", "twice"])
def test_an_archive_that_is_not_whole_is_refused(hub: Hub, published: Published, place: Path, kind: str) -> None:
    members = published.members()
    files = parts(published.repository, archive(members), 3)
    said = "together they are no whole .tar.gz"
    if kind == "a part is missing":
        del files[max(files)]
    elif kind == "no gzip":
        files = parts(published.repository, b"PK" + archive(members), 3)
    elif kind == "cut between members":
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as packed:
            for info, content in members:
                packed.addfile(info, io.BytesIO(content))
        cut = gzip.compress(plain.getvalue(), 1)[:-30]
        files = parts(published.repository, cut, 3)
    else:
        files = parts(published.repository, archive([*members, members[0]]), 3)
        said = "two members hold the features of video"
    hub.publish(published.repository, files)
    assert said in refusal(published, place)


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def with_first(published: Published, content: bytes) -> dict[str, bytes]:
    """The repository with another first tensor file."""
    (info, _), *rest = published.members()
    return parts(published.repository, archive([member(info.name, content), *rest]), 2)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"features": torch.ones(3, 8)}, "must hold one tensor, not dict"),
        (torch.ones(3, 8, dtype=torch.int64), "holds int64; features are float16 or float32"),
        (torch.ones(3, 8).to_sparse(), "a sparse or quantized tensor"),
        (torch.ones(3, 2, 8), r"has shape (3, 2, 8), the parameters say 2 axes: time, channel"),
        (torch.ones(1, 1).expand(10**6, 8), "its tensor (1000000, 8) is larger than the file"),
        (torch.ones(3, 7), "has 7 channels, the parameters (features.dimension) say 8"),
        (torch.ones(8, 3), "its axes are the other way round: source.hub.axes"),
        (torch.full((3, 8), torch.nan), "has the feature nan at step 0, channel 0 (24 of 24 are not finite)"),
        (torch.full((3, 8), 1e300, dtype=torch.float64), "has the feature inf"),
        (torch.ones(0, 8), "are empty, shape (0, 8)"),
    ],
)
def test_a_tensor_that_the_parameters_do_not_describe_is_refused(
    hub: Hub, published: Published, place: Path, value: object, said: str
) -> None:
    hub.publish(published.repository, with_first(published, tensor_file(value)))
    message = refusal(published, place)
    assert said in message and next(iter(published.features)) in message


def test_a_pickle_with_a_payload_is_refused_and_not_run(
    hub: Hub, published: Published, place: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "was_run"
    hub.publish(published.repository, with_first(published, tensor_file(Payload(marker))))
    assert "holds other things than one tensor; nothing in it was run" in refusal(published, place)
    assert not marker.exists()


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_tensor_file_that_is_not_whole_is_refused(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "features.pt"
    file.write_bytes(tensor_file(torch.ones(300, 8))[:cut])
    with pytest.raises(RdfaError, match=r"features\.pt: (not a whole file of torch.save|is damaged)"):
        read_tensor(file)
    file.write_bytes(tensor_file(torch.ones(300, 8)))
    np.testing.assert_array_equal(read_tensor(file), np.ones((300, 8), np.float32))
