"""python -m tests.audit: known vulnerabilities of what requirements.lock pins, by pip-audit where the network allows.

Without pip-audit or without the service it says that nothing was asked, and ends well: tests/test_lock.py checks
offline what can be checked so. The status is 1 when a vulnerability is known.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CALL = ("-m", "pip_audit", "--vulnerability-service", "osv", "--no-deps", "--disable-pip", "--progress-spinner", "off")


def main() -> int:
    """Ask, and print what is known."""
    call = [sys.executable, *CALL, "--format", "json", "--requirement", str(ROOT / "requirements.lock")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    try:
        audited = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1][:300]
        print(f"audit: NOT DONE: {reason}\n(pip install pip-audit; it asks api.osv.dev)")
        return 0
    skipped = [each["name"] for each in audited if "skip_reason" in each]
    known = [(each["name"], each["version"], found) for each in audited for found in each.get("vulns", ())]
    for name, version, found in known:
        print(f"{name} {version}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}")
    print(f"audit: {len(audited) - len(skipped)} packages asked for, {len(known)} vulnerabilities known")
    if skipped:
        print(f"audit: not asked for: {', '.join(skipped)}")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
