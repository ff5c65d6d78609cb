"""The Hugging Face Hub as a source: what a data set's repository holds, and its parts on this disk.

In order of reading: `Listing` (the parts of a commit, with sizes and checksums), `ask` (gets one from the Hub),
`Downloads` (the folder of the parts: unfinished ones end in `.part`, the others are whole and were checked).

The parts come over plain HTTP, which goes on after an interruption within a part; huggingface_hub's own downloader
(2.4) starts a killed file again, and its Xet protocol is not used. Of huggingface_hub's settings HF_ENDPOINT, HF_TOKEN
(or `hf auth login`), HF_HUB_OFFLINE and HF_HUB_DOWNLOAD_TIMEOUT count here.
"""

import fnmatch
import os
import re
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from rdfa.data.sources.download import Remote, download
from rdfa.errors import RdfaError, without_passwords
from rdfa.files import read_json, write_json
from rdfa.schema import Hub

_RECORD = "listing.json"
_PART_NAME = re.compile(r"\w[\w.+-]*")
"""A name on this disk, given by a server."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of an archive."""

    archive: int
    """Index of its pattern in `source.hub.archives`."""
    path: str
    """Where it is in the repository."""
    size: int
    """Bytes."""
    checksum: str
    """As in `rdfa.data.sources.download.Remote`."""

    @property
    def name(self) -> str:
        """Its name on this disk."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The parts of a repository at one commit, in the order in which they are joined."""

    repository: str
    commit: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)

    def fits(self, hub: Hub) -> bool:
        """Whether it lists what the parameters ask for."""
        patterns = {index for index, _ in enumerate(hub.archives)}
        return (
            self.repository == hub.repository
            and hub.revision in (None, self.commit)
            and {part.archive for part in self.parts} == patterns
            and all(fnmatch.fnmatchcase(part.path, hub.archives[part.archive]) for part in self.parts)
        )


def ask(hub: Hub) -> Listing:
    """Ask the Hub for the parts of `hub.revision`, or of what `main` is now.

    Raises:
        RdfaError: the Hub cannot be reached or refuses, or the repository has no such parts.
    """
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    assert hub.repository is not None, "only asked where there is one"
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    where = without_passwords(f"{api.endpoint}/datasets/{hub.repository}")
    try:
        found = api.dataset_info(
            hub.repository,
            revision=hub.revision or "main",
            files_metadata=True,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
    except GatedRepoError as error:
        raise RdfaError(
            f"{where}: is gated: accept its terms there with your account, then log in here (`hf auth login`, or the "
            "environment variable HF_TOKEN) and run this again"
        ) from error
    except RepositoryNotFoundError as error:
        raise RdfaError(
            f"{where}: there is no such data set, or it is private; if it is yours, log in (`hf auth login`, or the "
            "environment variable HF_TOKEN), else correct source.hub.repository"
        ) from error
    except RevisionNotFoundError as error:
        raise RdfaError(f"{where}: has no commit {hub.revision}; correct source.hub.revision") from error
    except HfHubHTTPError as error:
        raise RdfaError(
            f"{where}: refused by the server (HTTP {error.response.status_code}); try again later"
        ) from error
    except (OSError, httpx2.HTTPError) as error:
        raise RdfaError(
            f"{where}: cannot be reached ({error or type(error).__name__}); without the internet, fetch on another "
            "machine and copy the data set's folder"
        ) from error
    files = {each.rfilename: each for each in found.siblings or ()}
    parts = []
    for index, pattern in enumerate(hub.archives):
        names = sorted(name for name in files if fnmatch.fnmatchcase(name, pattern))
        if not names:
            there = ", ".join(sorted(files)[:8]) or "nothing"
            raise RdfaError(f"{where}: no file is called {pattern} (source.hub.archives); it holds {there}")
        for name in names:
            lfs, size, blob = files[name].lfs, files[name].size, files[name].blob_id
            known = f"sha256:{lfs.sha256}" if lfs else f"git:{blob}"
            parts.append(Part(archive=index, path=name, size=(lfs.size if lfs else size) or 0, checksum=known))
    if len({part.name for part in parts}) < len(parts) or found.sha is None:
        raise RdfaError(f"{where}: two parts have one name, or the commit is not said; nothing was downloaded")
    for part in parts:
        if not _PART_NAME.fullmatch(part.name) or part.name == _RECORD or part.size <= 0:
            raise RdfaError(f"{where}: {part.path!r} of {part.size} bytes cannot be a part; nothing was downloaded")
    return Listing(repository=hub.repository, commit=found.sha, parts=tuple(parts))


class Downloads:
    """The folder beside a data set's own that holds the parts until the feature store is made of them."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self._hub = hub
        self.folder = folder.with_name(f"{folder.name}.downloads")
        self._record = self.folder / _RECORD

    def listing(self) -> Listing:
        """What an interrupted fetch has begun to download, else what the Hub says now; nothing is written."""
        try:
            content = read_json(self._record)
            begun = Listing(**content | {"parts": tuple(Part(**part) for part in content["parts"])})
        except (RdfaError, TypeError, KeyError):
            return ask(self._hub)
        return begun if begun.fits(self._hub) else ask(self._hub)

    def missing(self, listing: Listing) -> int:
        """Bytes that are still to come."""
        return sum(part.size - min(self._there(part), part.size) for part in listing.parts)

    def path(self, part: Part) -> Path:
        """Where a part is when it is whole."""
        return self.folder / part.name

    def complete(self, listing: Listing) -> None:
        """Download what is missing, with progress on a terminal and a line per part elsewhere.

        Raises:
            RdfaError: see `rdfa.data.sources.download.download`; what is whole stays, and the next call goes on.
        """
        from huggingface_hub import constants, get_token, hf_hub_url

        self._begin(listing)
        token = get_token()
        bar = tqdm(total=listing.size, unit="B", unit_scale=True, desc=self._hub.repository, disable=None)
        with bar:
            for number, part in enumerate(listing.parts, start=1):
                if self._is_whole(part):
                    bar.update(part.size)
                    continue
                url = hf_hub_url(
                    listing.repository,
                    part.path,
                    repo_type="dataset",
                    revision=listing.commit,
                    endpoint=os.environ.get("HF_ENDPOINT"),
                )
                started, there = time.monotonic(), self._there(part)
                download(
                    Remote(url=url, size=part.size, checksum=part.checksum),
                    self.path(part),
                    timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
                    attempts=self._hub.attempts,
                    authorization=f"Bearer {token}" if token else None,
                    progress=bar.update,
                )
                if bar.disable:
                    _report(part, number, len(listing.parts), part.size - there, time.monotonic() - started)

    def remove(self) -> None:
        """Remove the folder: the store is made. First it gets a name that the next fetch removes if this one ends."""
        going = self.folder.with_name(f".{self.folder.name}.part")
        with suppress(OSError):
            if not self.folder.is_symlink():
                self.folder.replace(going)
        shutil.rmtree(going, ignore_errors=True)

    def remove_parts_of(self, commit: object) -> None:
        """Remove the folder if it holds parts of this commit, of which a store is made; others may still be coming."""
        try:
            held = read_json(self._record)["commit"]
        except (RdfaError, TypeError, KeyError):
            return
        if held == commit:
            self.remove()

    def _begin(self, listing: Listing) -> None:
        try:
            content = read_json(self._record)
        except RdfaError:
            content = None
        if content != _plain(listing):
            self.remove()  # parts of another commit or repository
            write_json(self._record, _plain(listing))

    def _is_whole(self, part: Part) -> bool:
        return self.path(part).is_file() and self.path(part).stat().st_size == part.size

    def _there(self, part: Part) -> int:
        if self._is_whole(part):
            return part.size
        unfinished = self.path(part).with_name(f"{part.name}.part")
        return unfinished.stat().st_size if unfinished.is_file() else 0


def _plain(listing: Listing) -> dict[str, object]:
    return asdict(listing) | {"parts": [asdict(part) for part in listing.parts]}


def _report(part: Part, number: int, count: int, came: int, seconds: float) -> None:
    rate = came / 1e6 / max(seconds, 1e-3)
    print(
        f"part {number} of {count}: {part.name}, {part.size / 1e6:.1f} MB, checksum right ({came / 1e6:.1f} MB came in "
        f"{seconds:.0f} s, {rate:.1f} MB/s)",
        file=sys.stderr,
        flush=True,
    )
