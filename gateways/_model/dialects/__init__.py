"""Dialects: the forms that a Response takes as bytes."""
