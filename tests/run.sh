#!/usr/bin/env bash
# Sets up .venv if needed, lints, and runs the tests. Arguments go to pytest: tests/run.sh -k identity
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# For 3.11 to 3.14 all packages in requirements.txt have wheels, for newer ones perhaps, as in benchmark.sh.
version=$(python3 --version 2>&1) || true
version=${version##*$'\n'}
case "$version" in
    "Python 3."1[1-4].*) ;;
    "Python 3."1[5-9]* | "Python 3."[2-9][0-9]* | "Python "[4-9]*)
        echo "tests/run.sh: requirements.txt is for Python 3.11 to 3.14 and may not install with $version" >&2
        ;;
    *)
        echo "tests/run.sh: needs Python 3.11 or newer as python3, not $version" >&2
        exit 2
        ;;
esac
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    echo "tests/run.sh: needs Python's venv module: on Debian and Ubuntu, apt-get install python3-venv" >&2
    exit 2
fi

# Installs again when the requirements have changed since.
stamp=.venv/installed-for-tests
if ! cat requirements.txt tests/requirements.txt | cmp --silent - "$stamp"; then
    echo "tests/run.sh: installing into .venv"
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
    cat requirements.txt tests/requirements.txt > "$stamp"
fi

.venv/bin/ruff check .
# Text is read and written as UTF-8, whatever the locale is.
.venv/bin/ruff check --preview --select PLW1514 ./*.py betas plots study tools
.venv/bin/ruff format --check .
.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
if command -v shellcheck > /dev/null; then
    shellcheck .ci/run ./*.sh tests/*.sh
else
    echo "tests/run.sh: shellcheck is not installed, so the shell scripts are not linted"
fi
# One process more than cores, since many tests wait for what they started.
.venv/bin/python -m pytest tests study/tests --numprocesses $(($(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder "$@"
