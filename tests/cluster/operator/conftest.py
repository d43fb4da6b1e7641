"""An operator process beside a real API server; fake_release.py simulates its pods."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import kube
from tests.support.cluster.fake_release import FakeRelease
from tests.support.cluster.kube import Namespace
from tests.support.cluster.operator import MakeRelease, Operator


@pytest.fixture(scope="session")
def crds(helm: None) -> None:
    if lacking := kube.missing():
        pytest.skip(lacking)
    kube.install_definitions()
    kube.run("kubectl", "wait", "--for=condition=Established", "crd", "resiliencepolicies.aurumai.io")


def _new_namespace() -> Iterator[Namespace]:
    namespace = Namespace(f"operator-test-{time.time_ns() % 10**9}")
    namespace.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name}})
    yield namespace
    kube.run("kubectl", "delete", "namespace", namespace.name, "--ignore-not-found", "--wait=false")


@pytest.fixture
def space(crds: None) -> Iterator[Namespace]:
    """A namespace of its own."""
    yield from _new_namespace()


@pytest.fixture(scope="module")
def shared_space(crds: None) -> Iterator[Namespace]:
    """A namespace without an operator, for tests of the API server alone."""
    yield from _new_namespace()


@pytest.fixture
def releases(space: Namespace, tmp_path: Path) -> Iterator[MakeRelease]:
    made: list[FakeRelease] = []

    def make(pods: dict[str, int]) -> FakeRelease:
        made.append(FakeRelease(space.name, tmp_path / "pods", pods))
        return made[-1]

    yield make
    for release in made:
        release.stop()


@pytest.fixture
def operator(space: Namespace, tmp_path: Path) -> Iterator[Operator]:
    process = Operator(space.name, tmp_path)
    yield process
    process.stop()
    lines = process.log.read_text().splitlines() if process.log.exists() else []
    unexpected = [line for line in lines if "Traceback" in line]
    assert not unexpected, unexpected[-3:]
