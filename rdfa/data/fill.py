"""A folder of real features: what it lacks, and filling it from the Hugging Face Hub, or with what people put there.

In order of reading: `Plan` and `plan` (what is there, what will come, whether the disk has room; writes nothing),
`fill` (carries it out). Each file is written whole; the manifest, which the caller writes last, is what makes the
folder a data set.
"""

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdfa.data.annotations import read_annotations
from rdfa.data.features import FeatureStore
from rdfa.data.folder import ANNOTATIONS, FEATURES, subsets
from rdfa.data.sources.beside import provide
from rdfa.data.sources.hub import Downloads, Listing
from rdfa.errors import RdfaError
from rdfa.files import read_json, sha256
from rdfa.schema import Hub, Run

_CONVERSION = 1
"""Counts the changes to rdfa.data.sources that give other features from the same archive; then stores are remade."""
_ORIGIN = "huggingface"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a fetch of real features will do."""

    listing: Listing | None
    """What will be downloaded and converted; None: a feature store is there, or a person brings it."""
    by_hand: bool
    """Whether that store was put there by somebody; it may then be of other code and is read through."""
    missing: int
    """Bytes to be downloaded."""
    store: int
    """Bytes, about, of the feature store to be made."""
    free: int
    """Bytes that are free where the folder is."""

    @property
    def fits(self) -> bool:
        """Whether the disk has room: the parts stay until the store is made of them."""
        return self.missing + self.store <= self.free


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What a fill has done."""

    origin: dict[str, Any]
    """Where the features came from, for the manifest."""
    by_hand: bool
    kept: bool
    """Whether a store of an earlier fetch was kept."""
    downloads: Downloads
    """To be removed when the manifest is written."""


def plan(run: Run, folder: Path) -> Plan:
    """What fetching into `folder` means now. Asks the Hub if features must come from there.

    Raises:
        RdfaError: the Hub cannot be reached or lacks the repository; a feature store is there, but damaged.
    """
    hub = _hub(run)
    made_from = _made_from(folder)
    by_hand = made_from is not None and not made_from.startswith(_ORIGIN)
    listing, missing = None, 0
    downloads = Downloads(hub, folder)
    # Parts without a manifest: the fetch was stopped when the store was made, and what it knew of them is made again.
    ended = not downloads.folder.exists() or any(folder.glob("manifest-*.json"))
    kept = made_from is not None and (by_hand or (ended and _is_ours(run, hub, made_from)))
    if hub.repository is not None and not kept:
        listing = downloads.listing()
        missing = downloads.missing(listing)
    return Plan(
        listing=listing,
        by_hand=by_hand,
        missing=missing,
        store=round(listing.size * hub.store_per_download) if listing else 0,
        free=_free(folder),
    )


def fill(run: Run, folder: Path) -> Filled:
    """Provide annotations, scores and features.

    Raises:
        RdfaError: files that a person must get are absent (all are named); the disk will not suffice (nothing was
            begun); a download or the conversion fails (what is whole stays, and the next call goes on).
    """
    from huggingface_hub import constants

    hub = _hub(run)
    for left in folder.glob(".*.part"):
        left.unlink()  # of a killed fetch: files that were being written
    provide(run, folder, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, attempts=hub.attempts)
    coming = plan(run, folder)
    downloads = Downloads(hub, folder)
    if coming.listing is None:
        origin = _known_origin(folder)
        return Filled(origin=origin, by_hand=coming.by_hand, kept=not coming.by_hand, downloads=downloads)
    if not coming.fits:
        raise RdfaError(
            f"{folder.parent}: has {as_bytes(coming.free)} free, but {as_bytes(coming.missing)} are to be downloaded "
            f"and about {as_bytes(coming.store)} to be made of them (nothing was begun); make room, or let {folder} be "
            "a link to a folder on a larger disk"
        )
    origin = _from_hub(run, hub, folder, coming.listing, downloads)
    return Filled(origin=origin, by_hand=False, kept=False, downloads=downloads)


def _from_hub(run: Run, hub: Hub, folder: Path, listing: Listing, downloads: Downloads) -> dict[str, Any]:
    from rdfa.data.sources.hub_features import convert

    if hub.revision is None:
        print(
            f"{hub.repository}: main is commit {listing.commit}; to pin it: source.hub.revision={listing.commit}",
            file=sys.stderr,
        )
    annotations = read_annotations(folder / ANNOTATIONS, faulty="mend")  # refused before anything is downloaded
    videos = {video.name: video for name in subsets(run) for video in annotations.subset(name).videos}
    downloads.complete(listing)
    for stale in folder.glob("manifest-*.json"):
        stale.unlink()  # it describes a store that is about to be replaced
    source = f"{_ORIGIN} {hub.repository} {listing.commit} {_recipe(run, hub)}"
    try:
        unused = convert(run, videos, listing, downloads, folder / FEATURES, source)
    except RdfaError as error:
        raise RdfaError(
            f"{error}\n(what was downloaded is kept for another try; removing {downloads.folder} begins anew, with "
            "what the repository holds then)"
        ) from error
    return {
        "repository": hub.repository,
        "commit": listing.commit,
        "parts": {part.path: {"bytes": part.size, "checksum": part.checksum} for part in listing.parts},
        "feature_files_not_used": unused,
    }


def _known_origin(folder: Path) -> dict[str, Any]:
    """What can be said about a store that is there."""
    made_from = (_made_from(folder) or "").split(" ")
    if made_from[0] != _ORIGIN:
        return {"features": "put in place by hand"}
    for manifest in sorted(folder.glob("manifest-*.json")):
        try:
            origin = dict(read_json(manifest)["origin"])
        except (RdfaError, KeyError, TypeError, ValueError):
            continue
        if origin.get("commit") == made_from[2]:
            return origin
    return {"repository": made_from[1], "commit": made_from[2]}


def _made_from(folder: Path) -> str | None:
    """What the store says it was made from; None: there is no store, or one that changed after it was listed."""
    path = folder / FEATURES
    if not path.is_file():
        return None
    store = FeatureStore(path)
    try:
        videos = store.videos
        made_from = store.attributes(videos[0]).source if videos else ""
    finally:
        store.close()
    return None if made_from.startswith(_ORIGIN) and _has_changed(folder) else made_from


def _is_ours(run: Run, hub: Hub, made_from: str) -> bool:
    """Whether the store was converted from what the parameters ask for."""
    words = made_from.split(" ")
    asked = len(words) == 4 and words[1] == hub.repository and hub.revision in (None, words[2])
    return asked and words[3] == _recipe(run, hub)


def _has_changed(folder: Path) -> bool:
    """Whether a manifest lists another checksum for the store than it has."""
    for manifest in folder.glob("manifest-*.json"):
        try:
            if read_json(manifest)["files"][FEATURES]["sha256"] != sha256(folder / FEATURES):
                return True
        except (RdfaError, KeyError, TypeError):
            return True
    return False


def _recipe(run: Run, hub: Hub) -> str:
    """Digest of what, besides archive and annotations, decides a converted store's bytes.

    Not of the annotations: corrected ones mostly fit the store, `open_folder` refuses those that do not, and the parts
    to make another one of are gone.
    """
    features = run.features.model_dump(mode="json", exclude={"keep_every"})
    text = json.dumps([_CONVERSION, hub.archives, hub.prefix, hub.suffix, hub.axes, features], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hub(run: Run) -> Hub:
    assert run.source.hub is not None, "the schema asks for it"
    return run.source.hub


def _free(folder: Path) -> int:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def as_bytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
