"""Charts rendered without a cluster."""

from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster import kube

KUBE_VERSION = ("--kube-version", "1.34")


def template(chart: Path, *arguments: str) -> Any:
    return kube.run("helm", "template", "test", str(chart), *KUBE_VERSION, *arguments, check=False)


def objects(rendered: str) -> list[dict[str, Any]]:
    return [each for each in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if each]
