"""Settings of the operator."""

import re

from pydantic import Field, field_validator

from aurum.runtime.settings import Settings

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,57}[a-z0-9])?")  # with -tls, still a DNS label


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

    operator_certificates: str = Field(
        "",
        description="Kubernetes Services that get a certificate from the operator, in the Secret SERVICE-tls, as "
        "name,… Empty, it issues none.",
    )
    operator_authority: str = Field(
        "aurumai-authority", description="Secret of the authority that signs these certificates."
    )
    operator_certificate_days: float = Field(
        90.0,
        gt=0.1,
        le=3650,
        description="Validity of these certificates in days. They are renewed after two thirds of it.",
    )
    operator_authority_days: float = Field(
        3650.0, gt=1, le=36500, description="Validity of the authority in days. It is replaced after two thirds of it."
    )
    operator_admin_secret: str | None = Field(
        None, description="Secret with the admin token that the operator creates and replaces. Unset, it creates none."
    )
    operator_token_days: float = Field(
        90.0, gt=0.1, le=3650, description="Age of the admin token in days at which the operator replaces it."
    )
    operator_session_secret: str | None = Field(
        None,
        description="Secret with the signing secret of console sessions that the operator creates. Unset, it creates "
        "none.",
    )

    @field_validator("operator_certificates")
    @classmethod
    def _certificates_are_names(cls, value: str) -> str:
        for name in filter(None, value.split(",")):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a Service, such as aurumai-api")
        return value

    @property
    def certificate_services(self) -> tuple[str, ...]:
        """The Services that get a certificate."""
        return tuple(dict.fromkeys(filter(None, self.operator_certificates.split(","))))

    @field_validator("operator_prometheus_url")
    @classmethod
    def _prometheus_has_scheme(cls, value: str | None) -> str | None:
        if value and not value.startswith("http://"):
            raise ValueError(f"{value!r} must start with http://, such as http://prometheus:9090")
        return value or None
