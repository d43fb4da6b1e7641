"""A platform that asks who its callers are, with a key for each role."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aurum.security.api_keys import KeyFile, make_key, write_keys
from aurum.security.identity import ASSIGNABLE
from tests.support.guarded import Guarded
from tests.support.issuer import TestIssuer
from tests.support.platform import Platform


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    issuer = TestIssuer()
    made = {role: make_key(f"{role.value} of the tests", (role.value,)) for role in ASSIGNABLE}
    write_keys(folder / "keys.yaml", KeyFile(keys=tuple(record for _, record in made.values())))
    running = Platform(
        folder,
        extra={
            "AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"),
            "AURUM_AUDIT_FILE": str(folder / "audit.log"),
            "AURUM_FAULTS_ENABLED": "true",
            "AURUM_FEATURE_WATER": "true",
            "AURUM_MODEL_DIR": str(models),
            **issuer.settings,
        },
    )
    for service in ("ingestion", "prediction", "api"):
        running.start(service)
    yield Guarded(running, {role: key for role, (key, _) in made.items()}, issuer)
    running.stop()
    issuer.stop()
