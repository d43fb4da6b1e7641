"""The order in tests/: names, what test files may import, and lists that have to follow the code."""

import ast
import collections
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

TESTS = Path(__file__).parents[1]
_LONGEST = 60  # characters of a test's name


@functools.cache
def _modules() -> list[tuple[Path, ast.Module]]:
    return [(path.relative_to(TESTS), ast.parse(path.read_text())) for path in sorted(TESTS.rglob("*.py"))]


def _tests(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name


def test_names_of_tests_are_short_and_unique() -> None:
    names = [name for path, module in _modules() if path.name.startswith("test_") for name in _tests(module)]
    assert [name for name in names if len(name) > _LONGEST] == []
    assert [name for name, count in collections.Counter(names).items() if count > 1] == []


def test_no_module_imports_a_test_file_or_conftest() -> None:
    for path, module in _modules():
        for node in ast.walk(module):
            if not isinstance(node, ast.ImportFrom | ast.Import):
                continue
            source = getattr(node, "module", None) or ""
            imported = [f"{source}.{each.name}" for each in node.names]
            wrong = [name for name in imported if name.startswith("tests.") and ("test_" in name or "conftest" in name)]
            assert not wrong, f"{path}:{node.lineno} imports {wrong}; what files share belongs in tests/support"


def test_shared_code_contains_no_tests() -> None:
    assert [path for path, module in _modules() if path.parts[0] == "support" and list(_tests(module))] == []


def test_equivalent_mutants_name_code_that_exists() -> None:
    """The lines that a mutant changes are in its file, and so is its function."""
    stale = []
    for path in sorted((TESTS / "mutation" / "equivalent").glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text()):
            code = (TESTS.parent / entry["file"]).read_text()
            source = [line.strip() for line in code.splitlines()]
            before = [line.strip() for line in entry["before"].splitlines()]
            if not any(source[at : at + len(before)] == before for at in range(len(source))):
                stale.append(f"{path.name}: {entry['file']}: {entry['before']}")
            if entry["function"] not in _function_names(ast.parse(code)):
                stale.append(f"{path.name}: {entry['file']}: {entry['function']}")
    assert stale == []


def _function_names(scope: ast.AST, prefix: str = "") -> set[str]:
    """The qualified names of all functions in a module or class."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names |= {prefix + node.name} | _function_names(node, f"{prefix}{node.name}.")
        else:
            names |= _function_names(node, prefix)
    return names


def test_modules_that_docs_name_exist() -> None:
    """Dotted names in backticks are modules of aurum, or names in one. The glossary leaves out the prefix `aurum.`."""
    root = TESTS.parent
    packages = {path.name for path in (root / "services" / "aurum").iterdir() if path.is_dir()}
    missing = []
    for page in [*(root / "docs").rglob("*.md"), root / "CONTRIBUTING.md", root / "README.md"]:
        for name in re.findall(r"`((?:aurum\.)?[a-z_0-9]+(?:\.[a-zA-Z_0-9]+)+)`", page.read_text()):
            parts = name.removeprefix("aurum.").split(".")
            prefixed = name.startswith("aurum.") or page.name == "glossary.md"
            if prefixed and parts[0] in packages and parts[0] != "v1" and parts[-1] != "proto" and not _exists(parts):
                missing.append(f"{page.relative_to(root)}: {name}")
    assert missing == []


def _exists(parts: list[str]) -> bool:
    path = TESTS.parent / "services" / "aurum"
    for index, part in enumerate(parts):
        if (path / part).is_dir():
            path = path / part
        elif (path / f"{part}.py").exists():
            rest = parts[index + 1 :]
            return not rest or re.search(rf"\b{rest[0]}\b", (path / f"{part}.py").read_text()) is not None
        else:
            return index == len(parts) - 1 and re.search(rf"\b{part}\b", (path / "__init__.py").read_text()) is not None
    return True
