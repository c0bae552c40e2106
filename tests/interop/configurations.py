"""The table of web server configurations that the same requests are sent through.

One row is one way, found in real installations, to put an application behind a web server; it is multiplied by the
transports (unix socket, TCP) and the mounts (the root of the site, ``/app``) where it makes sense. Servers differ in
how they split a path into SCRIPT_NAME and PATH_INFO; ``mount_option`` says what ``serve(mount=...)`` must be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs


@attrs.frozen
class Configuration:
    """One web server, set up in one way.

    The backend listens where ``FrontEnd.bind`` says, unless ``script`` names a file that the web server starts itself.
    """

    id: str
    server: str  #: "nginx", "apache2", "lighttpd" or "haproxy"
    protocol: str  #: "fastcgi", "scgi" or "cgi"
    transport: str  #: "unix" or "tcp"; "pipe" for CGI
    mount: str  #: "" or "/app": where in the site the application is
    mount_option: str | None  #: what serve(mount=...) needs to see script_name == mount
    script: str | None  #: the file that the web server runs, such as "app.cgi"; None: we start the backend
    site: str  #: configuration text with @NAME@s

    def __str__(self) -> str:
        return self.id


@attrs.frozen
class _Row:
    server: str
    protocol: str
    name: str
    mounts: Mapping[str, str | None]  #: mount -> mount_option
    site: str
    transports: tuple[str, ...] = ("unix", "tcp")
    script: str | None = None


# Whole path in SCRIPT_NAME and no PATH_INFO: the application cannot know where it is mounted, except that behind
# nginx the absence of PATH_INFO is taken for the root.
_NGINX_WHOLE_PATH = {"": None, "/app": "/app"}
_APACHE_WHOLE_PATH = {"": "/", "/app": "/app"}
_HAPROXY_WHOLE_PATH = {"": "/", "/app": "/app"}
# The server splits as we want it.
_SPLIT = {"": None, "/app": None}
# lighttpd compares text, not segments: it sends SCRIPT_NAME=/application for "/app" as well. Told the mount, we
# answer 404.
_LIGHTTPD_PREFIX = {"": None, "/app": "/app"}
# HAProxy chooses an application by its own rules; a path that path-info does not match is SCRIPT_NAME as a whole.
_HAPROXY_PREFIX = {"/app": "/app"}

_ROWS = [
    # nginx, ngx_http_fastcgi_module
    _Row(
        "nginx",
        "fastcgi",
        "stock",
        _NGINX_WHOLE_PATH,
        "location @PATH@ { include /etc/nginx/fastcgi_params; fastcgi_pass @BACKEND@; }",
    ),
    _Row(
        "nginx",
        "fastcgi",
        "kept",
        {"": None},
        "location @PATH@ { include /etc/nginx/fastcgi_params; fastcgi_keep_conn on; fastcgi_pass kept; }",
    ),
    _Row(
        "nginx",
        "fastcgi",
        "unbuffered",
        {"": None},
        """location @PATH@ {
      include /etc/nginx/fastcgi_params;
      fastcgi_request_buffering off;
      fastcgi_buffering off;
      fastcgi_pass @BACKEND@;
    }""",
    ),
    _Row(
        "nginx",
        "fastcgi",
        "split",
        {"/app": None},
        """location @PATH@ {
      include /etc/nginx/fastcgi_params;
      fastcgi_split_path_info ^(@MOUNT@)(/?.*)$;
      fastcgi_param PATH_INFO $fastcgi_path_info;
      fastcgi_pass @BACKEND@;
    }""",
    ),
    # nginx, ngx_http_scgi_module
    _Row(
        "nginx",
        "scgi",
        "stock",
        _NGINX_WHOLE_PATH,
        "location @PATH@ { include /etc/nginx/scgi_params; scgi_pass @BACKEND@; }",
    ),
    _Row(
        "nginx",
        "scgi",
        "unbuffered",
        {"": None},
        """location @PATH@ {
      include /etc/nginx/scgi_params;
      scgi_request_buffering off;
      scgi_buffering off;
      scgi_pass @BACKEND@;
    }""",
    ),
    _Row(
        "nginx",
        "scgi",
        "split",
        {"/app": None},
        """location ~ ^@MOUNT@(?<rest>|/.*)$ {
      include /etc/nginx/scgi_params;
      scgi_param SCRIPT_NAME @MOUNT@;
      scgi_param PATH_INFO $rest;
      scgi_pass @BACKEND@;
    }""",
    ),
    # Apache, mod_proxy_fcgi and mod_proxy_scgi. retry=0: a backend that was away is tried again at once, not after a
    # minute. mod_proxy_scgi refuses a chunked upload with 411.
    _Row(
        "apache2",
        "fastcgi",
        "proxypass",
        _APACHE_WHOLE_PATH,
        'ProxyPass "@PATH@" "@BACKEND@@PATH@" retry=0 flushpackets=on',
    ),
    _Row(
        "apache2",
        "fastcgi",
        "kept",
        {"": "/"},
        'ProxyPass "@PATH@" "@BACKEND@@PATH@" retry=0 flushpackets=on enablereuse=on',
    ),
    _Row(
        "apache2",
        "fastcgi",
        "sethandler",
        {"": "/", "/app": None},  # at the root the first segment of the path becomes SCRIPT_NAME
        """<Location "@PATH@">
  SetHandler "proxy:@BACKEND@"
</Location>""",
    ),
    _Row(
        "apache2",
        "scgi",
        "proxypass",
        _APACHE_WHOLE_PATH,
        'ProxyPass "@PATH@" "@BACKEND@@PATH@" retry=0 flushpackets=on',
    ),
    # Apache starts the application: mod_fcgid on fd 0, mod_cgid once for each request
    _Row(
        "apache2",
        "fastcgi",
        "fcgid",
        _SPLIT,
        """Alias "@PATH@" "@SCRIPT@@SLASH@"
<Location "@PATH@">
  SetHandler fcgid-script
</Location>""",
        transports=("unix",),
        script="app.fcgi",
    ),
    _Row(
        "apache2",
        "cgi",
        "scriptalias",
        _SPLIT,
        'ScriptAlias "@PATH@" "@SCRIPT@@SLASH@"',
        transports=("pipe",),
        script="app.cgi",
    ),
    # lighttpd, mod_fastcgi and mod_scgi. disable-time 0: a backend that was away is tried again at once. Unbuffered, it
    # refuses a chunked upload with 411.
    _Row(
        "lighttpd",
        "fastcgi",
        "stock",
        _LIGHTTPD_PREFIX,
        """fastcgi.server = ( "@PATH@" => ((
  @BACKEND@, "check-local" => "disable", "fix-root-scriptname" => "enable", "disable-time" => 0 )) )""",
    ),
    _Row(
        "lighttpd",
        "fastcgi",
        "unbuffered",
        {"": None},
        """server.stream-request-body = 1
server.stream-response-body = 1
fastcgi.server = ( "@PATH@" => ((
  @BACKEND@, "check-local" => "disable", "fix-root-scriptname" => "enable", "disable-time" => 0 )) )""",
    ),
    _Row(
        "lighttpd",
        "scgi",
        "stock",
        _LIGHTTPD_PREFIX,
        """scgi.server = ( "@PATH@" => ((
  @BACKEND@, "check-local" => "disable", "fix-root-scriptname" => "enable", "disable-time" => 0 )) )""",
    ),
    # lighttpd starts the application
    _Row(
        "lighttpd",
        "fastcgi",
        "spawned",
        _LIGHTTPD_PREFIX,
        """fastcgi.server = ( "@PATH@" => ((
  "bin-path" => "@SCRIPT@", "socket" => "@FOLDER@/spawned.sock", "max-procs" => 1,
  "check-local" => "disable", "fix-root-scriptname" => "enable" )) )""",
        transports=("unix",),
        script="app.fcgi",
    ),
    _Row(
        "lighttpd",
        "cgi",
        "alias",
        _SPLIT,
        """alias.url = ( "@PATH@" => "@SCRIPT@@SLASH@" )
cgi.assign = ( "" => "" )""",
        transports=("pipe",),
        script="app.cgi",
    ),
    # HAProxy, which knows FastCGI alone
    _Row(
        "haproxy",
        "fastcgi",
        "stock",
        _HAPROXY_WHOLE_PATH,
        """backend application
  use-fcgi-app application
  server one @BACKEND@ proto fcgi

fcgi-app application
  docroot @FOLDER@/htdocs""",
    ),
    _Row(
        "haproxy",
        "fastcgi",
        "split",
        _HAPROXY_PREFIX,
        """backend application
  use-fcgi-app application
  server one @BACKEND@ proto fcgi

fcgi-app application
  docroot @FOLDER@/htdocs
  path-info ^(@MOUNT@)(/.*)?$
  pass-header Authorization""",
        transports=("unix",),
    ),
    _Row(
        "haproxy",
        "fastcgi",
        "multiplexed",
        {"": "/"},
        """backend application
  use-fcgi-app application
  http-reuse always
  server one @BACKEND@ proto fcgi

fcgi-app application
  docroot @FOLDER@/htdocs
  option get-values
  option mpxs-conns
  option max-reqs 100""",
        transports=("unix",),
    ),
]


def _expand(row: _Row) -> Iterator[Configuration]:
    for transport in row.transports:
        for mount, mount_option in row.mounts.items():
            yield Configuration(
                id="-".join((row.server, row.protocol, row.name, transport, mount.strip("/") or "root")),
                server=row.server,
                protocol=row.protocol,
                transport=transport,
                mount=mount,
                mount_option=mount_option,
                script=row.script,
                site=row.site,
            )


#: Every configuration; ``str()`` of one is its id.
CONFIGURATIONS: list[Configuration] = [configuration for row in _ROWS for configuration in _expand(row)]
