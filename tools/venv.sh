# Sourced by ./demo, ./test and .ci/run: makes the private environment that they run in.
#
#   ensure_venv EXTRAS    EXTRAS as in pyproject.toml, comma-separated, or "" for the package alone
#
# The environment is .venv in the project folder, made with python3. PYTHON names another Python, GATEWAYS_VENV another
# folder. Nothing is installed again until pyproject.toml, constraints.txt or the Python has changed.
# Call it with the project folder as the working directory.

ensure_venv() {
  extras=$1
  base=${PYTHON:-python3}
  venv=${GATEWAYS_VENV:-.venv}

  if ! command -v "$base" >/dev/null 2>&1; then
    echo "gateways needs Python 3.11 or later, and there is no $base here." >&2
    echo "Debian and Ubuntu: apt-get install python3 python3-venv    macOS: brew install python3" >&2
    exit 1
  fi
  version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "gateways needs Python 3.11 or later; $base is $version." >&2
    echo "Install a newer one and name it, for example: PYTHON=python3.12 $0" >&2
    exit 1
  fi

  stamp=$venv/gateways-installed-${extras:-core}
  wanted="$version $(pwd) $(cat pyproject.toml constraints.txt | cksum)"
  if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    return
  fi

  if ! "$base" -c 'import ensurepip' 2>/dev/null; then
    echo "$base has no venv module. Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
  fi
  echo "Installing into $venv (Python $version) ..." >&2
  # A new environment, unless this one already has the same Python: then only what is missing is added.
  if [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != "$version" ]; then
    if [ -d "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
      echo "$venv is a folder with something else in it; name another one with GATEWAYS_VENV." >&2
      exit 1
    fi
    "$base" -m venv --clear "$venv"
  fi
  # The build backend comes first and from the constraints as well: a build in isolation would fetch the newest.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt hatchling
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
    --no-build-isolation --editable ".${extras:+[$extras]}"
  printf '%s\n' "$wanted" >"$stamp"
}
