"""The files that go with downloaded features and are published elsewhere: annotations and external class scores.

They are downloaded where the parameters know an address, and otherwise asked for by name. Their place is the data
set's folder, under the names that `rdfa.data.folder` gives them.
"""

from pathlib import Path
from typing import NamedTuple

from rdfa.data.folder import ANNOTATIONS, FEATURES, SCORES
from rdfa.data.sources.download import Remote, download
from rdfa.errors import RdfaError
from rdfa.files import sha256
from rdfa.schema import Beside, Run

_CHECKS = {
    ANNOTATIONS: "its layout, its classes and its splits, then its videos against the features",
    FEATURES: "its width, stride, window and frame rate, and that it has the videos",
    SCORES: "its layout, and that it has every video of the test split and no unknown class",
}


class Needed(NamedTuple):
    """A file that a run needs beside the features."""

    name: str
    """In the data set's folder."""
    about: Beside


def needed(run: Run) -> list[Needed]:
    """The files that a run needs beside the features.

    Raises:
        RdfaError: the run needs class scores, and the data set's parameters describe none.
    """
    hub = run.source.hub
    assert hub is not None, "the schema asks for it"
    files = [Needed(ANNOTATIONS, hub.annotations)]
    if run.detection.external_classes:
        if hub.scores is None:
            raise RdfaError(f"{run.dataset}: detection.external_classes needs source.hub.scores")
        files.append(Needed(SCORES, hub.scores))
    if hub.features is not None:
        files.append(Needed(FEATURES, hub.features))
    return files


def asked_for(run: Run, folder: Path) -> list[str]:
    """A few lines for each file that is absent and that only a person can get."""
    return [
        f"{folder / file.name}\n    what: {file.about.what}\n    from: {file.about.where.strip()}\n"
        f"    then checked: {'its SHA-256, ' if file.about.sha256 else ''}{_CHECKS[file.name]}"
        for file in needed(run)
        if file.about.url is None and not (folder / file.name).is_file()
    ]


def provide(run: Run, folder: Path, *, timeout: float, attempts: int) -> None:
    """Download what can be downloaded, and check the checksums of what is known by one.

    Raises:
        RdfaError: files that only a person can get are absent (all are named), a download fails, or a file is not the
            one that the parameters know.
    """
    folder.mkdir(parents=True, exist_ok=True)  # the place that a person is told about
    absent = asked_for(run, folder)
    if absent:
        raise RdfaError(
            f"{run.dataset}: {len(absent)} file{'s' * (len(absent) > 1)} without a lasting public address must be put "
            "in place by hand:\n  " + "\n  ".join(absent) + "\nThen run the same command again."
        )
    for file in needed(run):
        place = folder / file.name
        if not place.is_file() and file.about.url is not None:
            remote = Remote(url=file.about.url, size=None, checksum=f"sha256:{file.about.sha256}")
            download(remote, place, timeout=timeout, attempts=attempts)
        if file.about.sha256 is not None and sha256(place) != file.about.sha256:
            section = Path(file.name).stem.removeprefix("external_")
            raise RdfaError(
                f"{place}: is not {file.about.what}: its SHA-256 is {sha256(place)[:16]}..., not "
                f"{file.about.sha256[:16]}...; replace it, or, if it is what you want to use, set "
                f"source.hub.{section}.sha256 to its own or to null"
            )
