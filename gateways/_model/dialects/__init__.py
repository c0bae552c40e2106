"""Dialects: how a Response becomes bytes, and how such bytes are read back."""
