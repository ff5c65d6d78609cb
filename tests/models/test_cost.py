"""The counted cost of the detector against formulas derived by hand."""

import pytest

from rdfa.models.cost import activation_bytes, costs, parts
from rdfa.models.detector import build, count_parameters
from rdfa.params import compose
from rdfa.schema import Run
from tests.conftest import ROOT

T, C, CHANNEL, N = 2304, 512, 576, 16
HALVES = sum(T // 2**level for level in range(5))
POINTS = sum(T // 2**level for level in range(6))


def thumos(*overrides: str, variant: str = "released") -> Run:
    return compose(
        dataset="thumos14", model="rdfa", variant=variant, scale="full", overrides=overrides, folder=ROOT / "params"
    ).run


def products(steps: int, width: int, kernels: tuple[int, ...]) -> int:
    """MACs of an FA-Bi-S6 block of the released form: projections, and depthwise convolutions."""
    rank, count = -(-width // 16), len(kernels)
    inward, outward = width * 4 * width, 2 * count * width * width
    per_map = width * (rank + 2 * N) + rank * width
    convolutions = sum(2 * width * k * steps for k in kernels)
    return steps * (inward + outward + 2 * count * per_map) + convolutions


def scan_operations(steps: int, width: int, count: int) -> int:
    return 2 * count * (9 * steps * width * N + 2 * steps * width)


def readout(steps: int, width: int, count: int) -> int:
    return 2 * count * steps * width * N


@pytest.fixture(scope="module")
def released() -> Run:
    return thumos()


def test_the_released_thumos_detector_costs_what_the_formulas_say(released: Run) -> None:
    found = costs(released)
    stem, kernels = "backbone.stem.0.dual", (2, 3, 4)
    assert found["backbone.embedding"].products == T * 3 * (3200 * C + C * C)
    assert found[f"{stem}.temporal"].products == 4 * products(T, C, kernels)
    assert found[f"{stem}.channel"].products == 4 * products(C, CHANNEL, kernels)
    assert found[f"{stem}.temporal"].scans == 4 * scan_operations(T, C, 3) // 2
    assert found[f"{stem}.channel"].scans == 4 * scan_operations(C, CHANNEL, 3) // 2
    assert found["backbone.stem.0"].readout == 4 * (readout(T, C, 3) + readout(C, CHANNEL, 3))
    for level in range(5):
        branch = found[f"backbone.branch.{level}"]
        assert branch.products == products(T // 2**level, C, (4,))
        assert branch.scans == scan_operations(T // 2**level, C, 1) // 2
        assert branch.readout == readout(T // 2**level, C, 1)
    assert found["neck"].macs == 0
    assert found["class_head"].products == POINTS * 3 * (2 * C * C + 20 * C)
    assert found["offset_head"].products == POINTS * 3 * (2 * C * C + 2 * C)


def test_the_released_thumos_detector_has_the_official_parameters_and_products(released: Run) -> None:
    """Parameters and GFLOP counted on the official code, whose counter took the scans' read-out for products."""
    found = costs(released)
    expected = {
        "backbone.embedding": 5_703_680,
        "backbone.stem.0.dual.temporal": 2_685_952,
        "backbone.stem.0.dual.channel": 3_394_944,
        "backbone.stem.0": 6_082_432,
        "backbone.branch": 8_176_640,
        "neck": 6_144,
        "class_head": 1_605_652,
        "": 23_152_540,
    }
    assert {name: found[name].parameters for name in expected} == expected
    assert (
        found["offset_head"].parameters
        == 1_577_992
        == count_parameters(build(released))
        - sum(found[name].parameters for name in ("backbone", "neck", "class_head"))
    )

    def gflop(name: str) -> float:
        return 2 * (found[name].products + found[name].readout) / 1e9

    branch = sum(gflop(f"backbone.branch.{level}") for level in range(5))
    assert gflop("backbone.embedding") == pytest.approx(26.3, abs=0.05)
    assert gflop("backbone.stem.0") == pytest.approx(70.2, abs=0.05)
    assert branch == pytest.approx(15.1, abs=0.05)
    assert gflop("class_head") == pytest.approx(14.5, abs=0.05)
    assert gflop("offset_head") == pytest.approx(14.3, abs=0.05)
    assert gflop("") / 2 == pytest.approx(70.2, abs=0.05)
    assert found[""].products / 1e9 == pytest.approx(69.55, abs=0.005)
    assert 2 * found["backbone.stem.0"].scans / 1e9 == pytest.approx(5.2, abs=0.05)
    assert 2 * (found[""].scans - found["backbone.stem.0"].scans) / 1e9 == pytest.approx(0.7, abs=0.05)


def test_the_parts_add_up_to_the_whole(released: Run) -> None:
    found = costs(released)
    top = [cost for name, cost in parts(found).items() if ".dual." not in name]
    for field in ("parameters", "products", "scans", "readout"):
        assert sum(getattr(cost, field) for cost in top) == getattr(found[""], field)


def test_the_cost_is_linear_in_the_recurrence_and_its_parameters_are_constant() -> None:
    found = [costs(thumos(f"model.stem.recurrence={r}"))[""] for r in range(1, 7)]
    assert len({cost.parameters for cost in found}) == 1
    iteration = products(T, C, (2, 3, 4)) + products(C, CHANNEL, (2, 3, 4))
    assert [cost.products - found[0].products for cost in found] == [r * iteration for r in range(6)]
    scan = (scan_operations(T, C, 3) + scan_operations(C, CHANNEL, 3)) // 2
    assert [cost.scans - found[0].scans for cost in found] == [r * scan for r in range(6)]


def test_the_cost_grows_with_batch_and_steps_where_nothing_is_pooled_to_a_fixed_length() -> None:
    run = thumos(variant="paper")
    once, twice, longer = (costs(run, batch, steps)[""] for batch, steps in ((1, 2304), (2, 2304), (1, 4608)))
    assert (twice.products, twice.scans) == (2 * once.products, 2 * once.scans)
    assert longer.scans > 1.9 * once.scans


def test_activation_memory_grows_with_the_batch(released: Run) -> None:
    one, two = activation_bytes(released, 1), activation_bytes(released, 2)
    # Whatever else is kept, the inputs of the 24 + 10 scans are: u, delta and z of T or fewer steps.
    assert one > 4 * (24 * (T * C + C * CHANNEL) + 10 * C * HALVES / 5)
    assert one < two <= 2.05 * one  # two videos need layout copies that one does not
