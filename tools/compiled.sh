#!/bin/sh
# Builds the wheel with the compiled codec, unpacks it into a folder, and runs the tests of the protocols against it.
# Sets up all it needs but a C compiler.
#
#   tools/compiled.sh FOLDER [options of pytest]    afterwards PYTHONPATH=FOLDER is the compiled package
set -eu
into=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
. tools/venv.sh
ensure_venv test
python=$(cd "$venv/bin" && pwd)/python
"$python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt mypy setuptools

wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
  --no-build-isolation --wheel-dir "$wheels" .
"$python" -m zipfile -e "$wheels"/gateways-*.whl "$into"
cp -R tests fuzz tools docs pyproject.toml "$into"

cd "$into"
"$python" - <<'PYTHON'
import sys
from importlib import import_module
from tools.compiled import MODULES

for path in MODULES:
    module = import_module(path.removesuffix(".py").replace("/", "."))
    if not module.__file__.endswith(".so"):
        sys.exit(f"not compiled: {module.__file__}")
PYTHON
"$python" -m pytest -q -p no:cacheprovider "$@" \
  tests/fastcgi tests/scgi tests/captures tests/cgi/test_wire.py \
  tests/model/test_environ.py tests/model/test_hostile_environ.py tests/model/test_quick_roads.py tests/model/dialects
