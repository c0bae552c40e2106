#!/usr/bin/env python3
import gateways
from capsule import app

gateways.cgi.run(app)
