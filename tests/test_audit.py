"""The audit fails for what is known and not accepted, and ends well only where nobody can be asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.audit import ACCEPTED, main, pinned, reasons
from tests.conftest import ROOT
from tests.workflow.ports import free_port

RECORD = {
    "aliases": ["CVE-2019-10906"],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "jinja2"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.10.1"}]}],
        }
    ],
}
"""In the form of OSV's answer for GHSA-462w-v97r-4m45."""


@contextmanager
def service(answers: dict[str, Any], status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """A server with an answer for each path, and what it was asked; packages it does not know have no vulnerability."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            asked.extend(queries)
            by_name = [answers.get(query["package"]["name"] + query.get("page_token", ""), {}) for query in queries]
            self._send(answers.get(self.path, {"results": by_name}))

        def do_GET(self) -> None:
            self._send(answers[self.path])

        def _send(self, answer: Any) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def audited(address: str, folder: Path, accepted: str = "{}") -> int:
    (folder / "requirements.lock").write_text("# exact versions\nJinja2==2.9\nnumpy==2.4.6\n")
    (folder / "accepted.yaml").write_text(accepted)
    files = ["--lock", str(folder / "requirements.lock"), "--accepted", str(folder / "accepted.yaml")]
    return main(["--service", address, *files])


def test_what_is_known_fails_unless_a_reason_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"jinja2": {"vulns": [{"id": "GHSA-462w"}]}, "/v1/vulns/GHSA-462w": RECORD}
    with service(answers) as (address, asked):
        assert audited(address, tmp_path) == 1
        assert asked[0] == {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "2.9"}
        said = capsys.readouterr().out
        assert "jinja2 2.9: GHSA-462w = CVE-2019-10906, mended in 2.10.1" in said
        assert "2 packages asked for, 1 vulnerabilities known, 1 not accepted" in said
        assert (
            audited(address, tmp_path, "CVE-2019-10906: no template comes from outside\nCVE-1: it is gone by now") == 0
        )
        said = capsys.readouterr().out
        assert "accepted: no template comes from outside" in said
        assert "CVE-1 is accepted, but no longer known" in said
        with pytest.raises(AssertionError, match="needs a sentence"):
            audited(address, tmp_path, "CVE-2019-10906: yes")


def test_later_pages_are_asked_for_and_withdrawn_records_do_not_count(tmp_path: Path) -> None:
    gone = {"vulns": [{"id": "GONE"}], "next_page_token": "-2"}
    with service({"numpy": gone, "/v1/vulns/GONE": RECORD | {"withdrawn": "2020-01-01T00:00:00Z"}}) as (address, asked):
        assert audited(address, tmp_path) == 0
        assert asked[-1]["page_token"] == "-2"
    later = {"numpy": gone, "numpy-2": {"vulns": [{"id": "HERE"}]}, "/v1/vulns/HERE": RECORD}
    with service({**later, "/v1/vulns/GONE": {"withdrawn": "2020-01-01T00:00:00Z"}}) as (address, _):
        assert audited(address, tmp_path) == 1


def test_only_a_service_that_cannot_be_reached_lets_the_audit_end_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audited(f"http://127.0.0.1:{free_port()}", tmp_path) == 0
    assert "audit: NOT DONE: http://127.0.0.1:" in capsys.readouterr().out
    with service({}, status=503) as (address, _):
        assert audited(address, tmp_path) == 0
    assert "NOT DONE" in capsys.readouterr().out
    for answer in ("<html>", [], {}, {"results": [{}]}):
        with service({"/v1/querybatch": answer}) as (address, _):
            assert audited(address, tmp_path) == 1
            assert "audit: FAILED" in capsys.readouterr().out
    with service({}, status=400) as (address, _):
        assert audited(address, tmp_path) == 1


def test_the_project_s_own_lock_and_list_can_be_read() -> None:
    assert len(pinned(ROOT / "requirements.lock")) > 100
    reasons(ACCEPTED)
