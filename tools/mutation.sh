#!/bin/sh
# Mutation testing of the protocol code: breaks it in one small way at a time, and sees whether the tests notice.
# Sets up all it needs, as ./test does. Takes minutes; fails if less than 90 % of the mutants of a file are noticed.
#
#   tools/mutation.sh [--jobs N] [--least PER_CENT] [--only NAME] [FILE...]
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh
ensure_venv test
exec "$venv/bin/python" -m tools.mutation "$@"
