"""Where a store's files may be written: their addresses stand in its database, which somebody else may have made."""

from pathlib import Path

from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from rdfa.errors import RdfaError


def local_place(address: str, below: str, own: Path | None) -> Path | None:
    """The place on this machine of something below an address; None where the address is elsewhere (S3, a server).

    Args:
        below: path of a file or folder from the address on.
        own: the folder that the place must be in, when `..` and links are followed; None: it may be anywhere, for the
            user named the store.

    Raises:
        RdfaError: it is not in there.
    """
    if not is_local_uri(address, is_tracking_or_registry_uri=False):
        return None
    place = (Path(local_file_uri_to_path(address)) / below).resolve()
    if own is not None and not place.is_relative_to(own.resolve()):
        raise RdfaError(
            f"{own.parent / 'mlflow.db'}: has files go to {address!r}, which is not in {own.name}/ beside it; it is "
            "damaged or somebody else's: move it away and run `rdfa import-runs`, or name it in MLFLOW_TRACKING_URI"
        )
    return place
