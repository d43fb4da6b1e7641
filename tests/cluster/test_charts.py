"""The charts without a cluster: every feature renders, wrong values are refused with their path."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aurum.runtime.policy.document import load_platform_document
from tests.support.cluster import kube
from tests.support.cluster.charts import KUBE_VERSION, objects, template
from tests.support.cluster.kube import CHARTS, ROOT

pytestmark = pytest.mark.usefixtures("helm")
MATRIX = sorted(CHARTS.glob("*/ci/*.yaml"))
_NAMES = [f"{path.parts[-3]}/{path.stem}" for path in MATRIX]
# Values that contradict each other end with a sentence that begins with a value's path
_OPEN = ("--set", "security.api.open=everybody-may-do-everything")
_CONTRADICTION = re.compile(r"execution error at \S+: [a-z]\w*(\.\w+)+[:,] ")


@pytest.mark.parametrize("values", MATRIX, ids=_NAMES)
def test_charts_pass_lint_with_each_feature(values: Path) -> None:
    """The charts pass `helm lint --strict` with the values of each feature."""
    chart = values.parents[1]
    kube.run("helm", "lint", "--strict", str(chart), *KUBE_VERSION, "--values", str(values))


@pytest.mark.parametrize("values", MATRIX, ids=_NAMES)
def test_api_server_accepts_every_rendered_object(values: Path, chart_namespace: kube.Namespace) -> None:
    """An API server accepts every rendered object in a dry run, without a Pod Security warning."""
    rendered = template(values.parents[1], "--namespace", chart_namespace.name, "--values", str(values))
    assert rendered.returncode == 0, rendered.stderr
    # Kinds that other projects define are known only where those are installed
    known = [each for each in objects(rendered.stdout) if "monitoring.coreos.com" not in each["apiVersion"]]
    known = [each for each in known if "gateway.networking.k8s.io" not in each["apiVersion"]]
    known = [each for each in known if "cert-manager.io" not in each["apiVersion"]]
    manifest = "\n---\n".join(json.dumps(each) for each in known)
    done = kube.run(
        *("kubectl", "--namespace", chart_namespace.name, "apply", "--server-side", "--dry-run=server"),
        *("--field-manager=test-of-charts", "--force-conflicts", "--filename=-"),
        given=manifest,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "violate PodSecurity" not in done.stderr


@pytest.mark.parametrize("values", MATRIX, ids=_NAMES)
def test_rendered_pods_meet_production_standards(values: Path) -> None:
    """Every rendered pod is non-root and read-only, with probes, limits and no service account token."""
    rendered = objects(template(values.parents[1], "--values", str(values)).stdout)
    writable = yaml.safe_load(values.read_text()).get("writableRootFilesystem", False)
    for workload in (each for each in rendered if each["kind"] in ("Deployment", "StatefulSet")):
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in itertools.chain(pod["containers"], pod.get("initContainers", [])):
            assert container["securityContext"]["readOnlyRootFilesystem"] is (
                not writable or container["name"] == "collector"
            )
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["cpu"]
            assert not container["image"].endswith(":latest")
            assert ":" in container["image"]
        for container in pod["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= set(container)
            if workload["metadata"]["labels"]["helm.sh/chart"].startswith("aurumai"):
                assert "startupProbe" in container
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("chart", "value", "told"),
    [
        ("aurumai", "api.replicas=-1", "/api/replicas"),
        ("aurumai", "api.replica=2", "replica"),
        ("aurumai", "prediction.resources.limits.memory=lots", "/prediction/resources/limits/memory"),
        ("aurumai", "store.type=postgres", "/store/type"),
        ("aurumai", "store.type=cassandra", "store.url: must be cassandra://"),
        ("aurumai", "store.url=cassandra://a/b", "store.url: is for store.type cassandra"),
        ("aurumai", "ingestion.replicas=2", "ingestion.replicas: more than one pod needs store.type cassandra"),
        ("aurumai", "accounting.provider.type=carbon_aware", "accounting.provider.url: is needed"),
        ("aurumai", "learning.enabled=true", "learning.enabled: needs prediction.models.existingClaim"),
        ("aurumai", "learning.schedule=often", "/learning/schedule"),
        ("aurumai", "ingress.enabled=true", "ingress.host: is needed"),
        ("aurumai", "httpRoute.enabled=true", "httpRoute.parentRefs: at least one"),
        ("aurumai", "telemetry.gateway=collector", "/telemetry/gateway"),
        ("aurumai", "settings.log-level=DEBUG", "/settings"),
        ("aurumai", "api.autoscaling.enabled=true,api.autoscaling.maxReplicas=1", "api.autoscaling.maxReplicas"),
        ("aurumai", "environment=test", "security.api: no caller could authenticate"),
        ("aurumai", "security.tls.mode=some", "/security/tls/mode"),
        ("aurumai", "operator.enabled=false", "security.tls.mode: self_signed needs operator.enabled"),
        ("aurumai", "operator.enabled=false,security.tls.mode=none", "security.admin.tokenSecret: is needed without"),
        (
            "aurumai",
            "operator.enabled=false,security.tls.mode=none,security.admin.tokenSecret=a",
            "security.api.sessionSecret: is needed without",
        ),
        ("aurumai", "security.tls.issuerRef.kind=Authority", "/security/tls/issuerRef/kind"),
        ("aurumai", "edge.persistence.retention.whenDeleted=Keep", "/edge/persistence/retention/whenDeleted"),
        ("aurumai", "api.priorityClass=high", "priorityClass"),
        ("aurumai", "security.api.oidc.roleNames.boss=king", "/security/api/oidc/roleNames/boss"),
        ("observability", "collector.sampling.percentage=101", "/collector/sampling/percentage"),
        ("observability", "prometheus.url=http://other:9090", "prometheus.url: names an existing Prometheus"),
        ("observability", "grafana.enable=true", "enable"),
    ],
)
def test_invalid_chart_value_is_rejected_by_name(chart: str, value: str, told: str) -> None:
    """An invalid chart value is rejected with a message that names it."""
    done = template(CHARTS / chart, "--set", value)
    assert done.returncode != 0
    assert told in done.stderr


@pytest.mark.parametrize("chart", ["aurumai", "observability"])
def test_values_schema_and_readme_table_are_complete(chart: str) -> None:
    """The schema covers exactly the chart's values, and the README's table describes each of them."""
    from charts.values_table import described, table

    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())

    def compare(path: str, value: Any, node: dict[str, Any]) -> None:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        if not isinstance(value, dict) or "properties" not in node or path.endswith("resources"):
            return
        if path == "global":  # a parent chart may add values for its other charts
            assert set(node["properties"]) == set(value), path
            return
        assert node["additionalProperties"] is False, path
        assert set(node["properties"]) == set(value), path
        for name, each in value.items():
            compare(f"{path}.{name}" if path else name, each, node["properties"][name])

    compare("", values, schema)
    assert all(entry.description for entry in described(CHARTS / chart / "values.yaml"))
    assert table(CHARTS / chart) in (CHARTS / chart / "README.md").read_text(), "run `make docs`"


def _values(node: dict[str, Any], schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a node of a chart's schema allows; of arrays and free objects only empty ones."""
    if "$ref" in node:
        return _values(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    if "enum" in node:
        return st.sampled_from(node["enum"])
    least = node.get("minimum", node.get("exclusiveMinimum"))
    most = node.get("maximum", 10**6)
    strategies: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "object": lambda: st.fixed_dictionaries(
            {}, optional={name: _values(each, schema) for name, each in node.get("properties", {}).items()}
        ),
        "array": lambda: st.just([]),
        "boolean": st.booleans,
        "integer": lambda: st.integers(least, most),
        "number": lambda: st.floats(least, most, exclude_min="exclusiveMinimum" in node),
        "string": lambda: st.from_regex(node.get("pattern", "[a-z]{1,8}"), fullmatch=True).filter(str.isascii),
    }
    kind = node["type"]
    return strategies[kind[0] if isinstance(kind, list) else kind]()


@pytest.mark.parametrize("chart", ["aurumai", "observability"])
def test_schema_valid_values_render_or_fail_with_message(chart: str, tmp_path: Path) -> None:
    """Generated values that the schema allows render, or fail with a message that names a value."""
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    @given(_values(schema, schema))
    def check(values: dict[str, Any]) -> None:
        file = tmp_path / "values.yaml"
        file.write_text(json.dumps(values))
        done = template(CHARTS / chart, "--values", str(file), *(_OPEN if chart == "aurumai" else ()))
        if done.returncode:
            assert _CONTRADICTION.search(done.stderr), done.stderr
            return
        for each in objects(done.stdout):
            assert each["apiVersion"], each
            assert each["metadata"]["name"], each

    check()


def test_policy_document_of_chart_can_be_loaded(tmp_path: Path) -> None:
    """The policy document that the chart renders loads without error."""
    rendered = objects(template(CHARTS / "aurumai", *_OPEN).stdout)
    document = next(each for each in rendered if each["metadata"]["name"] == "test-aurumai-policy")
    file = tmp_path / "policies.yaml"
    file.write_text(document["data"]["defaults.yaml"])
    loaded = load_platform_document(file)
    assert loaded.policies[0].target == "api/prediction/*"
    assert loaded.generation == 1
    assert loaded.warnings() == []


def test_edge_pod_gets_its_inputs_and_egress_to_them(tmp_path: Path) -> None:
    """The edge pod gets its inputs file, secret and volume, and may reach the ports of its inputs."""
    from aurum.edge.inputs.common.configuration import load_inputs

    values = CHARTS / "aurumai" / "ci" / "edge-inputs-values.yaml"
    made = objects(template(CHARTS / "aurumai", "--values", str(values)).stdout)
    (files,) = [
        each for each in made if each["kind"] == "ConfigMap" and each["metadata"]["name"].endswith("edge-files")
    ]
    file = tmp_path / "inputs.yaml"
    file.write_text(files["data"]["inputs.yaml"])
    assert [each.name for each in load_inputs(file).inputs] == [
        "hall-1",
        "line-2",
        "cell-7",
        "cell-8",
        "meters",
        "drops",
    ]
    (policy,) = [
        each for each in made if each["kind"] == "NetworkPolicy" and each["metadata"]["name"].endswith("-edge")
    ]
    to_anybody = [port["port"] for each in policy["spec"]["egress"] if "to" not in each for port in each["ports"]]
    assert {8883, 1883, 4841, 4840, 502} <= set(to_anybody)
    (pod,) = [
        each["spec"]["template"]["spec"]
        for each in made
        if each["kind"] == "StatefulSet" and each["metadata"]["name"].endswith("-edge")
    ]
    mounts = {each["mountPath"]: each["name"] for each in pod["containers"][0]["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes[mounts["/etc/aurum/inputs"]]["secret"]["secretName"] == "plant"
    assert volumes[mounts["/var/lib/aurum/drops"]]["persistentVolumeClaim"]["claimName"] == "drops"
    assert volumes[mounts["/etc/aurum/files"]]["configMap"]["name"] == files["metadata"]["name"]


def test_alarm_rules_are_mounted_where_they_are_used(tmp_path: Path) -> None:
    """Prediction, which evaluates the alarm rules, and the API, which shows their texts, have the same file."""
    values = {"alarms": {"rules": [{"name": "hot", "text": "Too hot", "sensor": {"sensor": "heat", "above": 80}}]}}
    (tmp_path / "values.yaml").write_text(json.dumps(values))
    made = objects(template(CHARTS / "aurumai", *_OPEN, "--values", str(tmp_path / "values.yaml")).stdout)
    for service in ("api", "prediction"):
        (files,) = [each for each in made if each["metadata"]["name"] == f"test-aurumai-{service}-files"]
        assert yaml.safe_load(files["data"]["alarms.yaml"]) == {"rules": values["alarms"]["rules"]}
        (workload,) = [
            each for each in made if each["kind"] == "Deployment" and each["metadata"]["name"].endswith(f"-{service}")
        ]
        pod = workload["spec"]["template"]["spec"]
        (container,) = [each for each in pod["containers"] if each["name"] == service]
        assert {"name": "AURUM_ALARM_RULES", "value": "/etc/aurum/files/alarms.yaml"} in container["env"]
        assert {"name": "files", "configMap": {"name": files["metadata"]["name"]}} in pod["volumes"]
    assert not [
        each
        for each in objects(template(CHARTS / "aurumai", *_OPEN).stdout)
        if each["metadata"]["name"].endswith("prediction-files")
    ]


def test_skaffold_and_example_values_fit_the_charts(tmp_path: Path) -> None:
    """skaffold.yaml fits its schema, images and charts, and all example values render."""
    skaffold = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    # As published with skaffold (Apache-2.0): docs-v2/content/en/schemas/v4beta13.json
    jsonschema.validate(skaffold, json.loads((kube.TESTS / "schemas" / "skaffold-v4beta13.json").read_text()))
    releases = {each["name"]: each for each in skaffold["deploy"]["helm"]["releases"]}
    images = {each["image"]: each["docker"]["target"] for each in skaffold["build"]["artifacts"]}
    dockerfile = (ROOT / "services" / "Dockerfile").read_text()
    for target in [*images.values(), "dev"]:
        assert f" AS {target}\n" in dockerfile
    for release in releases.values():
        chart = ROOT / release["chartPath"]
        templates = release.get("setValueTemplates", {})
        assignments = ",".join(f"{key}=image:1" for key in templates)
        files = [argument for file in release.get("valuesFiles", ()) for argument in ("--values", str(ROOT / file))]
        done = template(chart, *files, *(("--set", assignments) if assignments else ()))
        assert done.returncode == 0, done.stderr
    for file in (ROOT / "k8s" / "examples").glob("*-values.yaml"):
        chart = CHARTS / ("observability" if "observability" in file.name else "aurumai")
        done = template(chart, "--values", str(file))
        assert done.returncode == 0, (file, done.stderr)
    used = set(releases["aurumai"]["setValueTemplates"].values())
    wanted = {"{{.IMAGE_FULLY_QUALIFIED_" + image.replace("/", "_") + "}}" for image in images}
    assert used == wanted


def test_learning_runs_as_a_job_on_the_models_of_prediction() -> None:
    """The job of learning shares the volume of the models, calls ingestion only, and has no probes and no Service."""
    values = CHARTS / "aurumai/ci/learning-values.yaml"
    rendered = objects(template(CHARTS / "aurumai", "--values", str(values)).stdout)
    (job,) = (each for each in rendered if each["kind"] == "CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][:2] == ["learn", "--ingestion"]
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not {"readinessProbe", "livenessProbe", "startupProbe", "ports"} & set(container)
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "own-models"}} in pod["volumes"]
    assert not any(each["kind"] == "Service" and each["metadata"]["name"].endswith("learning") for each in rendered)


@pytest.mark.parametrize("values", MATRIX, ids=_NAMES)
def test_rendering_a_chart_twice_gives_the_same_manifests(values: Path) -> None:
    """Rendering a chart twice gives the same manifests, without a Secret or a private key."""
    once, again = (template(values.parents[1], "--values", str(values)).stdout for _ in range(2))
    assert once == again
    assert "PRIVATE KEY" not in once
    assert not [each["metadata"]["name"] for each in objects(once) if each["kind"] == "Secret"]


def test_operator_may_only_touch_the_secrets_it_creates() -> None:
    """The operator reads and replaces by name the Secrets that pods mount, and no others."""
    made = objects(template(CHARTS / "aurumai", "--set", "security.api.keysSecret=keys").stdout)
    (role,) = [each for each in made if each["kind"] == "Role"]
    rules = [rule for rule in role["rules"] if "secrets" in rule["resources"]]
    assert [rule["verbs"] for rule in rules] == [["create"], ["get", "update"]]
    named = set(rules[1]["resourceNames"])
    pods = [each["spec"]["template"]["spec"] for each in made if each["kind"] in ("Deployment", "StatefulSet")]
    mounted = {volume["secret"]["secretName"] for pod in pods for volume in pod["volumes"] if "secret" in volume}
    read = set(re.findall(r'"secretKeyRef": {"name": "([^"]+)"', json.dumps(pods)))
    assert (mounted | read) - {"keys"} == named - {"test-aurumai-authority"}
    (operator,) = [each for each in pods if each["serviceAccountName"] == "test-aurumai-operator"]
    needed = [each for each in operator["volumes"] if "secret" in each and not each["secret"].get("optional")]
    assert not needed, "the operator would wait for a Secret that it creates itself"
    settings_of = {each["name"]: each.get("value", "") for each in operator["containers"][0]["env"]}
    services = settings_of["AURUM_OPERATOR_CERTIFICATES"].split(",")
    assert {f"{service}-tls" for service in services} == {name for name in named if name.endswith("-tls")}


@pytest.mark.parametrize("mode", ["cert_manager", "secrets"])
def test_certificates_of_others_leave_none_to_the_operator(mode: str) -> None:
    """With cert-manager or given Secrets, the operator issues nothing, and each mounted Secret has its Certificate."""
    given = "security.api.keysSecret=keys,security.api.sessionSecret=sessions,security.admin.tokenSecret=admin"
    made = objects(template(CHARTS / "aurumai", "--set", f"{given},security.tls.mode={mode}").stdout)
    (role,) = [each for each in made if each["kind"] == "Role"]
    assert not [rule for rule in role["rules"] if "secrets" in rule["resources"]]
    assert "AURUM_OPERATOR_CERTIFICATES" not in json.dumps(made)
    pods = [each["spec"]["template"]["spec"] for each in made if each["kind"] in ("Deployment", "StatefulSet")]
    mounted = {volume["secret"]["secretName"] for pod in pods for volume in pod["volumes"] if volume["name"] == "tls"}
    issued = {each["spec"]["secretName"] for each in made if each["kind"] == "Certificate"}
    assert issued == (mounted | {"test-aurumai-authority"} if mode == "cert_manager" else set())


_POD_VALUES: dict[str, Any] = {
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "plant", "app.kubernetes.io/name": "cannot be changed"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "plant", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high",
    "extraEnv": [{"name": "EXTRA", "value": "1"}],
    "envFrom": [{"secretRef": {"name": "extra"}}],
    "extraVolumes": [{"name": "extra", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
    "serviceAccount": {"annotations": {"role": "plant"}},
}
_PARTS = {
    "aurumai": ("api", "ingestion", "prediction", "learning", "edge", "operator", "simulators.iot", "simulators.edge"),
    "observability": ("collector", "prometheus", "alertmanager", "jaeger", "grafana"),
}


@pytest.mark.parametrize("chart", ["aurumai", "observability"])
def test_pod_values_reach_every_pod_of_a_chart(chart: str, tmp_path: Path) -> None:
    """Each value of a pod takes effect in the pods of every component, and every image comes from the mirror."""
    values: dict[str, Any] = {"global": {"imageRegistry": "mirror.example:5000", "imagePullSecrets": ["mirror"]}}
    for part in _PARTS[chart]:
        node = values
        for key in part.split("."):
            node = node.setdefault(key, {})
        node |= _POD_VALUES
    if chart == "aurumai":
        values["learning"]["enabled"] = values["simulators"]["enabled"] = True
        values["prediction"]["models"] = {"existingClaim": "models"}
    (tmp_path / "values.yaml").write_text(json.dumps(values))
    done = template(CHARTS / chart, "--values", str(tmp_path / "values.yaml"), *(_OPEN if chart == "aurumai" else ()))
    made = objects(done.stdout)
    templates = [
        each["spec"]["jobTemplate"]["spec"]["template"] if each["kind"] == "CronJob" else each["spec"]["template"]
        for each in made
        if each["kind"] in ("Deployment", "StatefulSet", "CronJob")
    ]
    assert len(templates) == len(_PARTS[chart])
    for each in templates:
        pod, metadata = each["spec"], each["metadata"]
        assert metadata["annotations"]["a"] == "b"
        assert (metadata["labels"]["team"], metadata["labels"]["app.kubernetes.io/name"]) == ("plant", chart)
        for name in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName"):
            assert pod[name] == _POD_VALUES[name]
        assert pod["imagePullSecrets"] == [{"name": "mirror"}]
        (container,) = pod["containers"]
        assert _POD_VALUES["extraEnv"][0] in container["env"]
        assert (container["envFrom"], container["lifecycle"]) == (_POD_VALUES["envFrom"], _POD_VALUES["lifecycle"])
        assert _POD_VALUES["extraVolumeMounts"][0] in container["volumeMounts"]
        assert _POD_VALUES["extraVolumes"][0] in pod["volumes"]
        for image in (each["image"] for each in [*pod["containers"], *pod.get("initContainers", [])]):
            assert image.startswith("mirror.example:5000/")
            assert "quay.io" not in image
    accounts = [each for each in made if each["kind"] == "ServiceAccount"]
    assert all(each["metadata"]["annotations"] == {"role": "plant"} for each in accounts)


def test_volumes_can_be_given_kept_and_deleted() -> None:
    """Volumes can be existing ones, and their claims follow the stated retention."""
    values = CHARTS / "aurumai/ci/pods-values.yaml"
    made = objects(template(CHARTS / "aurumai", "--values", str(values)).stdout)
    sets = {each["metadata"]["name"]: each["spec"] for each in made if each["kind"] == "StatefulSet"}
    ingestion, edge = sets["test-aurumai-ingestion"], sets["test-aurumai-edge"]
    assert ingestion["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete", "whenScaled": "Retain"}
    (claim,) = ingestion["volumeClaimTemplates"]
    assert (claim["metadata"]["annotations"], claim["spec"]["storageClassName"]) == ({"backup": "daily"}, "fast")
    assert "volumeClaimTemplates" not in edge
    state = {"name": "state", "persistentVolumeClaim": {"claimName": "spool"}}
    assert state in edge["template"]["spec"]["volumes"]
    assert ingestion["updateStrategy"] == {"type": "OnDelete"}
    values = CHARTS / "observability/ci/pods-values.yaml"
    made = objects(template(CHARTS / "observability", "--values", str(values)).stdout)
    (kept,) = [each for each in made if each["kind"] == "PersistentVolumeClaim"]
    assert kept["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert kept["metadata"]["annotations"]["backup"] == "daily"


@pytest.mark.parametrize("chart", ["aurumai", "aurumai-crds", "observability"])
def test_chart_metadata_is_complete_and_current(chart: str) -> None:
    """A chart's metadata names its home, icon, maintainers and the images that its default values use."""
    metadata = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    assert {"home", "icon", "sources", "maintainers", "keywords", "annotations"} <= set(metadata) | {"keywords"}
    listed = yaml.safe_load(metadata["annotations"].get("artifacthub.io/images", "[]"))
    arguments = (*_OPEN, "--set", "simulators.enabled=true") if chart == "aurumai" else ()
    used = set(re.findall(r"image: (\S+)", template(CHARTS / chart, *arguments).stdout))
    images = {each["image"] for each in listed if each["name"] != "learning"}
    assert used == images
