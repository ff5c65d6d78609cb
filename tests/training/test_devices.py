"""How a run computes may be chosen; what it learns must not depend on it, but for rounding."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rdfa.errors import RdfaError
from rdfa.identity import keys
from rdfa.ops.selective_scan.build import find_compiler
from rdfa.params import Composed
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.train import train_stage
from rdfa.training.checkpoint import load_weights
from rdfa.training.devices import choose_device, set_arithmetic

Tiny = Callable[..., Composed]
SMALL = (
    "source.sample.train_videos=4",
    "training.batch_size=4",
    "model.drop_path=0.5",
    "model.regression_ranges=[[0, 10000]]",
    "model.embedding_layers=1",
    "model.stem.recurrence=1",
    "model.stem.dual=temporal",
    "model.stem.temporal_kernels=[2]",
    "model.heads.layers=1",
    "windows.crop_ratio=null",
)


def final_weights(composed: Composed, root: Path) -> dict[str, torch.Tensor]:
    fetch_stage(composed.run, root, None)
    return load_weights(train_stage(composed, root, tracked=False) / "checkpoint.safetensors")


def check_same_but_for_rounding(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_detector_learns_the_same_with_the_same_paths_dropped(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    plain = tiny(overrides=SMALL)
    compiled = tiny(overrides=(*SMALL, "training.compile=true"))
    expected, found = (final_weights(run, tmp_path / name) for name, run in (("a", plain), ("b", compiled)))
    check_same_but_for_rounding(found, expected)
    # It did something: a compiled sum rounds differently somewhere.
    assert any(not torch.equal(found[name], expected[name]) for name in expected)


def test_compiling_without_a_compiler_says_what_is_missing(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    run = tiny(overrides=("training.compile=true", "runtime.device=cpu"))
    fetch_stage(run.run, tmp_path, None)
    with pytest.raises(RdfaError, match=r"training.compile needs a C\+\+ compiler"):
        train_stage(run, tmp_path, tracked=False)


def test_the_fused_optimizer_learns_the_same(tiny: Tiny, tmp_path: Path) -> None:
    fused, plain = (tiny(overrides=(*SMALL, f"training.fused_optimizer={value}")) for value in ("true", "false"))
    check_same_but_for_rounding(final_weights(fused, tmp_path / "b"), final_weights(plain, tmp_path / "a"))


@pytest.mark.parametrize("changed", ["compile=true", "fused_optimizer=false", "precision=tfloat32"])
def test_what_rounds_differently_is_another_run(tiny: Tiny, changed: str) -> None:
    assert keys(tiny(overrides=(f"training.{changed}",)).run).train != keys(tiny().run).train


def test_only_tfloat32_lets_products_of_float32_be_rounded(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rdfa.training.devices.use_fastest_exact_products", lambda: "as on a GPU, where it is not called"
    )
    run = tiny(overrides=("runtime.threads=2",)).run
    try:
        set_arithmetic(run, tfloat32=True)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
        set_arithmetic(run)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
        assert torch.get_num_threads() == 2
    finally:
        set_arithmetic(tiny().run)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_for_a_gpu_come_in_pinned_memory(tiny: Tiny) -> None:
    from rdfa.data.windows import Batch

    batch = Batch(windows=[], features=torch.zeros(1, 2, 3), mask=torch.ones(1, 3, dtype=torch.bool))
    (loaded,) = torch.utils.data.DataLoader([batch], batch_size=None, pin_memory=True)
    assert loaded.features.is_pinned()
    assert loaded.mask.is_pinned()


def test_a_run_for_a_gpu_is_refused_where_there_is_none(tiny: Tiny) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RdfaError, match=r"runtime\.device is 'cuda'"):
        choose_device(tiny(overrides=("runtime.device=cuda",)).run)
