"""hello.py over HTTP, to look at it without a web server: python hello_http.py [127.0.0.1:8080]"""

import sys

import gateways
from hello import app

gateways.run(app, bind=f"http:{sys.argv[1] if sys.argv[1:] else '127.0.0.1:8000'}")
