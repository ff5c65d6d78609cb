"""Accidental harm to a file's bytes, aimed at what a format is made of: headers, lengths, payload, checksums."""

import random
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

SECTOR = 512
"""Bytes that a disk loses together."""
_STRUCTURE = re.compile(rb"\x89HDF|OHDR|OCHK|FRHP|FHDB|FHIB|BTHD|BTLF|BTIN|FAHD|FADB|EAHD|EAIB|TREE|SNOD|HEAP|GCOL")
_TEXT = re.compile(rb'(?P<number>-?\d[\d.eE+-]*)|"(?P<string>[^"\n]*)"|(?P<word>\w+)|(?P<sign>[^\w\s"])')
_PACKED = re.compile(rb"PK\x03\x04|PK\x01\x02|PK\x05\x06|PK\x06\x06|PK\x06\x07|PK\x07\x08")

Classes = dict[str, list[tuple[int, int]]]
"""What a file is made of: name of a class of offsets → its stretches, from and to before."""


@dataclass(frozen=True)
class Harm:
    """One damage, applied to a file's bytes."""

    kind: str
    """flip (a bit), burst (random bytes), lost (zeros in a sector), cut (the file ends), hole (zeros from there on)."""
    offset: int
    argument: int
    """Bit, or seed of the burst."""
    where: str
    """Class of the offset."""

    def apply(self, data: bytes) -> bytes:
        harmed, at = bytearray(data), self.offset
        if self.kind == "flip":
            harmed[at] ^= 1 << self.argument
        elif self.kind == "burst":
            drawn = random.Random(self.argument)
            harmed[at : at + drawn.randint(1, 64)] = drawn.randbytes(min(drawn.randint(1, 64), len(harmed) - at))
        elif self.kind == "lost":
            at -= at % SECTOR
            harmed[at : at + SECTOR] = bytes(min(SECTOR, len(harmed) - at))
        elif self.kind == "cut":
            del harmed[at:]
        else:
            harmed[at:] = bytes(len(harmed) - at)
        return bytes(harmed)

    def __str__(self) -> str:
        return f"{self.kind} at byte {self.offset} ({self.where}; {self.argument})"


def drawn(rng: random.Random, data: bytes, classes: Classes, count: int) -> Iterator[Harm]:
    """`count` damages, each class of offsets as often as the others, that do change the bytes."""
    names = sorted(name for name, stretches in classes.items() if stretches)
    made = 0
    while made < count:
        where = names[made % len(names)]
        start, stop = rng.choice(classes[where])
        kind = rng.choices(("flip", "burst", "lost", "cut", "hole"), (12, 2, 1, 4, 1))[0]
        argument = rng.randrange(8) if kind == "flip" else rng.getrandbits(32)
        harm = Harm(kind, rng.randrange(start, stop), argument, where)
        if harm.apply(data) != data:
            made += 1
            yield harm


def hdf5(path: Path) -> Classes:
    """An HDF5 file: its structures by their signatures, and each chunk's (or array's) payload and checksum."""
    data = path.read_bytes()
    stretches: list[tuple[int, int, str]] = []
    with h5py.File(path) as file:
        arrays: list[h5py.Dataset] = []
        file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        for array in arrays:
            for offset, size in _stored(array):
                checked = 4 if array.fletcher32 else 0
                stretches.append((offset, offset + size - checked, "payload"))
                if checked:
                    stretches.append((offset + size - checked, offset + size, "checksum"))
    payload = [(start, stop) for start, stop, _ in stretches]
    for match in _STRUCTURE.finditer(data):
        if not any(start <= match.start() < stop for start, stop in payload):
            name = match.group().decode("latin1").strip("\x89")
            stretches.append((match.start(), len(data), name))
    stretches.sort()
    classes: Classes = {"header": [(0, 48)], "tail": [(max(0, len(data) - 64), len(data))]}
    for (start, stop, name), following in zip(stretches, [*stretches[1:], (len(data), 0, "")], strict=True):
        end = min(stop, following[0])
        classes.setdefault(name, []).append((start, min(end, start + 512) if name.isupper() else end))
        if name.isupper() and end > start + 512:
            classes.setdefault("between", []).append((start + 512, end))
    return {name: [each for each in found if each[0] < each[1]] for name, found in classes.items()}


def _stored(array: h5py.Dataset) -> list[tuple[int, int]]:
    if array.chunks is None:
        offset = array.id.get_offset()
        return [] if offset is None else [(offset, array.id.get_storage_size())]
    found = (array.id.get_chunk_info(index) for index in range(array.id.get_num_chunks()))
    return [(info.byte_offset, info.size) for info in found]


def text(path: Path) -> Classes:
    """JSON, CSV or YAML: numbers, strings, words, punctuation, and the end."""
    data = path.read_bytes()
    classes: Classes = {"tail": [(max(0, len(data) - 80), len(data))]}
    for match in _TEXT.finditer(data):
        if match.lastgroup and match.start(match.lastgroup) < match.end(match.lastgroup):
            classes.setdefault(match.lastgroup, []).append(match.span(match.lastgroup))
    return classes


def safetensors(path: Path) -> Classes:
    """The header's length, its names and numbers, and the tensors."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    classes: Classes = {"length": [(0, 8)], "payload": [(8 + length, len(data))], "tail": [(len(data) - 16, len(data))]}
    for match in _TEXT.finditer(data, 8, 8 + length):
        if match.lastgroup and match.start(match.lastgroup) < match.end(match.lastgroup):
            classes.setdefault(f"header's {match.lastgroup}s", []).append(match.span(match.lastgroup))
    return classes


def packed(path: Path) -> Classes:
    """A .zip or .pt, .tar.xz or .tar.gz: the first and last bytes, the structures of zip, and the rest."""
    data = path.read_bytes()
    classes: Classes = {
        "head": [(0, min(64, len(data)))],
        "tail": [(max(0, len(data) - 64), len(data))],
        "payload": [(0, len(data))],
    }
    for match in _PACKED.finditer(data):
        classes.setdefault(f"PK{data[match.start() + 2]}", []).append((match.start(), match.start() + 46))
    return {name: [(start, min(stop, len(data))) for start, stop in found] for name, found in classes.items()}


def numpy_array(path: Path) -> Classes:
    """A .npy file: magic and length, the header's text, the values."""
    data = path.read_bytes()
    length = 10 + struct.unpack("<H", data[8:10])[0]
    return {"magic": [(0, 10)], "header": [(10, length)], "payload": [(length, len(data))]}


Parts = Callable[[Path], Classes]
