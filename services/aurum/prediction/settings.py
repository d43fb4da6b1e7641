"""Settings of the prediction service."""

from pathlib import Path

from pydantic import Field

from aurum.alarms.settings import AlarmSettings


class PredictionSettings(AlarmSettings):
    """Settings of the prediction service."""

    model_dir: Path | None = Field(
        None, description="Folder of the models. The default is models below the state directory."
    )
    prediction_host: str = Field("127.0.0.1", description="Address on which prediction listens.")
    prediction_port: int = Field(50052, ge=1, le=65535, description="Port of prediction (gRPC).")
    prediction_model_poll: float = Field(2.0, ge=0.1, description="Seconds between two checks for new models on disk.")
    prediction_history_interval: float = Field(
        60.0, ge=0, description="Minimum seconds between two stored predictions of a machine."
    )
    prediction_batch_most: int = Field(
        256, ge=1, le=10_000, description="Maximum number of predictions per call of the model."
    )
    prediction_batch_waiting: int = Field(
        4096, ge=1, description="Maximum number of predictions that wait for the model. Further ones are refused."
    )
    prediction_batch_wait: float = Field(
        0.005, ge=0, le=1, description="Maximum seconds that a prediction waits for others of the same batch."
    )
    prediction_rescore_after: float = Field(
        600.0, ge=1, description="Seconds until a stored prediction is checked for readings that arrived late."
    )
    prediction_score_interval: float = Field(
        2.5, ge=0.1, le=3600, description="Minimum seconds between two scorings of a machine with new readings."
    )
    prediction_window_bytes: int = Field(
        256_000_000,
        ge=1_000_000,
        description="Maximum memory of the windows of continuously scored machines, in bytes. Machines beyond it are "
        "scored by queries.",
    )
    prediction_window_lag: float = Field(
        1.0,
        ge=0,
        le=60,
        description="Maximum seconds by which the windows of continuously scored machines may lag behind ingestion "
        "when they answer a request. If they lag more, and always if it is 0, the readings are queried for the "
        "request. The lag is known every 0.4 seconds.",
    )
    prediction_peers: str = Field(
        "",
        description="Scorers among which the machines are divided: host:port of a headless Service, or the addresses "
        "of all scorers, separated by commas. If empty, this process scores all machines.",
    )
    prediction_own_address: str = Field(
        "",
        description="Address of this process among AURUM_PREDICTION_PEERS, as host or host:port. In a cluster, the IP "
        "address of the pod.",
    )
    prediction_false_alarms: float = Field(
        1.0,
        gt=0,
        le=10_000,
        description="Allowed false alarms of the anomaly score, for each machine and month of healthy operation. It "
        "sets the threshold of every model from which a state counts as unusual.",
    )
    prediction_train_missing: str = Field(
        "",
        description="Machine types of the simulated plant, separated by commas, whose models are trained in the "
        "background after the start if there are none. This needs aurumai[training]. `make run` sets it to all types.",
    )
    prediction_rescore_rate: float = Field(5.0, gt=0, le=1000, description="Maximum re-scoring checks per second.")

    prediction_outcome_interval: float = Field(
        900.0, ge=1, description="Seconds between two comparisons of the recorded predictions with what happened."
    )
    learn_failures: int = Field(
        5,
        ge=1,
        le=10_000,
        description="Lives that must have ended in a failure since the last training for `aurum learn` to train again.",
    )
    learn_drift: float = Field(
        0.25, gt=0, description="Population stability index from which `aurum learn` trains after a single such life."
    )
    learn_compared_failures: int = Field(
        3,
        ge=1,
        le=10_000,
        description="Lives that must have ended in a failure since a shadow model was trained before it is judged.",
    )
    learn_confidence: float = Field(
        0.8,
        gt=0.5,
        lt=1,
        description="Share of resampled machines on which a shadow model must have skill and be better than the "
        "champion to be promoted.",
    )
    learn_days: int = Field(
        730, ge=1, le=36_500, description="Days of readings that `aurum learn --ingestion` learns from."
    )
    learn_readings: int = Field(
        30_000_000,
        ge=1000,
        description="Readings of a machine type that `aurum learn --ingestion` holds in memory, about 40 bytes each. "
        "If there are more, it learns from fewer days.",
    )
    learn_every: float = Field(
        21_600.0, ge=0, description="Seconds between two runs of `aurum learn` by `make run`; 0 for none."
    )
    learn_agreement: bool = Field(
        False, description="Whether a person must agree to a promotion, by `aurum models activate`."
    )

    @property
    def trained_at_start(self) -> tuple[str, ...]:
        """The machine types whose models are trained in the background if there are none."""
        return tuple(dict.fromkeys(filter(None, map(str.strip, self.prediction_train_missing.split(",")))))

    @property
    def models_path(self) -> Path:
        """The folder of the models."""
        return self.model_dir or self.state_dir / "models"
