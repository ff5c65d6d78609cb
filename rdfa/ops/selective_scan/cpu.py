"""The compiled kernel: loading the library and handing it tensors.

The library takes one plain struct (kernel/problem.h); nothing here depends on torch's version.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from rdfa.ops.selective_scan.layout import Gradients, boundary_states, like

WORK_PER_THREAD = 2**18
"""State updates below which another thread costs more than it saves (about 0.1 ms)."""

HUGE_PAGE, MADV_HUGEPAGE = 2**21, 14
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
if _libc is not None:
    _libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _ScanTensor(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("data", "stride_batch", "stride_row", "stride_time", "bfloat16")]


class _ScanProblem(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("batch", "channels", "steps", "states")],
        *[(name, ctypes.c_int32) for name in ("softplus", "reverse", "threads", "instruction_set")],
        *[(name, ctypes.c_void_p) for name in ("A", "D", "delta_bias", "lengths")],
        *[(name, _ScanTensor) for name in ("u", "delta", "B", "C", "z")],
        ("boundary_states", ctypes.c_void_p),
        *[(name, _ScanTensor) for name in ("out", "grad_out", "grad_u", "grad_delta", "grad_B", "grad_C", "grad_z")],
        *[(name, ctypes.c_void_p) for name in ("grad_A", "grad_D", "grad_delta_bias")],
    ]


_instruction_set = 0  # counts from 1; 0: the fastest that this processor has


@cache
def load() -> ctypes.CDLL | str:
    """The library, or the reason why there is none (one line)."""
    from rdfa.ops.selective_scan.build import library_path

    path: Path = library_path()
    if not path.exists():
        return "the compiled kernel is not built"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"the compiled kernel cannot be loaded ({error})"
    library.rdfa_scan_problem_size.restype = ctypes.c_int64
    library.rdfa_scan_instruction_set_name.restype = ctypes.c_char_p
    for function in (library.rdfa_scan_forward, library.rdfa_scan_backward):
        function.argtypes = [ctypes.POINTER(_ScanProblem)]
    if library.rdfa_scan_problem_size() != ctypes.sizeof(_ScanProblem):
        return f"{path.name} is not the library of this version"
    return library


def library() -> ctypes.CDLL:
    """The library.

    Raises:
        RuntimeError: it is not built, or cannot be loaded.
    """
    loaded = load()
    if isinstance(loaded, str):
        raise RuntimeError(loaded)
    return loaded


def instruction_sets() -> list[str]:
    """Names of the instruction sets that this processor runs, slowest first."""
    count = library().rdfa_scan_instruction_sets()
    return [library().rdfa_scan_instruction_set_name(index).decode() for index in range(count)]


@contextmanager
def use_instruction_set(name: str) -> Iterator[None]:
    """Run the kernel with a named instruction set instead of the fastest (for tests and measurements)."""
    global _instruction_set
    before, _instruction_set = _instruction_set, instruction_sets().index(name) + 1
    try:
        yield
    finally:
        _instruction_set = before


def instruction_set() -> int:
    """The instruction set to run: 0 for the fastest, or which one `use_instruction_set` asks for, counted from 1."""
    return _instruction_set


def threads_for(work: int) -> int:
    """Threads that pay for a number of state updates, or of what costs as much."""
    return min(torch.get_num_threads(), 1 + work // WORK_PER_THREAD)


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """Output (B, D, T) in u's dtype and memory order, and the boundary states (empty unless kept)."""
    states = fresh(boundary_states(u, A.shape[1], keep_states))
    out = fresh(like(u, native(u.dtype)))
    problem, alive = _problem(u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, reverse)
    problem.out = _tensor(out)
    problem.boundary_states = states.data_ptr() if keep_states else None
    call(library().rdfa_scan_forward, problem)
    del alive
    return out.to(u.dtype), states


def backward(
    grad_out: Tensor,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> Gradients:
    """Gradients of u, delta, A, B, C, D, z, delta_bias, not all in their input's dtype (z's is empty without a z)."""
    channels = u.shape[1]
    per_channel = torch.empty((2, channels), dtype=torch.float32)
    grad_u, grad_delta = (fresh(like(x, native(x.dtype))) for x in (u, delta))
    grad_B, grad_C = (like(x, torch.float32) for x in (B, C))
    grad_z = torch.empty(0) if z is None else fresh(like(z, native(z.dtype)))
    grad_A = torch.empty(A.shape, dtype=torch.float32)
    grad_out = grad_out.to(native(grad_out.dtype))
    problem, alive = _problem(u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, reverse)
    problem.boundary_states = states.data_ptr()
    problem.grad_out = _tensor(grad_out)
    problem.grad_u, problem.grad_delta = _tensor(grad_u), _tensor(grad_delta)
    problem.grad_B, problem.grad_C = _tensor(grad_B), _tensor(grad_C)
    if z is not None:
        problem.grad_z = _tensor(grad_z)
    problem.grad_A = grad_A.data_ptr()
    problem.grad_D, problem.grad_delta_bias = per_channel[0].data_ptr(), per_channel[1].data_ptr()
    call(library().rdfa_scan_backward, problem)
    del alive
    return grad_u, grad_delta, grad_A, grad_B, grad_C, per_channel[0], grad_z, per_channel[1]


def _problem(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[_ScanProblem, list[Tensor]]:
    """The struct, and the tensors that must live for as long as it is used (copies where the dtype is foreign)."""
    batch, channels, steps = u.shape
    problem = _ScanProblem(batch=batch, channels=channels, steps=steps, states=A.shape[1])
    problem.softplus, problem.reverse = int(delta_softplus), int(reverse)
    work = batch * channels * steps * A.shape[1]
    problem.threads, problem.instruction_set = threads_for(work), instruction_set()
    alive = []
    for name, vector in (("A", A), ("D", D), ("delta_bias", delta_bias)):
        if vector is not None:
            alive.append(vector.float().contiguous())
            setattr(problem, name, alive[-1].data_ptr())
    if lengths is not None:
        alive.append(lengths.to(torch.int64).contiguous())
        problem.lengths = alive[-1].data_ptr()
    for name, tensor in (("u", u), ("delta", delta), ("B", B), ("C", C), ("z", z)):
        if tensor is not None:
            alive.append(tensor.float() if name in ("B", "C") else tensor.to(native(tensor.dtype)))
            setattr(problem, name, _tensor(alive[-1]))
    return problem, alive


def _tensor(x: Tensor) -> _ScanTensor:
    return _ScanTensor(x.data_ptr(), *x.stride(), x.dtype == torch.bfloat16)


def fresh(x: Tensor) -> Tensor:
    """Ask Linux for huge pages under a large new tensor: a fault for each small one takes up to 40% of a scan."""
    if _libc is not None and x.nbytes >= 2 * HUGE_PAGE:
        first, last = -(-x.data_ptr() // HUGE_PAGE), (x.data_ptr() + x.nbytes) // HUGE_PAGE
        _libc.madvise(first * HUGE_PAGE, (last - first) * HUGE_PAGE, MADV_HUGEPAGE)
    return x


def native(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a kernel reads and writes a tensor of (B, D, T): bfloat16 stays, others become float32."""
    return dtype if dtype == torch.bfloat16 else torch.float32


def call(function: Callable[..., int], problem: ctypes.Structure) -> None:
    """Call one of the library's functions.

    Raises:
        MemoryError: there is no memory for its scratch space.
    """
    if function(ctypes.byref(problem)) != 0:
        raise MemoryError("the compiled kernel found no memory for its scratch space")
