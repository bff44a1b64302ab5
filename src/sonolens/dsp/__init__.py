"""Waveform to time-frequency and back; the only place where scales are defined."""
