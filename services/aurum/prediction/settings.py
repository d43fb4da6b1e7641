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
    prediction_rescore_rate: float = Field(5.0, gt=0, le=1000, description="Maximum re-scoring checks per second.")

    @property
    def models_path(self) -> Path:
        """The folder of the models."""
        return self.model_dir or self.state_dir / "models"
