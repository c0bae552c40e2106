"""A Flask site: a blog with accounts, in the shape of Flask's own tutorial, and what else people do with Flask.

``create_app`` makes it; its data are in the folder that BLOG_DATA names.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    flash,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    send_from_directory,
    session,
    stream_with_context,
    url_for,
)
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.utils import secure_filename

Answer = str | Response | tuple[str, int] | Any

_SCHEMA = """
DROP TABLE IF EXISTS author;
DROP TABLE IF EXISTS post;
CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, password TEXT NOT NULL);
CREATE TABLE post (
    id INTEGER PRIMARY KEY,
    author INTEGER NOT NULL REFERENCES author,
    slug TEXT UNIQUE NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    picture TEXT
);
"""

accounts = Blueprint("accounts", __name__, url_prefix="/accounts")
blog = Blueprint("blog", __name__)
tools = Blueprint("tools", __name__, url_prefix="/tools")


def create_app() -> Flask:
    """The application."""
    app = Flask(__name__)
    app.config.from_mapping(SECRET_KEY="not a secret", DATA=os.environ["BLOG_DATA"], MAX_CONTENT_LENGTH=16 << 20)
    for blueprint in (accounts, blog, tools):
        app.register_blueprint(blueprint)
    app.teardown_appcontext(_close_database)
    app.register_error_handler(404, lambda error: (render_template("error.html", error=error), 404))
    app.register_error_handler(500, lambda error: (render_template("error.html", error=error), 500))
    return app


# --- the database ----------------------------------------------------------------------------------------------------


def _database() -> sqlite3.Connection:
    if "database" not in g:
        g.database = sqlite3.connect(Path(current_app.config["DATA"]) / "blog.sqlite")
        g.database.row_factory = sqlite3.Row
    database: sqlite3.Connection = g.database
    return database


def _close_database(_error: BaseException | None) -> None:
    database = g.pop("database", None)
    if database is not None:
        database.close()


def _one(query: str, *values: object) -> Any:
    return _database().execute(query, values).fetchone()


def _change(query: str, *values: object) -> None:
    with _database() as database:
        database.execute(query, values)


# --- accounts --------------------------------------------------------------------------------------------------------


@blog.before_app_request
def _load_author() -> None:
    g.author = None
    if "author" in session:
        g.author = _one("SELECT * FROM author WHERE id = ?", session["author"])


def _for_authors(view: Callable[..., Answer]) -> Callable[..., Answer]:
    @functools.wraps(view)
    def wrapped(**arguments: Any) -> Answer:
        return view(**arguments) if g.author else redirect(url_for("accounts.login", next=request.full_path))

    return wrapped


@accounts.route("/register", methods=("GET", "POST"))
def register() -> Answer:
    if request.method == "GET":
        return render_template("account.html", action="Register")
    # Few rounds: this is about pages.
    password = generate_password_hash(request.form["password"], "pbkdf2:sha256:100")
    try:
        _change("INSERT INTO author (name, password) VALUES (?, ?)", request.form["name"], password)
    except sqlite3.IntegrityError:
        flash(f"{request.form['name']} is here already.")
        return render_template("account.html", action="Register"), 409
    flash("Welcome! Now log in.")
    return redirect(url_for("accounts.login"))


@accounts.route("/login", methods=("GET", "POST"))
def login() -> Answer:
    if request.method == "POST":
        author = _one("SELECT * FROM author WHERE name = ?", request.form["name"])
        if author and check_password_hash(author["password"], request.form["password"]):
            session.clear()
            session["author"] = author["id"]
            return redirect(url_for("blog.index"), 303)
        flash("A wrong name or password.")
    return render_template("account.html", action="Log in")


@accounts.route("/logout")
def logout() -> Answer:
    session.clear()
    return redirect(url_for("blog.index"))


# --- posts -----------------------------------------------------------------------------------------------------------


@blog.route("/")
def index() -> Answer:
    wanted = request.args.getlist("q")
    posts = _database().execute("SELECT * FROM post ORDER BY id DESC").fetchall()
    return render_template("index.html", posts=posts, wanted=wanted)


@blog.route("/write", methods=("GET", "POST"))
@_for_authors
def write() -> Answer:
    if request.method == "GET":
        return render_template("write.html")
    title, picture = request.form["title"], request.files.get("picture")
    if not title:
        abort(400, "A post has a title.")
    name = ""
    if picture and picture.filename:
        name = secure_filename(picture.filename)
        picture.save(Path(current_app.config["DATA"]) / name)
    slug = title.lower().replace(" ", "-")
    _change(
        "INSERT INTO post (author, slug, title, text, picture) VALUES (?, ?, ?, ?, ?)",
        *(g.author["id"], slug, title, request.form["text"], name),
    )
    return redirect(url_for("blog.post", slug=slug))


@blog.route("/posts/<slug>/")
def post(slug: str) -> Answer:
    found = _one("SELECT * FROM post WHERE slug = ?", slug) or abort(404, f"No post is called {slug}.")
    return render_template("post.html", post=found)


@blog.route("/posts/<slug>/delete", methods=("POST",))
@_for_authors
def delete(slug: str) -> Answer:
    found = _one("SELECT * FROM post WHERE slug = ?", slug) or abort(404)
    if found["author"] != g.author["id"]:
        abort(403)
    _change("DELETE FROM post WHERE id = ?", found["id"])
    return redirect(url_for("blog.index"))


@blog.route("/pictures/<path:name>")
def picture(name: str) -> Answer:
    # By default both are of the file, which is new each time.
    return send_from_directory(current_app.config["DATA"], name, etag=f"of-{name}", last_modified=1_000_000_000)


# --- and the rest ----------------------------------------------------------------------------------------------------


@tools.post("/reset")
def reset() -> Answer:
    _database().executescript(_SCHEMA)
    return "", 204


@tools.route("/request/<path:rest>", methods=("GET", "POST", "PUT"))
def show_request(rest: str) -> Answer:
    """What Flask makes of a request."""
    response = jsonify(
        rest=rest,
        method=request.method,
        url=request.url,
        base=request.base_url,
        root=request.root_url,
        path=request.path,
        script=request.script_root,
        query=request.args.to_dict(flat=False),
        form=request.form.to_dict(flat=False),
        json=request.get_json(silent=True),
        cookies={name: value for name, value in request.cookies.items() if name != "session"},
        user=request.authorization and [request.authorization.username, request.authorization.password],
        languages=list(request.accept_languages.values()),
        address=request.remote_addr,
        inside=url_for("tools.show_request", rest="é/?", a="b c"),
        outside=url_for("blog.post", slug="grüße", _external=True),
    )
    response.set_cookie("seen", "1", path=request.script_root + "/tools", httponly=True, samesite="Lax")
    response.set_cookie("text", "a; b")
    return response


@tools.get("/numbers")
def numbers() -> Answer:
    """An answer in pieces, with the request at hand while they are made."""
    count = int(request.args["count"])

    def pieces() -> Iterator[str]:
        for number in range(count):
            yield f"{number} {request.args['word']}\n"

    return Response(stream_with_context(pieces()), mimetype="text/plain")


@tools.post("/digest")
def digest() -> Answer:
    """What arrived of a body that is read in pieces."""
    hashed, length = hashlib.sha256(), 0
    while piece := request.stream.read(65_536):
        hashed.update(piece)
        length += len(piece)
    return f"{length} {hashed.hexdigest()}\n"


@tools.get("/boom")
def boom() -> Answer:
    raise ZeroDivisionError("a bug")
