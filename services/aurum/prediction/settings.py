"""Settings of the prediction service."""

from pathlib import Path

from pydantic import Field

from aurum.runtime.settings import Settings


class PredictionSettings(Settings):
    """Settings of the prediction service."""

    model_dir: Path | None = Field(None, description="Models; by default models below the state directory.")
    prediction_host: str = Field("127.0.0.1", description="Address that prediction listens on.")
    prediction_port: int = Field(50052, ge=1, le=65535, description="Port of prediction (gRPC).")
    prediction_model_poll: float = Field(2.0, ge=0.1, description="Seconds between two looks for new models on disk.")
    prediction_history_interval: float = Field(
        60.0, ge=0, description="Least seconds between two predictions of a machine that are written down."
    )
    prediction_batch_most: int = Field(
        256, ge=1, le=10_000, description="Predictions that the model makes in one call."
    )
    prediction_batch_waiting: int = Field(
        4096, ge=1, description="Predictions that may wait for the model; more are refused."
    )
    prediction_batch_wait: float = Field(
        0.005, ge=0, le=1, description="Seconds that a prediction waits at most for others to be made with it."
    )
    prediction_rescore_after: float = Field(
        600.0, ge=1, description="Seconds until a kept prediction is looked at again for readings that came late."
    )
    prediction_rescore_rate: float = Field(5.0, gt=0, le=1000, description="Such looks in a second, at most.")

    @property
    def models_path(self) -> Path:
        """The folder of the models."""
        return self.model_dir or self.state_dir / "models"
