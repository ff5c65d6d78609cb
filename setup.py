"""Builds the selective scan's CPU kernel while rdfa is installed; everything else is in pyproject.toml.

Without a C++ compiler the installation still succeeds: rdfa then uses its PyTorch form of the scan
and says so. The kernel can be built later with `python -m rdfa.ops.selective_scan.build`.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

PACKAGE = "rdfa.ops.selective_scan"


def scan_build() -> ModuleType:
    """The package's build.py by its path: importing the package would need torch, which may come later."""
    path = Path(__file__).parent.joinpath(*PACKAGE.split("."), "build.py")
    spec = importlib.util.spec_from_file_location("rdfa_scan_build", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be read")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildKernel(build_ext):
    """Compiles a plain C-ABI library; `optional` below turns a failure into a warning."""

    def build_extension(self, ext: Extension) -> None:
        build = scan_build()
        try:
            path = build.build(Path(self.get_ext_fullpath(ext.name)))
        except build.BuildError as error:
            raise CompileError(f"the selective scan's CPU kernel was not built: {error}") from error
        print(f"built {path}")

    def get_ext_filename(self, fullname: str) -> str:
        # No Python module: no ABI tag, but a hash of the sources. setuptools asks with and without the package.
        folder = PACKAGE.split(".") if fullname.startswith(f"{PACKAGE}.") else []
        return str(Path(*folder, scan_build().library_name()))


setup(ext_modules=[Extension(f"{PACKAGE}._scan", sources=[], optional=True)], cmdclass={"build_ext": BuildKernel})
