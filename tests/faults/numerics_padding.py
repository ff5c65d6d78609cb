"""A padded video's outputs on its valid part, for every model and variant of params/models.

What docs/fidelity.md says is what is checked: with `model.padding: masked` they do not depend on the padding, with
`leaky`, which is what the released code does, they do; and batches are padded so that neither changes a result.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from rdfa.data.windows import Grid, Window, collate
from rdfa.models.detector import build
from rdfa.params import PARAMS, compose, read_yaml
from rdfa.schema import ProposalModel, Run
from tests.conftest import ROOT, TINY
from tests.faults.campaign import SURVIVED, WRONG, Outcome, Scene
from tests.proposals.conftest import OF_DETECTOR, SIZES

SAME, OTHER = 1e-9, 1e-6
"""In float64, relative to the largest output: rounding in another order, and a difference that is none of rounding."""
LEDGER = "docs/fidelity.md"
MASKED = "model.padding=masked"
SMALL = {"actionformer": ("model.block.window=5",)}


def variants() -> list[tuple[str, str]]:
    """Every model with each of its variants."""
    names = sorted(path.stem for path in (ROOT / PARAMS / "models").glob("*.yaml"))
    return [(name, each) for name in names for each in read_yaml(ROOT / PARAMS / "models" / f"{name}.yaml")["variants"]]


def _run(model: str, variant: str, *overrides: str) -> Run:
    """A small run; what has no tiny settings of its own is a detector on a map of proposals."""
    if (model, variant) in OF_DETECTOR:
        dataset, settings = "thumos14_tsn", (*SIZES, *OF_DETECTOR[model, variant])
    else:
        width = ("model.stem.channel_width=16",) if variant == "released" else ()
        tiny = tuple(each for each in TINY if model == "rdfa" or not each.startswith("model.block."))
        dataset, settings = "thumos14", (*tiny, *width, *SMALL.get(model, ()))
    return compose(dataset=dataset, model=model, variant=variant, scale="sample", overrides=(*settings, *overrides),
                   folder=ROOT / PARAMS).run  # fmt: skip


def _shaken(run: Run, random: Random) -> nn.Module:
    """A detector in float64 whose every parameter matters, unlike at initialisation."""
    model = build(run).double().eval()
    make = torch.Generator().manual_seed(random.getrandbits(31))
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=make, dtype=torch.float64))
    return model


def padded_detectors(scene: Scene) -> Iterator[Outcome]:
    """The same video with two lengths of padding."""
    torch.set_num_threads(1)
    ledger = (ROOT / LEDGER).read_text(encoding="utf-8")
    for model, variant in variants():
        run = _run(model, variant)
        if isinstance(run.model, ProposalModel):
            continue
        for padding in dict.fromkeys((run.model.padding, "masked")):
            switched = _run(model, variant, f"model.padding={padding}")
            for _ in range(scene.count(1, 8)):
                yield _of_detector(switched, padding, ledger, scene.random)


def _of_detector(run: Run, padding: str, ledger: str, random: Random) -> Outcome:
    coarsest, steps = run.model.coarsest, random.randint(5, 60)
    least = -(-steps // coarsest) * coarsest
    short, long = least + coarsest * random.randint(0, 2), least + coarsest * random.randint(3, 20)
    seed = random.getrandbits(31)
    features = torch.randn(1, run.features.dimension, steps, generator=torch.Generator().manual_seed(seed)).double()
    detector, tight = _shaken(run, Random(seed)), _shaken(_run(run.model_name, run.variant, MASKED), Random(seed))
    # Of leaks the ledger says that there are some; whether their size depends on the length, only some code decides.
    pair = (detector, long), ((detector, short) if padding == "masked" else (tight, long))
    levels = [_valid(one, features, length) for one, length in pair]
    off = max(_difference(one, other) for one, other in zip(*levels, strict=True))
    name = f"{run.model_name} {run.variant}, padding {padding}"
    what = f"{name}: {steps} steps padded to {short} and {long}, off by {off:.2g}"
    if padding == "masked" and not off < SAME:
        return Outcome(WRONG, what)
    if padding == "leaky" and (not off > OTHER or "leaks into padded steps" not in ledger):
        return Outcome(WRONG, f"{what}, and {LEDGER} says that padding leaks")
    return Outcome(SURVIVED)


def _valid(detector: nn.Module, features: Tensor, length: int) -> list[Tensor]:
    """What a detector says of the valid steps, a tensor for each level and head."""
    steps = features.shape[2]
    padded = nn.functional.pad(features, (0, length - steps))
    with torch.inference_mode():
        found: Any = detector(padded, torch.arange(length)[None] < steps)
    pairs = [*zip(found.logits, found.masks, strict=True), *zip(found.offsets, found.masks, strict=True)]
    return [values[0][mask[0]] for values, mask in pairs]


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest difference relative to the largest number; infinite for another shape or what is not finite."""
    if one.shape != other.shape or not bool(one.isfinite().all() and other.isfinite().all()):
        return float("inf")
    return float((one - other).abs().max() / one.abs().max()) if one.numel() else 0.0


def padded_proposals(scene: Scene) -> Iterator[Outcome]:
    """A short video in a window: its maps are those of a window of its own length, whatever stands in the padding."""
    torch.set_num_threads(1)
    for model, variant in OF_DETECTOR:
        for _ in range(scene.count(1, 6)):
            yield _of_proposals(model, variant, scene.random)


def _of_proposals(model: str, variant: str, random: Random) -> Outcome:
    steps = random.randint(17, 31)
    run, own = (_run(model, variant, f"model.steps={each}", f"windows.max_length={each}") for each in (32, steps))
    seed = random.getrandbits(31)
    wide, narrow = (_shaken(each, Random(seed)) for each in (run, own))
    features = torch.randn(1, 24, steps, generator=torch.Generator().manual_seed(seed)).double()
    found: list[Any] = []
    with torch.inference_mode():
        for value in (0.0, 100.0):
            padded = nn.functional.pad(features, (0, 32 - steps), value=value)
            found.append(wide(padded, torch.arange(32)[None] < steps))
        alone: Any = narrow(features, torch.ones(1, steps, dtype=torch.bool))
    longest = alone.maps[0].shape[2]
    zero, full = ([each.start, each.end, *(part[:, :, :longest, :steps] * each.valid[:, None, :longest, :steps]
                   for part in each.maps)] for each in found)  # fmt: skip
    expected = [alone.start, alone.end, *(part * alone.valid[:, None] for part in alone.maps)]
    cut = [zero[0][:, :steps], zero[1][:, :steps], *zero[2:]]
    other = [full[0][:, :steps], full[1][:, :steps], *full[2:]]
    off = max(_difference(one, two) for parts in (cut, other) for one, two in zip(expected, parts, strict=True))
    if not off < SAME:
        return Outcome(
            WRONG, f"{model} {variant}: {steps} steps in a window of 32 and in one of their own differ by {off:.2g}"
        )
    return Outcome(SURVIVED)


def padded_batches(scene: Scene) -> Iterator[Outcome]:
    """A video of at most `windows.max_length` says the same alone and in a batch with longer ones, leaky or not."""
    torch.set_num_threads(1)
    for model, variant in variants():
        run = _run(model, variant)
        for _ in range(scene.count(1, 4)):
            yield _of_batches(run, scene.random)


def _of_batches(run: Run, random: Random) -> Outcome:
    most = run.windows.max_length
    steps, others = random.randint(5, most - 8), [random.randint(5, most) for _ in range(random.randint(1, 3))]
    make = torch.Generator().manual_seed(random.getrandbits(31))
    windows = [_window(torch.randn(run.features.dimension, each, generator=make)) for each in (steps, *others)]
    detector = _shaken(run, random)
    answers: list[list[Tensor]] = []
    for batch in (collate(windows[:1], run), collate(windows, run)):
        with torch.inference_mode():
            found: Any = detector(batch.features.double(), batch.mask)
        answers.append(_first(found, steps))
    off = max(_difference(one, other) for one, other in zip(*answers, strict=True))
    if not off < SAME:
        return Outcome(
            WRONG, f"{run.model_name} {run.variant}: {steps} steps alone and beside {others} differ by {off:.2g}"
        )
    return Outcome(SURVIVED)


def _first(found: Any, steps: int) -> list[Tensor]:
    """What counts of a batch's first video."""
    if hasattr(found, "maps"):
        return [found.start[0, :steps], found.end[0, :steps], *(part[0][:, found.valid[0]] for part in found.maps)]
    pairs = [*zip(found.logits, found.masks, strict=True), *zip(found.offsets, found.masks, strict=True)]
    return [values[0][mask[0]] for values, mask in pairs]


def _window(features: Tensor) -> Window:
    nothing = torch.zeros(0, 2)
    grid = Grid(stride=1.0, window=1.0, fps=1.0)
    return Window(video="v", features=features, segments=nothing, labels=nothing[:, 0].long(), grid=grid, duration=1.0)
