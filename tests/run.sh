#!/usr/bin/env bash
# Sets up .venv if needed, lints, and runs the tests. Arguments go to pytest: tests/run.sh -k identity
# With --newest in front, in .venv-newest, with the newest torch and MuJoCo that pip finds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck disable=SC1091 # it is followed with --external-sources
. tools/install.sh
if [[ ${1:-} == --newest ]]; then
    shift
    venv=.venv-newest
    mkdir -p "$venv"
    # Not the pinned ones first: MuJoCo 4 cannot be installed over MuJoCo 3.
    { echo torch && echo mujoco && grep -hvE '^(torch|mujoco|-r)' requirements.txt tests/requirements.txt; } > "$venv/newest.txt"
    install "$venv/newest.txt"
else
    install requirements.txt tests/requirements.txt
fi

"$venv"/bin/ruff check .
# Text is read and written as UTF-8, whatever the locale is.
"$venv"/bin/ruff check --preview --select PLW1514 ./*.py betas plots study tools
"$venv"/bin/ruff format --check .
"$venv"/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
if command -v shellcheck > /dev/null; then
    shellcheck --external-sources .ci/run ./*.sh tests/*.sh tools/*.sh
else
    echo "tests/run.sh: shellcheck is not installed, so the shell scripts are not linted"
fi
# One process more than cores, since many tests wait for what they started.
"$venv"/bin/python -m pytest tests study/tests --numprocesses $(($(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder "$@"
