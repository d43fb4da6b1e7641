"""The CustomResourceDefinitions, made from the models: structural schemas with defaults, bounds, and rules in CEL."""

import argparse
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic.fields import FieldInfo

from aurum.operator.cel import validations
from aurum.operator.resources import (
    GROUP,
    KINDS,
    VERSION,
    GuardSpec,
    ResiliencePolicySpec,
    RolloutSpec,
    Selector,
    ServiceRef,
    TargetRef,
    TelemetryPolicySpec,
)
from aurum.resilience.durations import PATTERN, format_duration
from aurum.resilience.policy import PolicyPart
from aurum.runtime.policy.reference import tables

Schema = dict[str, Any]
_SCALARS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_LONGEST_DURATION = 20  # characters; without a bound the API server takes rules about it for too costly

_COLUMNS = [
    {"name": "Targets", "type": "string", "jsonPath": ".status.targets", "description": "What it governs."},
    {"name": "Generation", "type": "integer", "jsonPath": ".metadata.generation"},
    {
        "name": "Accepted",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Accepted")].status',
    },
    {
        "name": "Converged",
        "type": "string",
        "jsonPath": ".status.converged",
        "description": "Pods that have it in force, of those that are to.",
    },
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {
        "name": "Reason",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Accepted")].reason',
        "priority": 1,
    },
]


def custom_resource_definitions() -> dict[str, str]:
    """The manifests by the names of their files."""
    return {f"{plural}.yaml": _manifest(kind, plural, spec) for kind, (plural, spec) in KINDS.items()}


def schema_of(model: type[PolicyPart]) -> Schema:
    """Returns the structural schema of a model.

    Parts that are models themselves have no default, so that an omitted part stays absent.
    """
    properties, required = {}, []
    for name, field in model.model_fields.items():
        shown = field.alias or name
        properties[shown] = _field(field, getattr(model, "item_bounds", {}).get(name))
        if field.is_required():
            required.append(shown)
    schema: Schema = {"type": "object", "description": " ".join((model.__doc__ or "").split())}
    if required:
        schema["required"] = required
    schema["properties"] = properties
    if rules := validations(model):
        schema["x-kubernetes-validations"] = rules
    return schema


def _field(field: FieldInfo, item_bounds: tuple[int, int] | None) -> Schema:
    annotation = _without_none(field.annotation)
    constraints = _constraints(field)
    duration = _is_duration(field)
    schema = _duration(constraints) if duration else _typed(annotation, constraints)
    if field.description:
        schema["description"] = field.description
    if item_bounds:
        schema["items"] |= {"minimum": item_bounds[0], "maximum": item_bounds[1]}
    default = field.get_default()
    if not field.is_required() and default is not None and default != () and field.default_factory is None:
        schema["default"] = format_duration(default) if duration else _plain(default)
    return schema


def _typed(annotation: Any, constraints: dict[str, Any]) -> Schema:
    origin = get_origin(annotation)
    if origin is Literal:
        return {"type": "string", "enum": list(get_args(annotation))}
    if origin is tuple:
        item = get_args(annotation)[0]
        most = constraints.get("max_length") or len(get_args(item)) or 1
        bounds = {"minItems": constraints["min_length"]} if constraints.get("min_length") else {}
        kind = "atomic" if isinstance(item, type) and issubclass(item, PolicyPart) else "set"
        return {
            "type": "array",
            "items": _typed(item, {}),
            **bounds,
            "maxItems": most,
            "x-kubernetes-list-type": kind,
        }
    if origin is dict:
        bounds = {"minProperties": constraints["min_length"], "maxProperties": constraints["max_length"]}
        return {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}, **bounds}
    if isinstance(annotation, type) and issubclass(annotation, PolicyPart):
        return schema_of(annotation)
    return _scalar(annotation, constraints)


_BOUNDS = (
    ("ge", "minimum", None),
    ("gt", "minimum", "exclusiveMinimum"),
    ("le", "maximum", None),
    ("lt", "maximum", "exclusiveMaximum"),
)


def _scalar(annotation: Any, constraints: dict[str, Any]) -> Schema:
    schema: Schema = {"type": _SCALARS[annotation]}
    if schema["type"] == "integer":
        schema["format"] = "int32"
    for name, key, exclusive in _BOUNDS:
        if name in constraints:
            schema[key] = constraints[name]
            if exclusive:
                schema[exclusive] = True
    for name, key in (("min_length", "minLength"), ("max_length", "maxLength"), ("pattern", "pattern")):
        if name in constraints:
            schema[key] = constraints[name]
    return schema


def _duration(constraints: dict[str, Any]) -> Schema:
    """A string such as 250ms; its bounds are checked in CEL."""
    words = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [
        (f"duration(self) {sign} duration('{format_duration(constraints[name])}')", sign, constraints[name])
        for name, sign in words.items()
        if name in constraints and (name, constraints[name]) != ("ge", 0)  # a duration is never below 0
    ]
    schema: Schema = {"type": "string", "pattern": PATTERN, "maxLength": _LONGEST_DURATION}
    if bounds:
        schema["x-kubernetes-validations"] = [
            {"rule": rule, "message": f"must be {sign} {format_duration(value)}"} for rule, sign, value in bounds
        ]
    return schema


def _constraints(field: FieldInfo) -> dict[str, Any]:
    constraints: dict[str, Any] = {}
    for each in field.metadata:
        match each:
            case annotated_types.Ge(value):
                constraints["ge"] = value
            case annotated_types.Gt(value):
                constraints["gt"] = value
            case annotated_types.Le(value):
                constraints["le"] = value
            case annotated_types.Lt(value):
                constraints["lt"] = value
            case annotated_types.MinLen(value):
                constraints["min_length"] = value
            case annotated_types.MaxLen(value):
                constraints["max_length"] = value
            case _ if getattr(each, "pattern", None):
                constraints["pattern"] = each.pattern
    return constraints


def _is_duration(field: FieldInfo) -> bool:
    def validated(metadata: Any) -> bool:
        return any(getattr(getattr(each, "func", None), "__module__", "").endswith(".durations") for each in metadata)

    return validated(field.metadata) or any(
        validated(each.__metadata__) for each in get_args(field.annotation) if hasattr(each, "__metadata__")
    )


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [each for each in get_args(annotation) if each is not NoneType]
    return annotation


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_CONDITIONS: Schema = {
    "type": "array",
    "description": "Accepted, Programmed, Converged and, after a rollout that did harm, RolledBack.",
    "maxItems": 8,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": {"type": "string", "maxLength": 63},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "observedGeneration": {"type": "integer", "format": "int64"},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "reason": {"type": "string", "maxLength": 63},
            "message": {"type": "string", "maxLength": 1024},
        },
    },
}
_DECISIONS = ("calls", "openings", "breakerRejections", "limitRejections", "timeouts")
_NUMBER: Schema = {"type": "integer", "format": "int64"}
_STATUS: Schema = {
    "type": "object",
    "properties": {
        "observedGeneration": _NUMBER,
        "targets": {"type": "string", "description": "What it governs, in short."},
        "converged": {"type": "string", "description": "Pods that have it in force, of those that are to: 3/3."},
        "conditions": _CONDITIONS,
        "pods": {
            "type": "object",
            "properties": {
                "total": _NUMBER,
                "applied": _NUMBER,
                "refused": _NUMBER,
                "laggards": {
                    "type": "array",
                    "description": "Pods that do not have it, with the reason; ten at most.",
                    "maxItems": 10,
                    "items": {
                        "type": "object",
                        "properties": {"pod": {"type": "string"}, "reason": {"type": "string"}},
                    },
                },
            },
        },
        "rollout": {
            "type": "object",
            "properties": {
                "generation": _NUMBER,
                "state": {"type": "string", "enum": ["Waiting", "Progressing", "Complete", "RolledBack"]},
                "step": _NUMBER,
                "percent": _NUMBER,
                "exposed": {**_NUMBER, "description": "Pods that have the new generation."},
                "since": {"type": "string", "format": "date-time", "description": "When they all had it."},
                "figures": {"type": "string", "description": "What the guard found."},
            },
        },
        "shadow": {
            "type": "object",
            "description": "What a policy in shadow mode would have done, over all pods since they started.",
            "properties": dict.fromkeys(_DECISIONS, _NUMBER),
        },
        "lastGood": {
            "type": "object",
            "description": "The last generation that reached every pod: what a rollback goes back to.",
            "properties": {
                "generation": _NUMBER,
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
    },
}
_SHORT = {"ResiliencePolicy": "rp", "TelemetryPolicy": "tp"}


def _manifest(kind: str, plural: str, spec: type[PolicyPart]) -> str:
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},  # with a definition all its resources are deleted
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [_SHORT[kind]],
                "categories": ["aurumai"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _COLUMNS,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": " ".join((spec.__doc__ or "").split()),
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": schema_of(spec),
                                "status": _STATUS,
                            },
                        }
                    },
                }
            ],
        },
    }
    head = "# Generated by `make crds` from aurum.operator.resources; not to be edited.\n"
    return head + yaml.dump(definition, Dumper=_NoAliases, sort_keys=False, width=120, allow_unicode=True)


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def reference() -> str:
    """docs/operator-reference.md: the fields of both resources."""
    lines = [
        "# Fields of the resources",
        "",
        f"Generated by `make crds` from `aurum.operator.resources`; group `{GROUP}`, version `{VERSION}`. The parts of",
        "a ResiliencePolicy (`retry`, `circuitBreaker`, …) have the fields of [policies.md](policies.md).",
        "[operator.md](operator.md) explains them.",
        *tables(
            [
                ("ResiliencePolicy.spec", ResiliencePolicySpec),
                ("ResiliencePolicy.spec.targetRefs[]", TargetRef),
                ("spec.selector", Selector),
                ("ResiliencePolicy.spec.rollout", RolloutSpec),
                ("ResiliencePolicy.spec.rollout.guard", GuardSpec),
                ("TelemetryPolicy.spec", TelemetryPolicySpec),
                ("TelemetryPolicy.spec.targetRefs[]", ServiceRef),
            ]
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the manifests into a folder and the reference into a file; with --check, fails if they are not current."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    pages = {arguments.folder / name: manifest for name, manifest in custom_resource_definitions().items()}
    for path, page in {**pages, arguments.reference: reference()}.items():
        if not arguments.check:
            path.write_text(page, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            sys.exit(f"{path} is not current; run `make crds`")


if __name__ == "__main__":
    main()
