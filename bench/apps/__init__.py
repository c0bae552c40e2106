"""One site, written for every server that is measured; native.py says what it does."""
