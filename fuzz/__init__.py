"""Broken and hostile input, by chance and by search; see README.md in this folder."""
