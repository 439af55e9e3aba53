"""Real models: loading one, and reading q, k, v and the weights of every head out of it as it runs."""

from softmap.models.load import LoadedModel, load

__all__ = ["LoadedModel", "load"]
