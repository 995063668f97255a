"""Spectrum: which layers carry the most signal, and how to train only those."""
