"""`python -m tests.security.vulnerabilities LOCK`: known vulnerabilities of what a lock names, by PyPI's advisories.

Exit code 1 if there are any. Where PyPI's advisories cannot be asked, it says so, and that is no failure of the code.
"""

import json
import subprocess
import sys


def main(lock: str) -> int:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--disable-pip",
        "--format=json",
        "--progress-spinner=off",
        "-r",
        lock,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    try:
        audited = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"{lock}: the advisories cannot be asked here: {done.stderr.strip().splitlines()[-1:]}")
        return 0
    skipped = [each["name"] for each in audited if "skip_reason" in each]
    found = [each for each in audited if each.get("vulns")]
    for each in found:
        for vulnerability in each["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "none yet"
            print(f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in {fixed}")
    known = len(audited) - len(skipped)
    print(f"{lock}: {known} of {len(audited)} packages looked up, {len(found)} with known vulnerabilities")
    if skipped and not known:
        print("no advisory can be looked up here: PyPI is not reached")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
