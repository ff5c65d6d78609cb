"""Published numbers that stand apart under a table of other data."""

from pathlib import Path

import pytest

from rdfa.errors import RdfaError
from rdfa.stages.table import table_stage
from tests.reporting.proposal_scene import TITLE, write_refinements


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_refinements(tmp_path, "refinements")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_printed_numbers_stand_apart_under_the_table_for_readers_and_in_no_row(root: Path) -> None:
    csv, markdown, latex, *_ = (path.read_text() for path in table_stage("refinements", root, tracked=False))
    own, printed = markdown.split(f"Below: {TITLE}.")
    assert "54.19" not in own and "54.19" not in csv
    assert "| iterations | mAP@0.5 | average | G MACs |" in printed
    assert "| 10 | 54.19 | 35.98 | 115.50 |" in printed.split("Runs (folders")[0]
    own, printed = latex.rsplit(r"\begin{tabular}", 1)
    assert "54.19" not in own
    assert r"10 & 54.19 & 35.98 & 115.50 \\" in printed
    assert f"Below: {TITLE}." in printed.split(r"\caption")[1]


def test_a_table_that_asks_for_numbers_that_nobody_printed_is_told_where_to_mend_it(root: Path) -> None:
    path = root / "params/tables/refinements.yaml"
    path.write_text(
        path.read_text().replace("  dataset: activitynet_tsn\n  model: bmn", "  dataset: hapt\n  model: bmn")
    )
    with pytest.raises(RdfaError, match="has nothing for bmn rcl on hapt: correct `printed`"):
        table_stage("refinements", root, tracked=False)
