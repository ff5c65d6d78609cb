"""Disks and file systems: full, read-only, slow, vanishing, shared by two users, oddly named, moved."""

from tests.faults import filesystem_disk
from tests.faults.campaign import Kind
from tests.faults.filesystem_full import disk_full, disk_full_logging, no_growth
from tests.faults.filesystem_places import read_only_folders, slow, vanishing
from tests.faults.filesystem_users import moved, names, two_users

_LIMIT = 240.0
KINDS = tuple(
    Kind(name, inject, limit=_LIMIT)
    for name, inject in (
        ("disk full at each write of each stage", disk_full),
        ("files that may not grow", no_growth),
        ("disk full while MLflow logs", disk_full_logging),
        ("read-only folders", read_only_folders),
        ("a slow disk", slow),
        ("a slow disk, below HDF5 and SQLite", filesystem_disk.slow),
        ("a dying disk: reads and writes fail", filesystem_disk.dying),
        ("a folder that vanishes", vanishing),
        ("two users of one folder", two_users),
        ("paths with spaces and other letters", names),
        ("a moved checkout", moved),
    )
)
