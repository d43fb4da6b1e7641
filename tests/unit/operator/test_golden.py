"""Resources in, ConfigMaps and statuses out: each file of k8s/examples/policies, and some that lose or are wrong.

The examples are applied beside the policies of the chart as it is shipped, as a reader of the docs would do.

`python -m tests.unit.operator.test_golden` writes the expected files anew; their diff is what is to be looked at.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.operator_world import Simulated

EXAMPLES = Path(__file__).parents[3] / "k8s" / "examples" / "policies"
CHART = Path(__file__).parents[3] / "charts" / "aurumai" / "values.yaml"
GOLDEN = Path(__file__).parent / "golden"
INPUTS = sorted([*EXAMPLES.glob("*.yaml"), *GOLDEN.glob("*.in.yaml")])


def name_of(path: Path) -> str:
    return path.name.removesuffix(".yaml").removesuffix(".in")


def chart_policies() -> str:
    policy = yaml.safe_load(CHART.read_text())["policy"]
    return yaml.safe_dump({"policies": policy["policies"], "servers": policy["servers"]})


def outcome(path: Path) -> str:
    """What the operator makes of the resources in a file, once it has settled: what has changed for each service, and
    each status."""
    simulated = Simulated(defaults=chart_policies()) if path.parent == EXAMPLES else Simulated()
    untouched = {service: each.data for service, each in simulated.settle().services.items()}
    for body in yaml.safe_load_all(path.read_text()):
        simulated.apply(body["metadata"]["name"], body["spec"], body["kind"])
    made = simulated.settle()
    documents: dict[str, Any] = {
        each.workload.config_map: {key: yaml.safe_load(text) for key, text in each.data.items()}
        for service, each in made.services.items()
        if each.data != untouched[service]
    }
    statuses = {
        f"{resource.kind}/{resource.name}": {
            key: value for key, value in resource.status.items() if key not in ("lastGood", "observedGeneration")
        }
        for resource in simulated.resources.values()
    }
    return yaml.safe_dump({"configMaps": documents, "statuses": statuses}, sort_keys=False, width=120)


@pytest.mark.parametrize("path", INPUTS, ids=name_of)
def test_resources_yield_golden_config_maps_and_statuses(path: Path) -> None:
    assert outcome(path) == (GOLDEN / f"{name_of(path)}.out.yaml").read_text()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=name_of)
def test_example_policies_are_accepted_beside_those_of_the_chart(path: Path) -> None:
    simulated = Simulated(defaults=chart_policies())
    for body in yaml.safe_load_all(path.read_text()):
        simulated.apply(body["metadata"]["name"], body["spec"], body["kind"])
    simulated.settle()
    for name in simulated.resources:
        found = simulated.conditions(name)
        assert found["Accepted"] == ("True", "Accepted"), simulated.message(name, "Accepted")
        assert found["Converged"] == ("True", "Converged")


if __name__ == "__main__":
    for each in INPUTS:
        (GOLDEN / f"{name_of(each)}.out.yaml").write_text(outcome(each))
    sys.exit(0)
