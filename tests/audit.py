"""python -m tests.audit: known vulnerabilities of what requirements.lock pins, asked of OSV (https://osv.dev).

The status is 1 when one is known that tests/accepted_vulnerabilities.yaml does not list with a reason, or when the
service answers what cannot be understood. Where it cannot be reached that is said, and the audit ends well:
tests/test_lock.py checks offline what can be checked so.
"""

import argparse
import http.client
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import yaml
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SERVICE = "https://api.osv.dev"
ACCEPTED = ROOT / "tests" / "accepted_vulnerabilities.yaml"
_AT_ONCE = 500
"""Packages in one question; the service takes 1000."""
_PATIENCE = 30.0
"""Seconds to wait for an answer."""


class Unreachable(Exception):  # noqa: N818 -- a fact about the network, no error
    """The service gives no answer; the message says why."""


class Unintelligible(Exception):  # noqa: N818
    """The service gives an answer that is none; the message says which."""


@dataclass(frozen=True)
class Known:
    """A vulnerability of a pinned package."""

    package: str
    version: str
    names: tuple[str, ...]
    """Its identifier, then those that other lists have for it."""
    mended: tuple[str, ...]
    """Versions that no longer have it."""


def main(arguments: list[str] | None = None) -> int:
    """Ask, and print what is known."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description="known vulnerabilities of the lock")
    parser.add_argument("--service", default=SERVICE, help="address of OSV's interface")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED, help="YAML, identifier: why it does no harm here")
    asked = parser.parse_args(arguments)
    pins, accepted = pinned(asked.lock), reasons(asked.accepted)
    try:
        found = list(known(pins, asked.service))
    except Unreachable as error:
        print(f"audit: NOT DONE: {asked.service} cannot be reached ({error})")
        return 0
    except Unintelligible as error:
        print(f"audit: FAILED: {asked.service} {error}")
        return 1
    return report(pins, found, accepted)


def report(pins: Mapping[str, str], found: list[Known], accepted: Mapping[str, str]) -> int:
    """Print what was found; the status is 1 when something is not accepted."""
    refused = [each for each in found if not any(name in accepted for name in each.names)]
    for each in found:
        why = [accepted[name] for name in each.names if name in accepted]
        mended = f"mended in {', '.join(each.mended) or 'no version'}"
        print(f"{each.package} {each.version}: {' = '.join(each.names)}, {f'accepted: {why[0]}' if why else mended}")
    for name in accepted.keys() - {name for each in found for name in each.names}:
        print(f"audit: {name} is accepted, but no longer known of what is pinned; remove it from the list")
    print(f"audit: {len(pins)} packages asked for, {len(found)} vulnerabilities known, {len(refused)} not accepted")
    return 1 if refused else 0


def pinned(lock: Path) -> dict[str, str]:
    """Versions by package."""
    lines = [line.strip() for line in lock.read_text(encoding="utf-8").splitlines()]
    each = [line.split("==") for line in lines if line and not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in each}
    assert pins, f"{lock}: pins nothing"
    return pins


def reasons(path: Path) -> dict[str, str]:
    """Accepted identifiers, each with its reason."""
    found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    without = [name for name, reason in found.items() if not isinstance(reason, str) or len(reason.split()) < 3]
    assert not without, f"{path}: {', '.join(map(str, without))} needs a sentence that says why it does no harm here"
    return dict(found)


def known(pins: Mapping[str, str], service: str) -> Iterator[Known]:
    """What the service knows of each package, with all its pages."""
    pending = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in sorted(pins.items())
    ]
    while pending:
        now, pending = pending[:_AT_ONCE], pending[_AT_ONCE:]
        results = _answer(f"{service}/v1/querybatch", {"queries": now}).get("results")
        if not isinstance(results, list) or len(results) != len(now):
            raise Unintelligible(f"answers {len(now)} questions with {str(results)[:100]}")
        for query, result in zip(now, results, strict=True):
            for each in result.get("vulns", ()):
                record = _answer(f"{service}/v1/vulns/{each['id']}")
                if "withdrawn" not in record:
                    yield _described(query["package"]["name"], query["version"], each["id"], record)
            if result.get("next_page_token"):
                pending.append({**query, "page_token": result["next_page_token"]})


def _described(package: str, version: str, identifier: str, record: Mapping[str, Any]) -> Known:
    of_package = [each for each in record.get("affected", ()) if each.get("package", {}).get("ecosystem") == "PyPI"]
    events = [event for each in of_package for kind in each.get("ranges", ()) for event in kind.get("events", ())]
    mended = dict.fromkeys(event["fixed"] for event in events if "fixed" in event)
    return Known(package, version, (identifier, *record.get("aliases", ())), tuple(mended))


def _answer(address: str, question: object = None) -> dict[str, Any]:
    data = None if question is None else json.dumps(question).encode()
    try:
        with urlopen(Request(address, data, {"Content-Type": "application/json"}), timeout=_PATIENCE) as reply:
            answer = json.load(reply)
    except HTTPError as error:
        if error.code == 429 or error.code >= 500:
            raise Unreachable(f"status {error.code}") from error
        raise Unintelligible(f"answers with status {error.code}") from error
    except URLError as error:
        raise Unreachable(error.reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(error) from error
    except ValueError as error:
        raise Unintelligible(f"answers no JSON ({error})") from error
    if not isinstance(answer, dict):
        raise Unintelligible(f"answers {str(answer)[:100]}")
    return answer


if __name__ == "__main__":
    sys.exit(main())
