"""Settings of the operator."""

from pydantic import Field, field_validator

from aurum.runtime.settings import Settings


class OperatorSettings(Settings):
    """Settings of the operator."""

    operator_namespace: str | None = Field(
        None, description="Namespace that the operator manages. The default is that of its pod or kube-context."
    )
    operator_release: str = Field(
        "aurumai",
        description="Helm release that the operator manages: the value of the label app.kubernetes.io/instance.",
    )
    operator_defaults: str = Field(
        "aurumai-policy",
        description="ConfigMap with the default policies, which apply where no resource states others.",
    )
    operator_prometheus_url: str | None = Field(
        None,
        description="Prometheus server for the guards of rollouts, such as http://prometheus:9090. Unset, each "
        "change is applied to all pods at once.",
    )
    operator_resync: float = Field(
        60.0, ge=1, description="Seconds between two full reconciliations, in addition to those after events."
    )

    @field_validator("operator_prometheus_url")
    @classmethod
    def _prometheus_has_scheme(cls, value: str | None) -> str | None:
        if value and not value.startswith("http://"):
            raise ValueError(f"{value!r} must start with http://, such as http://prometheus:9090")
        return value or None
