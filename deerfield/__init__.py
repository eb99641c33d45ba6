"""deerfield: federated LoRA fine-tuning under differential privacy. The core: values and pure functions."""

__version__ = "0.1.0"
