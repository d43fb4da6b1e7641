"""The roles that routes and RPCs require, in one table.

A route or RPC that is missing in the table is refused to everybody. A test checks that none is missing.
"""

from typing import Final

from aurum.security.identity import Identity, Role

PUBLIC: Final = None
RequiredRole = Role | None

_VIEWER, _OPERATOR, _ENGINEER = Role.VIEWER, Role.OPERATOR, Role.ENGINEER
_INGEST, _ADMIN, _SERVICE = Role.INGEST, Role.ADMIN, Role.SERVICE

# Method and template of the path → role
ROUTES: dict[tuple[str, str], RequiredRole] = {
    ("GET", "/livez"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/health"): PUBLIC,
    ("GET", "/metrics"): _VIEWER,
    # The pages themselves contain no data; their script checks the session
    ("GET", "/"): PUBLIC,
    ("GET", "/machines/{machine_id}"): PUBLIC,
    ("GET", "/alarms"): PUBLIC,
    ("GET", "/platform"): PUBLIC,
    ("GET", "/compare"): PUBLIC,
    ("GET", "/connect"): PUBLIC,
    ("GET", "/console/{path:path}"): PUBLIC,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    ("GET", "/api/session"): PUBLIC,
    ("POST", "/api/session"): PUBLIC,
    ("DELETE", "/api/session"): PUBLIC,
    ("GET", "/api/console"): _VIEWER,
    ("GET", "/api/events"): _VIEWER,
    ("GET", "/api/today"): _VIEWER,
    ("GET", "/api/resilience"): _VIEWER,
    ("GET", "/api/platform"): _VIEWER,
    ("GET", "/api/platform/traces"): _ENGINEER,  # callers bound to sites only see their own requests
    ("GET", "/api/platform/traces/{trace_id}"): _ENGINEER,
    ("POST", "/api/platform/faults/{service}"): _ADMIN,
    ("DELETE", "/api/platform/faults/{service}"): _ADMIN,
    ("GET", "/api/machines"): _VIEWER,
    ("POST", "/api/machines"): _ENGINEER,
    ("GET", "/api/machines/{machine_id}"): _VIEWER,
    ("GET", "/api/machines/{machine_id}/metrics"): _VIEWER,
    ("GET", "/api/machines/{machine_id}/features"): _VIEWER,
    ("GET", "/api/machines/{machine_id}/explanation"): _VIEWER,
    ("GET", "/api/machines/{machine_id}/predictions"): _VIEWER,
    ("GET", "/api/machines/{machine_id}/advice"): _VIEWER,
    ("GET", "/api/machines/{machine_id}/maintenance"): _VIEWER,
    ("POST", "/api/machines/{machine_id}/maintenance"): _OPERATOR,
    ("PUT", "/api/machines/{machine_id}/maintenance/{record_id}"): _OPERATOR,
    ("DELETE", "/api/machines/{machine_id}/maintenance/{record_id}"): _OPERATOR,
    ("GET", "/api/machines/{machine_id}/maintenance/{record_id}/changes"): _VIEWER,
    ("GET", "/api/machines/{machine_id}/life-suggestions"): _VIEWER,
    ("GET", "/api/machines/{machine_id}/alarm-limits"): _VIEWER,
    ("GET", "/api/machines/{machine_id}/planned-stops"): _VIEWER,
    ("POST", "/api/machines/{machine_id}/planned-stops"): _OPERATOR,
    ("DELETE", "/api/machines/{machine_id}/planned-stops/{stop_id}"): _OPERATOR,
    ("POST", "/api/machines/{machine_id}/predict"): _VIEWER,
    ("POST", "/api/predict"): _VIEWER,
    ("POST", "/api/readings"): _INGEST,
    ("GET", "/api/models"): _VIEWER,
    ("GET", "/api/outcomes"): _VIEWER,
    ("GET", "/api/energy"): _VIEWER,
    ("GET", "/api/cost"): _VIEWER,
    ("GET", "/api/carbon"): _VIEWER,
    ("GET", "/api/carbon/hint"): _VIEWER,
    ("GET", "/api/water"): _VIEWER,
    ("GET", "/api/alarms"): _VIEWER,
    ("GET", "/api/alarms/journal"): _VIEWER,
    ("GET", "/api/alarms/rules"): _VIEWER,
    ("GET", "/api/alarms/rules/history"): _VIEWER,
    ("PUT", "/api/alarms/rules"): _ENGINEER,
    ("POST", "/api/alarms/rules/restore"): _ENGINEER,
    ("POST", "/api/alarms/rules/preview"): _ENGINEER,
    ("GET", "/api/reports/handover"): _VIEWER,
    ("GET", "/api/reports/alarms"): _VIEWER,
    ("GET", "/api/reports/energy"): _VIEWER,
    ("POST", "/api/alarms/ack"): _OPERATOR,
    ("POST", "/api/alarms/shelve"): _OPERATOR,
    ("POST", "/api/alarms/{alarm_id}/ack"): _OPERATOR,
    ("POST", "/api/alarms/{alarm_id}/comments"): _OPERATOR,
    ("POST", "/api/alarms/{alarm_id}/shelve"): _OPERATOR,
    ("POST", "/api/alarms/{alarm_id}/unshelve"): _OPERATOR,
}

# Routes that reveal or change something of the whole plant; callers bound to sites are refused
ROUTES_OF_WHOLE_PLANT = frozenset(
    {
        ("GET", "/metrics"),
        ("GET", "/api/outcomes"),
        ("PUT", "/api/alarms/rules"),
        ("POST", "/api/alarms/rules/restore"),
        ("POST", "/api/alarms/rules/preview"),
        # Reasons and changes name machines, people and limits of all sites
        ("GET", "/api/alarms/rules/history"),
        ("POST", "/api/platform/faults/{service}"),
        ("DELETE", "/api/platform/faults/{service}"),
    }
)

# RPCs that change something for the whole plant; clients bound to machines are refused
RPCS_OF_WHOLE_PLANT = frozenset(
    {"/aurum.v1.PredictionService/ActivateModel", "/aurum.v1.PredictionService/RollbackModel"}
)

# Full name of the RPC → role
RPCS: dict[str, RequiredRole] = {
    "/grpc.health.v1.Health/Check": PUBLIC,
    "/grpc.health.v1.Health/Watch": PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _VIEWER,
    "/aurum.v1.IngestionService/Ingest": _INGEST,
    "/aurum.v1.IngestionService/Write": _INGEST,
    "/aurum.v1.IngestionService/RegisterMachine": _INGEST,
    "/aurum.v1.IngestionService/Query": _VIEWER,
    "/aurum.v1.IngestionService/Integrate": _VIEWER,
    "/aurum.v1.IngestionService/GetMachine": _VIEWER,
    "/aurum.v1.IngestionService/ListMachines": _VIEWER,
    "/aurum.v1.IngestionService/Watch": _VIEWER,
    "/aurum.v1.IngestionService/Follow": _VIEWER,
    "/aurum.v1.IngestionService/ListEvents": _VIEWER,
    "/aurum.v1.IngestionService/RecordEvents": _SERVICE,
    "/aurum.v1.IngestionService/PublishPredictions": _SERVICE,
    "/aurum.v1.PredictionService/Predict": _VIEWER,
    "/aurum.v1.PredictionService/PredictBatch": _VIEWER,
    "/aurum.v1.PredictionService/Explain": _VIEWER,
    "/aurum.v1.PredictionService/ListModels": _VIEWER,
    "/aurum.v1.PredictionService/GetModel": _VIEWER,
    "/aurum.v1.PredictionService/ActivateModel": _ENGINEER,
    "/aurum.v1.PredictionService/RollbackModel": _ENGINEER,
}


def allowed_changes(identity: Identity) -> list[str]:
    """Returns the changes that a caller may make, as method and template of the path, sorted."""
    return sorted(
        f"{method} {template}"
        for (method, template), role in ROUTES.items()
        if method != "GET"
        and (role is PUBLIC or identity.has(role))
        and not (identity.sites and (method, template) in ROUTES_OF_WHOLE_PLANT)
    )
