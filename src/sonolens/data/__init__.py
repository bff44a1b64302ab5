"""Recordings in: decoding, corpora, generators with known truth, splits."""
