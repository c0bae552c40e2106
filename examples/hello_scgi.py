"""hello.py over SCGI: python hello_scgi.py [unix:/run/hello.sock]"""

import sys

import gateways
from hello import app

gateways.run(app, bind=f"scgi:{sys.argv[1] if sys.argv[1:] else '127.0.0.1:4000'}")
