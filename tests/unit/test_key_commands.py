"""`aurum key`: keys are made, listed and revoked in a file."""

from pathlib import Path

import pytest

from aurum.security.api_keys import read_keys
from tests.support.commands import command


def test_created_key_is_listed_and_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    made = command("key", "create", "line 1", "--role", "ingest", "--role", "viewer", "--file", str(file))
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key not in file.read_text()
    limited = ("--role", "operator", "--site", "north", "--site", "south", "--days", "2")
    assert command("key", "create", "shift", *limited, "--file", str(file)).returncode == 0
    first, second = command("key", "list", "--file", str(file)).stdout.splitlines()
    assert first.endswith("line 1: ingest, viewer, never expires")
    assert "shift: operator of north, south, expires 20" in second
    kept = read_keys(file).keys
    assert [each.name for each in kept] == ["line 1", "shift"]
    assert first.split()[0] == kept[0].id
    assert command("key", "revoke", kept[0].id, "--file", str(file)).stdout == f"{kept[0].id} is revoked\n"
    assert command("key", "revoke", "shift", "--file", str(file)).returncode == 0
    assert read_keys(file).keys == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "known", "--role", "viewer"), "has a key named 'known' already"),
        (("create", "other", "--role", "owner"), "owner"),
        (("create", "line/1", "--role", "viewer"), "aurum: name: String should match pattern"),
        (("create", "other", "--role", "viewer", "--site", ""), "aurum: sites.0: String should have at least 1"),
        (("revoke", "nobody"), "has no key named 'nobody'"),
    ],
    ids=["a name twice", "an unknown role", "a name with a slash", "a site without a name", "an unknown name"],
)
def test_refused_key_command_leaves_keys_unchanged(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    file = tmp_path / "keys.yaml"
    command("key", "create", "known", "--role", "viewer", "--file", str(file))
    before = file.read_bytes()
    refused = command("key", *arguments, "--file", str(file))
    assert refused.returncode == 1
    assert said in refused.stderr
    assert "pydantic" not in refused.stderr
    assert "Traceback" not in refused.stderr
    assert file.read_bytes() == before


def test_key_of_more_than_a_century_is_wrong_usage(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    refused = command("key", "create", "old", "--role", "viewer", "--days", "99999999", "--file", str(file))
    assert refused.returncode == 2
    assert "--days" in refused.stderr
    assert not file.exists()
