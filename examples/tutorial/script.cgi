#!/usr/bin/env python3
import gateways
from hello import app

gateways.cgi.run(app)
