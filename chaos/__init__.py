"""Servers that are reloaded, restarted and killed under load: README.md lists the commands."""
