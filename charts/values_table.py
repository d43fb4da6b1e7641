"""Writes the table of a chart's values into its README, from the comments in values.yaml.

    python -m charts.values_table [--check] CHART…

A line `# -- text` describes the value below it.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_BEGIN, _END = "<!-- values -->\n", "<!-- end of values -->\n"
_KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a chart. path: Its keys, joined by dots."""

    path: str
    default: Any
    description: str


def described(file: Path) -> list[Value]:
    """Returns the values that have a description, and the leaves that lack one."""
    text = file.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    values_in_order: list[Value] = []
    path: list[str] = []
    description, covered = "", -1  # covered: how deep the last described value is; what lies below it is part of it
    for line in text.splitlines():
        if line.strip().startswith("# -- "):
            description = line.strip().removeprefix("# -- ")
            continue
        match = _KEY.match(line)
        if not match:
            continue
        depth = len(match[1]) // 2
        if 0 <= covered < depth:
            continue
        covered = -1
        path[depth:] = [match[2]]
        default = values
        for name in path:
            default = default[name]
        if description or not isinstance(default, dict) or not default:
            values_in_order.append(Value(".".join(path), default, description))
            covered = depth
        description = ""
    return values_in_order


def table(chart: Path) -> str:
    """Returns the table of a chart's values in Markdown."""
    lines = ["| value | default | what |", "| --- | --- | --- |"]
    for value in described(chart / "values.yaml"):
        default = json.dumps(value.default)
        default_text = "(see values.yaml)" if len(default) > 80 else f"`{default}`"
        lines.append(f"| `{value.path}` | {default_text} | {value.description} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes or checks the tables. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the READMEs are current")
    parser.add_argument("charts", nargs="+", type=Path)
    arguments = parser.parse_args()
    for chart in arguments.charts:
        readme = chart / "README.md"
        text = readme.read_text(encoding="utf-8")
        before, _, rest = text.partition(_BEGIN)
        _, _, after = rest.partition(_END)
        expected = before + _BEGIN + "\n" + table(chart) + "\n" + _END + after
        if expected != text:
            if arguments.check:
                print(f"{readme} is not current; run `make docs`", file=sys.stderr)
                return 1
            readme.write_text(expected, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
