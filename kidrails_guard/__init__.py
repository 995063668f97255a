"""KidRails: a guard, a recipe pack and evaluations for children who talk to a language model."""

import os

__version__ = "0.1.0"

# onnxruntime's Linux builds report their use to their maker over the network, and keep what they
# report in the user's cache. A child's guard tells nobody anything; set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
