"""The reasons for which the services refuse, found in their code."""

import ast
import importlib
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

SERVICES = Path(__file__).parents[2] / "services/aurum"
# Their refusals reach devices, the cluster and shells, but no caller of the API
_BEHIND_NO_ROUTE = ("commands", "edge", "operator")
_ERRORS = "aurum.runtime.errors"


def problem_kinds() -> set[str]:
    """Returns the kinds of problem that the API can answer: the last parts of their types.

    Raises:
        ValueError: A reason in the code is neither a text nor the name of a constant.
    """
    kinds = set()
    for path in SERVICES.rglob("*.py"):
        if path.relative_to(SERVICES).parts[0] not in _BEHIND_NO_ROUTE and not path.name.endswith(
            ("_pb2.py", "_grpc.py")
        ):
            kinds |= {each.lower().replace("_", "-") for each in _of_module(path)}
    return kinds


def unknown_codes() -> set[str]:
    """Returns the codes with which prediction tells why something is unknown."""
    return {_text(call.args[0]) for call in _calls("prediction", "UnknownReason") if call.args}


def field_codes() -> set[str]:
    """Returns the codes with which the platform tells what is wrong with a field, besides those of pydantic."""
    custom = {_text(call.args[0]) for call in _calls("alarms", "PydanticCustomError")}
    return custom | {
        _text(call.args[2]) for call in _calls("api", "_Mistake") if isinstance(call.args[2], ast.Constant)
    }


def _calls(folder: str, name: str) -> Iterator[ast.Call]:
    for path in (SERVICES / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name_of(node.func) == name:
                yield node


def _text(value: ast.expr) -> str:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    raise ValueError(f"line {value.lineno}: the code is no text")


def _of_module(path: Path) -> Iterator[str]:
    module = ".".join(("aurum", *path.relative_to(SERVICES).with_suffix("").parts)).removesuffix(".__init__")
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call() if (_name_of(node.func) or "").endswith("Error"):
                yield from _of_error(node, module)
            case ast.Call() if _name_of(node.func) == "problem_response":
                yield from _of_response(node, module)
            case ast.Assign(targets=[ast.Attribute(attr="reason")]) if _is_reason(node.value):
                yield from _values(node.value, module)
            case ast.AnnAssign(target=ast.Name(id="default_reason"), value=ast.expr() as value):
                yield from _values(value, module)
            case ast.Assign(targets=[ast.Name(id="default_reason")]):
                yield from _values(node.value, module)


def _of_error(call: ast.Call, module: str) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg == "reason":
            yield from _values(keyword.value, module)
    if _name_of(call.func) == "HTTPException":
        yield from _phrase(call)


def _of_response(call: ast.Call, module: str) -> Iterator[str]:
    kinds = [keyword.value for keyword in call.keywords if keyword.arg == "kind"]
    if kinds and isinstance(kinds[0], ast.Constant):
        yield str(kinds[0].value)
    elif not kinds:
        yield from _phrase(call)


def _phrase(call: ast.Call) -> Iterator[str]:
    if call.args and isinstance(call.args[0], ast.Constant):
        yield HTTPStatus(int(str(call.args[0].value))).phrase.replace(" ", "_")


def _is_reason(value: ast.expr) -> bool:
    """Whether an assigned value can be a constant, and is not the reason of another kind of object."""
    return isinstance(value, ast.Constant | ast.Name) and (not isinstance(value, ast.Name) or value.id.isupper())


def _values(value: ast.expr, module: str) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Name(id=name) if name.isupper():
            yield str(getattr(importlib.import_module(module), name))
        case ast.IfExp(body=body, orelse=orelse):
            yield from _values(body, module)
            yield from _values(orelse, module)
        case _ if module != _ERRORS:  # there a reason that was received is passed on
            raise ValueError(f"{module}, line {value.lineno}: the reason is neither a text nor a constant")


def _name_of(function: ast.expr) -> str | None:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", None)
