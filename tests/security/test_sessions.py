"""Who signs out is signed out everywhere: at every replica, and for whoever has a copy of the cookie."""

from pathlib import Path

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for


def test_sign_out_ends_the_session_at_every_replica(platform: Platform, tmp_path: Path) -> None:
    """A session that was ended at one replica is refused at once there, and within seconds at the others."""
    key, record = make_key("somebody", ("viewer",))
    write_keys(tmp_path / "keys.yaml", KeyFile(keys=(record,)))
    platform.extra |= {
        "AURUM_AUTH_KEYS_FILE": str(tmp_path / "keys.yaml"),
        "AURUM_AUTH_SESSION_SECRET": "s" * 40,
        "AURUM_FEATURE_PREDICTIVE": "false",
    }
    platform.start("ingestion")
    platform.start("api")
    ports = {name: port for name, port in platform.ports.items() if not name.startswith("api")}
    other = Platform(tmp_path / "other", ports=ports, extra=platform.extra)
    other.start("api")
    try:
        begun = [http("POST", f"{platform.api}/api/session", {"credential": key}) for _ in range(2)]
        ended, going_on = ({"Cookie": each.headers["set-cookie"].partition(";")[0]} for each in begun)

        def status(at: Platform, jar: dict[str, str]) -> int:
            return http("GET", f"{at.api}/api/machines", headers=jar).status

        assert [status(at, ended) for at in (platform, other)] == [200, 200]
        same_site = {"Sec-Fetch-Site": "same-origin"}
        assert http("DELETE", f"{platform.api}/api/session", headers={**ended, **same_site}).status == 204
        assert status(platform, ended) == 401
        wait_for(lambda: status(other, ended) == 401, 15, "the other replica refuses it")
        if ended != going_on:  # begun in the same moment, two cookies are one
            assert [status(at, going_on) for at in (platform, other)] == [200, 200]
        platform.processes["api"].kill()
        platform.restart("api")
        wait_for(lambda: status(platform, ended) == 401, 15, "nor does it come back with a restart")
    finally:
        other.stop()
