#!/usr/bin/env python3
"""hello.py as a CGI script: make it executable and put both files where the web server looks for scripts."""

import gateways
from hello import app

gateways.cgi.run(app)
