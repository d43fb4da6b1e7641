"""Settings of the operator."""

from pydantic import Field, field_validator

from aurum.runtime.settings import Settings


class OperatorSettings(Settings):
    """Settings of the operator."""

    operator_namespace: str | None = Field(
        None, description="Namespace that the operator looks after; that of its pod or kube-context by default."
    )
    operator_release: str = Field("aurumai", description="Helm release in it: the label app.kubernetes.io/instance.")
    operator_defaults: str = Field(
        "aurumai-policy", description="ConfigMap with the policies that hold where no resource says otherwise."
    )
    operator_prometheus_url: str | None = Field(
        None,
        description="Prometheus in which rollouts are watched, such as http://prometheus:9090; without one, each "
        "change applies at once.",
    )
    operator_resync: float = Field(
        60.0, ge=1, description="Seconds between two looks at everything, for what events have not told."
    )

    @field_validator("operator_prometheus_url")
    @classmethod
    def _prometheus_has_scheme(cls, value: str | None) -> str | None:
        if value and not value.startswith("http://"):
            raise ValueError(f"{value!r} must start with http://, such as http://prometheus:9090")
        return value or None
