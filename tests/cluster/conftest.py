"""One release of both charts for all tests, in a namespace of its own that admits only restricted pods.

AURUM_IMAGE_REPOSITORY and AURUM_IMAGE_TAG name the images, which the nodes must have; AURUM_IMAGE_TAG_NEXT those of an
upgrade. AURUM_CLUSTER_KEEP=1 leaves the release where it is, and a later run takes it up.
"""

from collections.abc import Iterator

import pytest

from tests.support.cluster import kube
from tests.support.cluster.kube import CHARTS, EXAMPLES, Namespace

NAMESPACE = "aurumai-test"
CHART_NAMESPACE = "aurumai-test-charts"
# What looks at a healthy release comes first, with what leaves it alone in between; then what disturbs it.
_ORDER = (
    "observability/test_dashboards.py",
    "test_charts.py",
    "test_network_policies.py",
    "test_rules.py",
    "operator/test_many.py",
    "operator/test_operator.py",
    "test_release.py",
    "test_closed_release.py",
    "test_learning.py",
    "test_gitops.py",
    "test_cassandra.py",
    "observability/test_soak.py",
    "operator/test_release.py",
    "test_release_disturbed.py",
    "observability/test_alerts.py",
    "observability/test_all_clear.py",
    "test_series.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return _ORDER.index(item.path.relative_to(kube.TESTS).as_posix()) if kube.TESTS in item.path.parents else -1

    items.sort(key=place)


@pytest.fixture(scope="session")
def helm() -> None:
    """Skips where there is no helm; charts are rendered without a cluster."""
    import shutil

    if shutil.which("helm") is None:
        pytest.skip("helm is not on the PATH")


@pytest.fixture(scope="session")
def namespace() -> Iterator[Namespace]:
    yield from _restricted_namespace(NAMESPACE, keep=kube.KEEP)


@pytest.fixture(scope="session")
def chart_namespace() -> Iterator[Namespace]:
    """A namespace without a release. Another one, because the tests of charts run beside those of the release."""
    yield from _restricted_namespace(CHART_NAMESPACE, keep=False)


def _restricted_namespace(name: str, *, keep: bool) -> Iterator[Namespace]:
    """Creates an empty namespace, and deletes it at the end, unless it is kept."""
    if lacking := kube.missing():
        pytest.skip(lacking)
    namespace = Namespace(name)
    if not keep:
        kube.run("kubectl", "delete", "namespace", name, "--ignore-not-found", "--timeout=180s")
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    namespace.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield namespace
    if not keep:
        kube.run("kubectl", "delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def release(namespace: Namespace) -> Namespace:
    """Both charts, installed; everything ready."""
    install(namespace)
    return namespace


def install(namespace: Namespace) -> None:
    kube.install_definitions()
    namespace.helm(
        *("upgrade", "--install", "observability", str(CHARTS / "observability")),
        *("--values", str(EXAMPLES / "ci-observability-values.yaml")),
        *("--values", str(kube.TESTS / "observability-values.yaml"), "--wait", "--timeout=3m"),
    )
    namespace.helm(
        *("upgrade", "--install", "aurumai", str(CHARTS / "aurumai"), "--values", str(EXAMPLES / "ci-values.yaml")),
        *("--set", f"image.repository={kube.REPOSITORY},image.tag={kube.TAG}", "--wait", "--timeout=5m"),
    )
    namespace.kubectl("rollout", "status", "deployment", "--timeout=120s", timeout=150)


@pytest.fixture
def api(release: Namespace) -> Iterator[str]:
    with release.forwarded("service/aurumai-api", 8000) as url:
        yield url


@pytest.fixture
def prometheus(release: Namespace) -> Iterator[str]:
    with release.forwarded("service/observability-prometheus", 9090) as url:
        yield url


@pytest.fixture
def jaeger(release: Namespace) -> Iterator[str]:
    with release.forwarded("service/observability-jaeger", 16686) as url:
        yield url
