"""Edits of sound and spectrogram that let a model be asked again, and a person listen."""
