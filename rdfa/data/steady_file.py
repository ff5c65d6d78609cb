"""A file for HDF5 to write to, on a disk that may be full."""

import os
from typing import IO, Any


class SteadyFile:
    """A binary file whose writes never raise: the first failure is kept for `raise_failure`.

    HDF5 cannot close a file that it cannot write to (a full disk): it then tries again on every clean-up and
    brings the process down at its end. So it is told that all went well, and the writer asks here afterwards.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._failure: OSError | None = None

    def raise_failure(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self._failure is None:
                done += self._raw.write(view[done:])
        except OSError as error:
            self._failure = error
        return len(view)

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size)

    def readinto(self, buffer: Any) -> int:
        count: int = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def truncate(self, size: int) -> int:
        try:
            return self._raw.truncate(size)
        except OSError as error:
            self._failure = self._failure or error
            return size

    def flush(self) -> None:
        """Nothing is buffered."""
