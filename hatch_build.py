"""Build hook: generates the protobuf and gRPC modules of `proto/` into `services/` when the project is installed."""

import sys
from importlib import resources
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtobufBuildHook(BuildHookInterface[Any]):
    """Runs protoc for each contract; the files that it writes are not committed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "wheel":
            generate(Path(self.root))


def generate(root: Path) -> None:
    """Writes `aurum/v1/*_pb2*.py[i]` below `root/services`. Raises RuntimeError if protoc rejects a contract."""
    sources = sorted((root / "proto").rglob("*.proto"))
    out = root / "services"
    scripts = Path(sys.executable).parent
    plugins = [
        f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}"
        for name in ("mypy", "mypy_grpc")
        if (scripts / f"protoc-gen-{name}").exists()
    ]
    arguments = [
        "protoc",
        *plugins,
        f"--proto_path={root / 'proto'}",
        f"--proto_path={resources.files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out={out}",
        f"--mypy_grpc_out={out}",
        *map(str, sources),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed to generate the gRPC modules; see its output above")
    package = out / "aurum" / "v1"
    (package / "__init__.py").write_text('"""Generated from proto/aurum/v1; not committed."""\n')


if __name__ == "__main__":
    generate(Path(__file__).parent)
