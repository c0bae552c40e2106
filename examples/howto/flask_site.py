"""A site of Flask, as its users write it: it knows nothing of gateways."""

from flask import Flask, request, url_for

app = Flask(__name__)


@app.get("/")
def front() -> str:
    return f'<link rel="stylesheet" href="{url_for("static", filename="site.css")}">\nHello, {request.remote_addr}!\n'


@app.post("/shout")
def shout() -> str:
    return request.form["text"].upper() + "\n"
