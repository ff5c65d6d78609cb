"""The counted cost of every kind of block against formulas derived by hand."""

import pytest

from rdfa.models.cost import activation_bytes, costs, parts
from rdfa.params import compose
from rdfa.schema import Run
from tests.conftest import BASELINES, ROOT
from tests.models.test_cost import HALVES, POINTS, C, N, T, products, readout, scan_operations

RANK, INNER, WINDOW = C // 16, 2 * C, 19


def thumos(model: str, variant: str) -> Run:
    return compose(dataset="thumos14", model=model, variant=variant, scale="full", folder=ROOT / "params").run


def vim(steps: int) -> int:
    """Projections in and out, and per direction maps, step and a convolution."""
    direction = steps * INNER * (2 * RANK + 2 * N) + 4 * INNER * steps
    return steps * 3 * INNER * C + 2 * direction


def attention(steps: int) -> int:
    """Depthwise and full projections, each query with twice the window less two keys, two linear layers."""
    run = WINDOW - 1
    padded = -(-steps // run) * run
    return steps * (3 * 3 * C + 4 * C * C + 8 * C * C) + 2 * padded * 2 * run * C


def convolution(steps: int) -> int:
    return steps * 2 * 3 * C * INNER


@pytest.mark.parametrize(
    ("model", "variant", "per_block"),
    [
        ("actionmamba", "dbm", lambda steps: products(steps, C, (4,))),
        ("actionmamba", "vim", vim),
        ("actionformer", "paper", attention),
        ("convolution", "plain", convolution),
        ("temporalmaxer", "paper", lambda steps: 0),
    ],
)
def test_every_block_costs_what_the_formulas_say(model: str, variant: str, per_block) -> None:  # type: ignore[no-untyped-def]
    found = costs(thumos(model, variant))
    stems = [name for name in parts(found) if name in ("backbone.stem.0", "backbone.stem.1")]
    assert len(stems) == (0 if model == "temporalmaxer" else 2)
    for name in stems:
        assert found[name].products == per_block(T)
    for level in range(5):
        assert found[f"backbone.branch.{level}"].products == per_block(T // 2**level)
    rest = T * 3 * (3200 * C + C * C) + POINTS * 3 * (4 * C * C + 22 * C)
    blocks = sum(per_block(T // 2**level) for level in (0, 0, 0, 1, 2, 3, 4)) if stems else 0
    assert found[""].products == rest + blocks


@pytest.mark.parametrize(
    ("variant", "width"),
    [("dbm", C), ("vim", INNER)],
)
def test_the_scans_of_both_mamba_blocks_are_counted(variant: str, width: int) -> None:
    found = costs(thumos("actionmamba", variant))[""]
    steps = 2 * T + HALVES
    assert found.scans == scan_operations(steps, width, 1) // 2
    assert found.readout == readout(steps, width, 1)


@pytest.mark.parametrize(("model", "variant"), BASELINES)
def test_the_parts_of_every_model_add_up_and_its_activations_are_counted(model: str, variant: str) -> None:
    run = thumos(model, variant)
    found = costs(run)
    top = [cost for name, cost in parts(found).items() if ".dual." not in name]
    for field in ("parameters", "products", "scans", "readout"):
        assert sum(getattr(cost, field) for cost in top) == getattr(found[""], field)
    embedding = 4 * T * C * 2  # two layers' outputs, at least
    assert embedding < activation_bytes(run, 1, T) < 2 * 2**30


def test_the_cost_of_windowed_attention_is_linear_in_the_length() -> None:
    run = thumos("actionformer", "paper")
    once, twice = (costs(run, steps=18 * 32 * factor)["backbone.stem.0"] for factor in (1, 2))
    assert twice.products == 2 * once.products
