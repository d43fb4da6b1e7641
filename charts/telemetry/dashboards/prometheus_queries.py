"""The queries of a dashboard as Grafana asks them: with something put in for the variables."""

import json
import re
import urllib.parse
import urllib.request
from typing import Any

Series = tuple[dict[str, str], list[tuple[float, float]]]


def ask(prometheus: str, path: str, **parameters: object) -> Any:
    """Returns the answer of Prometheus's API. Raises OSError, with the status if Prometheus refuses the query."""
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{prometheus}/api/v1/{path}?{query}", timeout=30) as answer:
        return json.load(answer)["data"]


def chosen(prometheus: str, dashboard: dict[str, Any]) -> dict[str, str]:
    """Returns the values that `All` stands for, by variable. They are empty if a variable's query returns nothing."""
    values_by_name = {"__rate_interval": "1m", "__interval": "15s", "__range": "10m"}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        parts = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        if parts is None:
            raise ValueError(f"{dashboard['title']}: {variable['name']} is no query of label_values")
        values = ask(prometheus, f"label/{parts[2]}/values", **{"match[]": expanded(parts[1], values_by_name)})
        offered = re.compile(variable["regex"].strip("/"))
        values = [re.escape(value).replace("\\", "\\\\") for value in values if offered.search(value)]
        values_by_name[variable["name"]] = f"({'|'.join(values)})" if values else ""
    return values_by_name


def expanded(expr: str, values: dict[str, str]) -> str:
    """Returns the expression with the values of its variables."""
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(f"${name}", values[name])
    return expr


def over_time(prometheus: str, expr: str, start: float, end: float, step: float) -> list[Series]:
    """Returns the series of an expression: labels, and pairs of seconds since 1970 and value."""
    results = ask(prometheus, "query_range", query=expr, start=start, end=end, step=step)["result"]
    return [(each["metric"], [(at, float(value)) for at, value in each["values"]]) for each in results]


def now(prometheus: str, expr: str) -> list[Series]:
    """Returns the series of an expression with the latest value only."""
    results = ask(prometheus, "query", query=expr)["result"]
    return [(each["metric"], [(each["value"][0], float(each["value"][1]))]) for each in results]
