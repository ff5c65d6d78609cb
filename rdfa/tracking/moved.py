"""An SQLite store whose checkout was moved: MLflow keeps absolute addresses of the files that it holds."""

import sqlite3
from contextlib import closing
from pathlib import Path

FOLDER = "mlartifacts"
"""Of the files that are logged, beside the store."""
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow 3 with addresses of files."""


def follow(database: Path) -> None:
    """Let a store point to the files beside it, if it points to those of a folder where it no longer is.

    A checkout that was copied gets files of its own by this, too. Addresses elsewhere (S3) stay.

    Raises:
        sqlite3.Error: the database cannot be read or written.
    """
    now = (database.parent / FOLDER).as_uri()
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        known = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (old,) in known:
            if old and old != now and old.startswith("file://") and old.endswith(f"/{FOLDER}"):
                for table, column in _ADDRESSES:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? "  # noqa: S608 -- of above
                        f"OR substr({column}, 1, ?) = ?",
                        (now, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
