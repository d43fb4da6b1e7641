"""Each RPC of each service, called with the certificate of each role: only the table decides."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from aurum.security.identity import Identity, Role
from aurum.security.permissions import PUBLIC, RPCS
from aurum.v1 import ingestion_pb2, prediction_pb2
from tests.support.authority import Authority
from tests.support.platform import Platform

SERVICES = {"ingestion": ingestion_pb2, "prediction": prediction_pb2}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[Platform, Authority]]:
    folder = tmp_path_factory.mktemp("rpcs")
    authority = Authority()
    clients = "\n".join(f"  - {{name: {role.value}.test, roles: [{role.value}]}}" for role in Role)
    behind = authority.settings(folder, "service.test", f"clients:\n{clients}\n")
    running = Platform(folder, extra={**behind, "AURUM_MODEL_DIR": str(models)})
    running.start("ingestion")
    running.start("prediction")
    yield running, authority
    running.stop()


def code_of(channel: grpc.Channel, full_name: str, method: Any) -> grpc.StatusCode:
    """What an empty request to a method ends with."""
    request = message_factory.GetMessageClass(method.input_type)()
    response = message_factory.GetMessageClass(method.output_type)
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(channel, kind)(full_name, request.SerializeToString, response.FromString)
    try:
        answer = call(iter([request]) if method.client_streaming else request, timeout=3)
        if method.server_streaming:
            next(iter(answer), None)
            answer.cancel()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
@pytest.mark.parametrize("service", SERVICES)
def test_role_calls_exactly_its_rpcs(plant: tuple[Platform, Authority], service: str, role: Role) -> None:
    """The certificate of a role opens exactly the RPCs that the access table grants."""
    platform, authority = plant
    chain, key = authority.issue(f"{role.value}.test")
    credentials = grpc.ssl_channel_credentials(authority.pem, key, chain)
    wrong = []
    with grpc.secure_channel(f"127.0.0.1:{platform.port(service)}", credentials) as channel:
        for described in SERVICES[service].DESCRIPTOR.services_by_name.values():
            for method in described.methods:
                full_name = f"/{described.full_name}/{method.name}"
                wanted = RPCS[full_name]
                opens = wanted is PUBLIC or Identity("x", frozenset({role}), "certificate").has(wanted)
                code = code_of(channel, full_name, method)
                if opens == (code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)):
                    wrong.append(f"{full_name} by {role.value}: {code.name}")
    assert wrong == []
