"""AurumAI: predictive maintenance, energy and carbon for industrial machines."""

import os

# Before anything loads gRPC, whose core would write lines to stderr that are not JSON
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__version__ = "0.1.0"
