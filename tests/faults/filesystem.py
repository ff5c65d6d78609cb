"""Disks and file systems: full, read-only, slow, vanishing, shared by two users, oddly named, moved."""

from tests.faults.campaign import Kind
from tests.faults.filesystem_full import disk_full, disk_full_logging, no_growth

KINDS = (
    Kind("disk full at each write of each stage", disk_full, limit=180),
    Kind("files that may not grow", no_growth, limit=180),
    Kind("disk full while MLflow logs", disk_full_logging, limit=180),
)
