"""hello.py over FastCGI: python hello_fastcgi.py [unix:/run/hello.sock]"""

import sys

import gateways
from hello import app

gateways.run(app, bind=f"fastcgi:{sys.argv[1] if sys.argv[1:] else '127.0.0.1:9000'}")
