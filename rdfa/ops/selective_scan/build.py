"""Compile the CPU kernel into a plain C-ABI library beside this file.

`python -m rdfa.ops.selective_scan.build` builds it now; `setup.py` calls `build` when rdfa is
installed, and `--check` says afterwards if it could not, since pip keeps that to itself. The
library's name carries a hash of everything that went into it, so that a stale one is never loaded.
This file uses the standard library only: it also runs where torch is not installed yet.
"""

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
KERNEL = PACKAGE / "kernel"
COMMAND = "python -m rdfa.ops.selective_scan.build"

# No -ffast-math (wrong results) and no -march=native (the library may move to another machine). Fused multiply-adds
# across the functions of simd.h are g++'s default, and not clang++'s.
FLAGS = ("-O3", "-std=c++17", "-ffp-contract=fast", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden")
X86_VARIANTS = {
    "base": (),
    "avx2": ("-mavx2", "-mfma"),
    "avx512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"),
}
OTHER_VARIANTS: dict[str, tuple[str, ...]] = {"base": ()}


class BuildError(Exception):
    """The kernel could not be compiled; the message says why and what to do."""


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def library_name() -> str:
    """File name of the library that belongs to the present sources, flags and processor family."""
    digest = hashlib.sha256(f"{FLAGS} {X86_VARIANTS} {platform.system()} {platform.machine()}".encode())
    for source in sorted(KERNEL.iterdir()):
        if source.suffix in (".h", ".cpp"):
            digest.update(f"{source.name}\0".encode() + source.read_bytes())
    return f"_scan_{digest.hexdigest()[:12]}.so"


def library_path() -> Path:
    """Where the library is, or would be once it is built."""
    return PACKAGE / library_name()


def find_compiler() -> list[str] | None:
    """The command of the C++ compiler: $CXX, which may have words before it (`ccache g++`), else the PATH's first.

    None where there is none, also where $CXX names one that is not there: another one would be a surprise.
    """
    asked = os.environ.get("CXX", "").strip()
    try:
        commands = [shlex.split(asked)] if asked else [["c++"], ["g++"], ["clang++"]]
    except ValueError:  # a quotation mark without its other half
        return None
    for name, *rest in commands:
        found = shutil.which(name)
        if found:
            return [found, *rest]
    return None


def without_compiler() -> str:
    """Why `find_compiler` finds none."""
    asked = os.environ.get("CXX", "").strip()
    return f"CXX names {asked!r}, which is not on the PATH" if asked else "there is no C++ compiler on the PATH"


def build(target: Path | None = None) -> Path:
    """Compile the kernel and put the library at `target` (by default `library_path()`), whole or not at all.

    Raises:
        BuildError: no compiler, one that does not start, its own error, or a folder that cannot be written.
    """
    target = library_path() if target is None else Path(target)
    compiler = find_compiler()
    if compiler is None:
        raise BuildError(f"{without_compiler()}; install g++ or clang++, or set CXX to another, and run: {COMMAND}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-scan-") as folder:
            library = _compile(compiler, Path(folder))
            library.replace(target)
    except OSError as error:
        raise BuildError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def _compile(compiler: list[str], folder: Path) -> Path:
    variants = X86_VARIANTS if is_x86() else OTHER_VARIANTS
    flags = [*FLAGS, *_openmp(compiler, folder)]
    objects = []
    for name, extra in variants.items():
        objects.append(str(folder / f"{name}.o"))
        _run(*compiler, *flags, *extra, f"-DSCAN_VARIANT={name}", "-c", str(KERNEL / "variant.cpp"), "-o", objects[-1])
    objects.append(str(folder / "dispatch.o"))
    family = ["-DSCAN_X86"] if is_x86() else []
    _run(*compiler, *flags, *family, "-c", str(KERNEL / "dispatch.cpp"), "-o", objects[-1])
    _run(*compiler, *flags, "-shared", *objects, "-o", str(folder / "library.so"))
    return folder / "library.so"


def _openmp(compiler: list[str], folder: Path) -> list[str]:
    """The OpenMP flag where the compiler and its runtime have it (Apple's clang does not): else one thread."""
    source = folder / "probe.cpp"
    source.write_text("#include <omp.h>\nint probe() { return omp_get_max_threads(); }\n")
    command = [*compiler, "-fopenmp", "-shared", "-fPIC", str(source), "-o", str(folder / "probe.so")]
    return ["-fopenmp"] if _started(*command).returncode == 0 else []


def _run(*command: str) -> None:
    result = _started(*command)
    if result.returncode != 0:
        raise BuildError(f"{' '.join(command)}\nfailed with:\n{result.stderr.strip()}")


def _started(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        reason = error.strerror or error
        raise BuildError(f"the compiler {command[0]} cannot be started ({reason}); set CXX to one that can") from error


def remove_stale() -> list[Path]:
    """Delete libraries of other sources beside this file; returns what was deleted."""
    stale = [path for path in PACKAGE.glob("_scan_*.so") if path.name != library_name()]
    for path in stale:
        path.unlink(missing_ok=True)
    return stale


def absence() -> str | None:
    """One line if the library is not built: the reason as far as it can be told now, and what to do."""
    if library_path().exists():
        return None
    command = f"{sys.executable} -m rdfa.ops.selective_scan.build"
    if find_compiler() is None:
        why = f"{without_compiler()}; install g++ or clang++ and run: {command}"
    else:
        why = f"its compilation failed; to see why: {command}"
    return f"the selective scan runs in its slower PyTorch form, for its CPU kernel is not built: {why}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the selective scan's CPU kernel.")
    parser.add_argument("--check", action="store_true", help="build nothing; say so if it is not built")
    if parser.parse_args().check:
        if reason := absence():
            print(reason)
        return 0
    print(f"compiler: {shlex.join(find_compiler() or ['none'])}")
    try:
        path = build()
    except BuildError as error:
        print(f"not built: {error}", file=sys.stderr)
        return 1
    for old in remove_stale():
        print(f"removed: {old}")
    print(f"built: {path} ({path.stat().st_size // 1024} KiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
