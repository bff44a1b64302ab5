"""Figures, tables and pages; draws, computes no numbers."""
