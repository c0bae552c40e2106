#!/usr/bin/env python3
import os
import sys

length = int(os.environ.get("CONTENT_LENGTH") or 0)
text = sys.stdin.buffer.read(length).decode()
print("Content-Type: text/plain")
print()
print(text.upper())
