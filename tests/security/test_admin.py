"""The admin server of a process: closed to strangers, but for probes and metrics, and to other sites in a browser."""

from pathlib import Path

import pytest

from tests.support import processes
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

TOKEN = "token-of-the-tests-1"  # noqa: S105


@pytest.fixture
def admin(platform: Platform) -> str:
    platform.extra["AURUM_FEATURE_PREDICTIVE"] = "false"
    return f"http://127.0.0.1:{platform.port('ingestion admin')}"


def test_exposed_admin_server_requires_token_or_opt_out(platform: Platform, admin: str) -> None:
    """An exposed admin server without a token starts only with an explicit opt-out."""
    platform.extra["AURUM_ADMIN_HOST"] = "0.0.0.0"
    process = platform.start("ingestion", ready=False)
    assert process.popen.wait(20) == 2
    assert "set AURUM_ADMIN_TOKEN, or AURUM_ADMIN_OPEN=everybody-may-do-everything" in process.log.read_text()
    platform.extra["AURUM_ADMIN_OPEN"] = "everybody-may-do-everything"
    platform.start("ingestion")
    assert http("GET", f"{admin}/policy").status == 200


def test_admin_server_requires_token_beyond_probes(platform: Platform, admin: str) -> None:
    """The admin server serves probes and metrics openly, and everything else only with its token."""
    platform.extra |= {"AURUM_ADMIN_HOST": "0.0.0.0", "AURUM_ADMIN_TOKEN": TOKEN, "AURUM_FAULTS_ENABLED": "true"}
    platform.start("ingestion")
    for path in ("/livez", "/readyz", "/metrics"):
        assert http("GET", f"{admin}{path}").status == 200
    for path in ("/policy", "/overview", f"/spans?trace_id={'0' * 32}", "/faults", "/livez/", "//policy"):
        assert http("GET", f"{admin}{path}").status == 401
        assert http("GET", f"{admin}{path}", headers={"Authorization": f"Bearer {TOKEN}x"}).status == 401
    assert http("DELETE", f"{admin}/faults").status == 401
    assert http("GET", f"{admin}/policy", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200
    platform.start("api")

    def others() -> bool:
        found = http("GET", f"{platform.api}/api/platform").json["instances"]
        return any(each["service"] == "ingestion" and each["reachable"] for each in found)

    wait_for(others, 10, "the API sees ingestion's admin server with the token")
    for command in (("policy", "show"), ("fault", "list")):
        done = processes.run(*command, environment=platform.environment("api"))
        assert "401" not in done.stdout + done.stderr, done


def test_admin_server_rejects_cross_site_requests(platform: Platform, admin: str) -> None:
    """The admin server rejects cross-site requests and foreign host names."""
    platform.extra["AURUM_FAULTS_ENABLED"] = "true"
    platform.start("ingestion")
    fault = {"kind": "delay", "method": "Never"}
    plain = {"Content-Type": "text/plain", "Origin": "https://evil.example.com"}
    assert http("POST", f"{admin}/faults", fault, plain).status == 403
    assert http("GET", f"{admin}/overview", headers={"Host": "evil.example.com"}).status == 403
    assert http("GET", f"{admin}/faults").json["faults"] == []
    assert http("GET", f"{admin}/overview").status == 200


def test_short_admin_token_is_rejected(platform: Platform) -> None:
    """A service does not start with a short admin token, and does not log it."""
    platform.extra |= {"AURUM_ADMIN_TOKEN": "short"}
    process = platform.start("ingestion", ready=False)
    assert process.popen.wait(20) == 2
    log = process.log.read_text()
    assert "AURUM_ADMIN_TOKEN" in log
    assert "'short'" not in log


def _put_token(folder: Path, token: str, previous: str = "") -> Path:
    """Replaces the tokens of a folder, as the kubelet does with a mounted Secret."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("token", token), ("previous", previous)):
        if content:
            (folder / ".new").write_text(f"{content}\n")
            (folder / ".new").replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    return folder


def _uptime(platform: Platform) -> float | None:
    """What the API's latest poll of ingestion's admin server has told; None if it was refused."""
    found = http("GET", f"{platform.api}/api/platform").json["instances"]
    return next(
        (each["uptime_seconds"] for each in found if each["service"] == "ingestion" and each["reachable"]), None
    )


def _is_reached_again(platform: Platform) -> bool:
    """Whether the API's next poll reaches ingestion; its latest one is shown for a while."""
    before = _uptime(platform)
    wait_for(lambda: _uptime(platform) != before, 10, "the next poll")
    return _uptime(platform) is not None


def test_rotated_admin_token_is_followed_without_401(platform: Platform, admin: str, tmp_path: Path) -> None:
    """Processes follow a rotated admin token in any order, and the API reaches the others all the time."""
    tokens = [f"{TOKEN}-{number}" for number in range(4)]
    as_ = [{"Authorization": f"Bearer {token}"} for token in tokens]
    own = {name: _put_token(tmp_path / name, tokens[0]) for name in ("ingestion", "api")}
    for name, folder in own.items():
        platform.extra |= {"AURUM_ADMIN_HOST": "0.0.0.0", "AURUM_ADMIN_TOKEN_FOLDER": str(folder)}
        platform.start(name)
    wait_for(lambda: _uptime(platform), 10, "the API reaches ingestion")
    _put_token(own["ingestion"], tokens[1])  # the called process reads it first
    assert [http("GET", f"{admin}/policy", headers=each).status for each in as_] == [200, 200, 401, 401]
    assert _is_reached_again(platform)
    _put_token(own["api"], tokens[2])  # the calling process reads it first
    assert _is_reached_again(platform)
    _put_token(own["ingestion"], tokens[3], tokens[2])  # what the operator writes: both
    assert [http("GET", f"{admin}/policy", headers=each).status for each in as_] == [200, 200, 200, 200]
    assert _is_reached_again(platform)
    assert http("GET", f"{admin}/policy").status == 401
    for name in own:
        log = platform.processes[name].log.read_text()
        assert not any(token in log for token in tokens)


def test_admin_server_without_token_yet_answers_probes(platform: Platform, admin: str, tmp_path: Path) -> None:
    """Until the folder has a usable token, the admin server answers probes only; a bad token changes nothing."""
    folder = tmp_path / "tokens"
    platform.extra |= {"AURUM_ADMIN_HOST": "0.0.0.0", "AURUM_ADMIN_TOKEN_FOLDER": str(folder)}
    process = platform.start("ingestion")
    assert http("GET", f"{admin}/readyz").status == 200
    assert http("GET", f"{admin}/policy").status == 401
    as_ours = {"Authorization": f"Bearer {TOKEN}"}
    _put_token(folder, TOKEN)
    assert http("GET", f"{admin}/policy", headers=as_ours).status == 200
    _put_token(folder, "short")
    assert http("GET", f"{admin}/policy", headers=as_ours).status == 200
    assert "must have from 16 to 4096 printable ASCII characters" in process.log.read_text()


def test_two_sources_of_admin_token_are_rejected(platform: Platform, tmp_path: Path) -> None:
    """A service with both a fixed admin token and a folder of tokens does not start."""
    platform.extra |= {"AURUM_ADMIN_TOKEN": TOKEN, "AURUM_ADMIN_TOKEN_FOLDER": str(tmp_path)}
    process = platform.start("ingestion", ready=False)
    assert process.popen.wait(20) == 2
    assert "are both set; unset one of them" in process.log.read_text()
