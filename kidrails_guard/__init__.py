"""KidRails: a guard, a recipe pack and evaluations for children who talk to a language model."""

__version__ = "0.1.0"
