#!/usr/bin/env python3
import os

print("Content-Type: text/plain")
print()
print("Hello,", os.environ.get("QUERY_STRING") or "world")
