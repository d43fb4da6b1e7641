"""AurumAI: predictive maintenance, energy and carbon for industrial machines."""

__version__ = "0.1.0"
