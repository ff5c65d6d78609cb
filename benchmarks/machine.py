"""What this machine can do, measured: the floors beside the benchmarks' figures, and the memory of a process."""

import ctypes
import datetime
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rdfa.ops.selective_scan.build import KERNEL, find_compiler, is_x86

LOOPS = """
#include "simd.h"
extern "C" int width() { return W; }
extern "C" float fma_loop(long count) {
    Vec x[16];
    for (int i = 0; i < 16; i++) x[i] = splat(1.0f + i);
    const Vec a = splat(0.999f), b = splat(0.001f);
    for (long k = 0; k < count; k += 16)
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) x[i] = x[i] * a + b;
    Vec sum{};
    for (int i = 0; i < 16; i++) sum += x[i];
    return sum[0];
}
extern "C" float exp_loop(long count) {
    Vec x[8], sum[8];
    for (int i = 0; i < 8; i++) x[i] = splat(-0.1f * i), sum[i] = Vec{};
    for (long k = 0; k < count; k += 8)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) sum[i] += exp2(x[i]), x[i] -= 1e-7f;
    for (int i = 1; i < 8; i++) sum[0] += sum[i];
    return sum[0][0];
}
"""


def describe_machine() -> str:
    """Processor, memory, versions, date, and how busy the machine already is."""
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    name = platform.processor() or platform.machine()
    if cpuinfo.exists():
        models = [x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        name = models[0] if models else name
    memory = f", {int(meminfo.read_text().split()[1]) / 2**20:.0f} GiB" if meminfo.exists() else ""
    vectors = torch.backends.cpu.get_cpu_capability()
    versions = f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    today = f"{datetime.date.today()}, load average {os.getloadavg()[0]:.1f} at the start"
    return f"{os.cpu_count()} processors {name} ({vectors}){memory}; {versions}; {today}"


def seconds(work: Callable[[], object], threads: int, repeats: int = 1) -> float:
    """Of one call: the process's CPU time with one thread, which other jobs disturb least, wall time with more."""
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    for _ in range(repeats):
        work()
    return (clock() - start) / repeats


def resident(peak: bool = False) -> float:
    """MiB of this process in memory now, or the most since `forget_peak`; NaN where Linux does not tell."""
    field = "VmHWM" if peak else "VmRSS"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(x.split()[1]) / 1024 for x in lines if x.startswith(field))
    except (OSError, StopIteration):
        return float("nan")


def forget_peak() -> None:
    """Give unused memory back and start the peak of `resident` anew."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return


def arithmetic_rates() -> tuple[float, float] | None:
    """Fused multiply-adds and exponentials per nanosecond on one thread, in the kernel's widest vectors."""
    compiler = find_compiler()
    if compiler is None or not is_x86():
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "floor.cpp"), Path(folder, "floor.so")
        source.write_text(LOOPS)
        options = ["-O3", "-std=c++17", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC", f"-I{KERNEL}"]
        if subprocess.run([*compiler, *options, "-w", str(source), "-o", str(library)], check=False).returncode:
            return None
        loops = ctypes.CDLL(str(library))
        rates = []
        for loop in (loops.fma_loop, loops.exp_loop):
            loop.argtypes, loop.restype = [ctypes.c_long], ctypes.c_float
            best = min(seconds(lambda loop=loop: loop(1 << 25), 1) for _ in range(7))
            rates.append(loops.width() * (1 << 25) / best * 1e-9)
    return rates[0], rates[1]


def copy_bandwidth(threads: int) -> float:
    """GB/s read + written by a copy of 256 MiB."""
    torch.set_num_threads(threads)
    source, target = torch.ones(1 << 26), torch.zeros(1 << 26)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source), threads) for _ in range(7)) * 1e-9


def product_rate(threads: int, dtype: torch.dtype) -> float:
    """Billion multiply-adds per second of a linear layer (4608 x 3072 to 512), as the stem's output projection."""
    torch.set_num_threads(threads)
    x, weight = (torch.randn(*size).to(dtype) for size in ((4608, 3072), (512, 3072)))
    work: Any = lambda: torch.nn.functional.linear(x, weight)  # noqa: E731
    work()
    return 4608 * 3072 * 512 / min(seconds(work, threads) for _ in range(5)) * 1e-9
