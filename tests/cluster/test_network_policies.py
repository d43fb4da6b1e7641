"""Network policies by structure, as they would be enforced: who may open a connection to whom."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.cluster.charts import objects, template
from tests.support.cluster.kube import CHARTS

pytestmark = pytest.mark.usefixtures("helm")

VALUES = (
    *("--set", "networkPolicy.enabled=true,simulators.enabled=true,operator.prometheusUrl=http://prometheus:9090"),
    *("--set", "security.api.keysSecret=keys,security.api.oidc.issuer=https://login.example.com:8443/realms/plant"),
)
# Who calls whom; helm test looks at whether all of it answers
CALLS = {
    ("api", "ingestion"),
    ("api", "prediction"),
    ("prediction", "prediction"),  # the scorers check each other's health
    ("prediction", "ingestion"),
    ("edge", "ingestion"),
    ("edge-sim", "ingestion"),
    ("iot-sim", "edge"),
    ("test", "edge"),
    ("test", "ingestion"),
    ("test", "prediction"),
}
ASKS = ("api", "operator")
DNS, GATEWAY = 53, 4317


@dataclass
class Net:
    """Pods by component: their labels and ports; and the policies."""

    labels: dict[str, dict[str, str]]
    ports: dict[str, dict[str, int]]
    policies: list[dict[str, Any]]

    def of(self, component: str, direction: str) -> list[dict[str, Any]]:
        """The rules for the pods of a component in one direction, of all policies that select them."""
        chosen = [
            each["spec"]
            for each in self.policies
            if _selects(each["spec"]["podSelector"], self.labels[component])
            and direction in each["spec"]["policyTypes"]
        ]
        assert chosen, f"{component} is not isolated for {direction}"
        return [rule for spec in chosen for rule in spec.get(direction.lower()) or []]

    def may(self, caller: str, called: str, port: str) -> bool:
        """Whether both ends allow a connection to a named port."""
        return self._allowed("Egress", "to", caller, called, called, port) and self._allowed(
            "Ingress", "from", called, caller, called, port
        )

    def _allowed(  # noqa: PLR0917
        self, direction: str, peers: str, subject: str, other: str, called: str, port: str
    ) -> bool:
        return any(
            self._matches_port(rule.get("ports"), called, port)
            and (not rule.get(peers) or any(_is_peer(peer, self.labels[other]) for peer in rule[peers]))
            for rule in self.of(subject, direction)
        )

    def _matches_port(self, ports: list[dict[str, Any]] | None, called: str, name: str) -> bool:
        return ports is None or any(each["port"] in (name, self.ports[called].get(name)) for each in ports)


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def _is_peer(peer: dict[str, Any], labels: dict[str, str]) -> bool:
    return set(peer) == {"podSelector"} and _selects(peer["podSelector"], labels)


@pytest.fixture(scope="module")
def net() -> Net:
    rendered = template(CHARTS / "aurumai", *VALUES)
    assert rendered.returncode == 0, rendered.stderr
    every = objects(rendered.stdout)
    pods = [each["spec"]["template"] for each in every if each["kind"] in ("Deployment", "StatefulSet")]
    pods += [each for each in every if each["kind"] == "Pod"]
    labels, ports = {}, {}
    for pod in pods:
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        labels[component] = pod["metadata"]["labels"]
        ports[component] = {
            port["name"]: port["containerPort"]
            for container in pod["spec"]["containers"]
            for port in container.get("ports", [])
        }
    return Net(labels, ports, [each for each in every if each["kind"] == "NetworkPolicy"])


def test_grpc_ports_admit_exactly_required_callers(net: Net) -> None:
    """Network policies allow exactly the gRPC calls between pods that are needed."""
    found = {
        (caller, called)
        for caller in net.labels
        for called in net.labels
        if "grpc" in net.ports[called] and net.may(caller, called, "grpc")
    }
    assert found == CALLS


def test_admin_ports_admit_only_api_and_operator(net: Net) -> None:
    """Network policies open the admin ports to the API and the operator only."""
    components = [each for each in net.labels if "admin" in net.ports[each]]
    found = {(caller, called) for caller in net.labels for called in components if net.may(caller, called, "admin")}
    assert found == {(caller, called) for caller in ASKS for called in components}


def test_only_api_http_port_accepts_any_source(net: Net) -> None:
    """Only the API's HTTP port accepts traffic from any source."""
    for component in net.labels:
        for rule in net.of(component, "Ingress"):
            named = {each["port"] for each in rule["ports"]}
            assert rule.get("from") or (component, named) == ("api", {"http"}), (component, rule)


def test_egress_is_limited_to_required_ports(net: Net) -> None:
    """Egress to any destination is limited to the ports that each component needs."""
    everywhere = {"api": {8443}, "operator": {443, 6443, 9090}}
    for component in net.labels:
        out = {
            each["port"] for rule in net.of(component, "Egress") if not rule.get("to") for each in rule.get("ports", [])
        }
        allowed = {DNS, GATEWAY} | everywhere.get(component, set())
        assert out <= allowed, component
        assert all(rule.get("ports") or rule.get("to") for rule in net.of(component, "Egress"))
    assert 8443 in {port["port"] for rule in net.of("api", "Egress") for port in rule.get("ports", [])}


def test_configured_sources_are_admitted() -> None:
    """Sources named in the values are admitted to the API, the edge gateway and the admin ports."""
    rendered = template(
        CHARTS / "aurumai",
        "--values",
        str(CHARTS / "aurumai/ci/network-values.yaml"),
        "--set",
        "networkPolicy.enabled=true",
    )
    assert rendered.returncode == 0, rendered.stderr
    policies = {
        each["metadata"]["name"]: each["spec"] for each in objects(rendered.stdout) if each["kind"] == "NetworkPolicy"
    }
    (http,) = [rule for rule in policies["test-aurumai-api"]["ingress"] if rule["ports"] == [{"port": "http"}]]
    assert http["from"] == [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]
    (devices,) = [rule for rule in policies["test-aurumai-edge"]["ingress"] if rule["ports"] == [{"port": "grpc"}]]
    assert {"ipBlock": {"cidr": "10.0.0.0/8"}} in devices["from"]
    for name, spec in policies.items():
        admin = [rule for rule in spec.get("ingress", []) if rule["ports"] == [{"port": "admin"}]]
        assert all({"namespaceSelector": {"matchLabels": {"c": "d"}}} in rule["from"] for rule in admin), name
