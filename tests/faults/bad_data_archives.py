"""Archives as they are published, whole, and what rdfa makes of them."""

import hashlib
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from rdfa.data.annotations import read_annotations
from rdfa.data.sources.hapt import write_hapt
from rdfa.data.sources.hub import Downloads, Listing, Part
from rdfa.data.sources.hub_features import convert
from rdfa.schema import Run
from tests.data import hub_sets, test_hapt
from tests.data.hub_server import COMMIT
from tests.faults import bad_data_harm as harm
from tests.faults.bad_data_files import Subject, folder, read_store


def hapt() -> list[Subject]:
    """The two forms in which the HAPT recordings are published."""
    files = test_hapt.made_up((120, 90))
    files["labels.txt"] = b"1 1 1 1 50\n2 2 7 10 80\n"
    run, place = test_hapt.run_for(files), folder("hapt")
    forms = (test_hapt.tar_of(place / "raw.tar.xz", files), test_hapt.zip_of(place / "raw.zip", files))
    return [Subject(path, harm.packed, partial(_recordings, run, path)) for path in forms]


def _recordings(run: Run, path: Path) -> Any:
    with tempfile.TemporaryDirectory() as made:
        write_hapt(run, Path(made), path)
        return read_store(Path(made) / "features.h5"), (Path(made) / "annotations.json").read_bytes()


def hub() -> list[Subject]:
    """The downloaded parts of a .tar.gz, between their download and their conversion."""
    published, place = hub_sets.miniature("thumos14"), folder("hub") / "thumos14"
    assert published.run.source.hub is not None
    published.place(place)
    downloads = Downloads(published.run.source.hub, place)
    downloads.folder.mkdir()
    parts = []
    for name, content in sorted(published.files(2).items()):
        if ".part" in name:
            checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
            parts.append(Part(archive=0, path=name, size=len(content), checksum=checksum))
            (downloads.folder / name).write_bytes(content)
    listing = Listing(repository=published.repository, commit=COMMIT, parts=tuple(parts))
    read = partial(_converted, published.run, place, listing, downloads)
    return [Subject(downloads.path(part), harm.packed, read) for part in parts]


def _converted(run: Run, place: Path, listing: Listing, downloads: Downloads) -> Any:
    annotations = read_annotations(place / "annotations.json", faulty="mend")
    with tempfile.TemporaryDirectory() as made:
        target = Path(made) / "features.h5"
        convert(run, {video.name: video for video in annotations.videos}, listing, downloads, target, "a source")
        return read_store(target)
