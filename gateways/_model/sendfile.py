"""Files that the web server sends in our place: X-Accel-Redirect (nginx), X-Sendfile (Apache, lighttpd).

An answer whose body is a file in a folder that the listener maps is handed over: its head alone is sent, with a field
that names the file as the web server knows it.
"""

import os
import stat

from gateways._model.environ import quote
from gateways._model.response import Response, default_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from typing import Any

    #: A header field, a folder, and what it is called by the web server.
    Folder = tuple[str, str, str]

#: Of an answer with one of these the file is but a part, or a form that a web server does not know of: nginx and
#: Apache drop the fields.
_OURS = ("content-encoding", "content-range")
#: The length is that of the file, and for the web server to tell.
_DROPPED = ("content-length", "content-type")
#: The fields that may be made of the path of a file.
_NAMING_FILES = {"x-accel-redirect": "X-Accel-Redirect", "x-sendfile": "X-Sendfile"}


class AllowedHeaders:
    """The internal fields that a listener allows, compared without case, and the folders whose files they stand for.

    Made of names, or of a mapping from names to folders: ``{"X-Accel-Redirect": {"/srv/files": "/protected"}}`` says
    that nginx knows the files in /srv/files as /protected, ``{"X-Sendfile": ["/srv/files"]}`` that the web server may
    read that folder. Raises ValueError for folders of a field that does not name files, and for paths that are
    relative, or "/".
    """

    __slots__ = ("_names", "folders")

    def __init__(
        self, names: "AllowedHeaders | Collection[str] | Mapping[str, Collection[str] | Mapping[str, str]]" = ()
    ) -> None:
        self._names: frozenset[str]
        #: Longest path first.
        self.folders: tuple[Folder, ...] = ()
        if isinstance(names, AllowedHeaders):
            self._names, self.folders = names._names, names.folders
            return
        self._names = frozenset([name.lower() for name in names])
        given: Any = names
        if hasattr(given, "items"):
            found = [each for name, folders in given.items() for each in _folders(name, folders)]
            self.folders = tuple(sorted(found, key=lambda each: len(each[1]), reverse=True))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> "Iterator[str]":
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AllowedHeaders):
            return NotImplemented
        return (self._names, self.folders) == (other._names, other.folders)

    def __hash__(self) -> int:
        return hash((self._names, self.folders))

    def __repr__(self) -> str:
        return f"<AllowedHeaders {', '.join([*sorted(self._names), *map(str, self.folders)])}>"


def _folders(name: str, folders: "Any") -> "Iterable[Folder]":
    header = _NAMING_FILES.get(name.lower())
    if isinstance(folders, str):
        raise ValueError(f"{name} takes a list of folders, or a mapping of them, not {folders!r} alone")
    is_mapping = hasattr(folders, "items")
    if header is None and folders:
        raise ValueError(f"no files are mapped to {name}, only to {' and '.join(_NAMING_FILES.values())}")
    if header == "X-Accel-Redirect" and folders and not is_mapping:
        raise ValueError('X-Accel-Redirect takes what nginx calls each folder: {"/srv/files": "/protected"}')
    for folder, there in folders.items() if is_mapping else [(folder, folder) for folder in folders]:
        for path in (folder, there):
            if not path.startswith("/") or not path.strip("/"):
                raise ValueError(f"{name} takes folders with an absolute path, and not all of the disk: {path!r}")
        yield str(header), folder, there


def can_be_handed_over(response: Response) -> bool:
    """Whether a web server would send the same answer, as far as the head tells."""
    return response.status == 200 and not any(name in response.headers for name in (*_OURS, *_NAMING_FILES))


def hand_over(response: Response, folders: "tuple[Folder, ...]") -> "Response | None":
    """The answer that has the web server send the file of ``response``; None where the file is for us to send.

    It is ours where it is in none of the folders, with all links followed, where it is no regular file, and where its
    name has characters that do not survive the way. Blocks for as long as the file system does.
    """
    body: Any = response.body
    try:
        path = os.path.realpath(body)
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
    except OSError:
        return None  # to be found out again, and answered as ever, when we send it
    for header, folder, there in folders:
        inside = os.path.realpath(folder) + "/"
        if path.startswith(inside):
            value = f"{there.rstrip('/')}/{path[len(inside) :]}"
            if header == "X-Accel-Redirect":
                return _naming(response, header, quote(value))
            # lighttpd decodes the value and Apache does not; lighttpd takes no other characters than these.
            if "%" not in value and value.isprintable() and value[-1] != " ":
                return _naming(response, header, value)
    return None


def _naming(response: Response, header: str, value: str) -> Response:
    fields = [(name, value) for name, value in response.headers.items() if name.lower() not in _DROPPED]
    # The type always: without it nginx and lighttpd would make one up from the name of the file.
    return Response(
        "", 200, [*fields, (header, value)], content_type=default_type(response), app_status=response.app_status
    )
