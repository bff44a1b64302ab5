"""Explanations of audio models that can be seen, heard and checked against ground truth."""

__version__ = "0.1.0"
