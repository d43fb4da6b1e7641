"""The order in tests/: names, and what test files may import."""

import ast
import collections
import functools
from collections.abc import Iterator
from pathlib import Path

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
