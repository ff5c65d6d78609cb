"""Hostile input: archives, pickles, YAML, names, addresses; and secrets that nothing may repeat (SECURITY.md)."""

from tests.faults.campaign import Kind
from tests.faults.hostile_files import archives, downloads, headers, pickles
from tests.faults.hostile_stores import addresses_of_files
from tests.faults.hostile_text import addresses, environment, names, pages, yaml_texts
from tests.faults.hostile_whole import injected, secrets

KINDS = (
    Kind("archives that lead out, link or bomb", archives),
    Kind("hostile archives from the Hub", downloads),
    Kind("pickles where a file is read", pickles),
    Kind("headers of safetensors and HDF5", headers),
    Kind("YAML tags, cycles and bombs", yaml_texts),
    Kind("interpolations that reach the environment", environment),
    Kind("names of videos, classes and files", names),
    Kind("injection into tables and pages", pages),
    Kind("addresses of downloads", addresses, limit=300),
    Kind("addresses of files in an MLflow store", addresses_of_files, limit=120),
    Kind("secrets in the environment of a run", secrets, limit=600),
    Kind("shell commands in names, by Snakemake", injected, limit=300),
)
