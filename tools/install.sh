# shellcheck shell=bash
# Makes .venv and installs requirements into it. Sourced by benchmark.sh and tests/run.sh, in the root of the project.
venv=.venv

# Installs the last of these files, which may name the others, unless all are installed. Ends the program if it cannot.
install() { # requirements.txt, or that and tests/requirements.txt
  local version wanted stamp=$venv/installed.txt # the text of the files that were installed
  wanted=$(cat "$@") || exit 2
  case "$(cat "$stamp" 2> /dev/null)" in "$wanted"*) return ;; esac
  # For 3.11 to 3.14 all packages in requirements.txt have wheels, for newer ones perhaps.
  version=$(python3 --version 2>&1) || true
  version=${version##*$'\n'}
  case "$version" in
    "Python 3."1[1-4].*) ;;
    "Python 3."1[5-9]* | "Python 3."[2-9][0-9]* | "Python "[4-9]*)
      echo "requirements.txt is for Python 3.11 to 3.14 and may not install with $version" >&2 ;;
    *) die "requirements.txt needs Python 3.11 or newer as python3, not $version" ;;
  esac
  python3 -c 'import ensurepip, venv' 2> /dev/null ||
    die "cannot make $venv without Python's venv module (Debian and Ubuntu: apt-get install python3-venv)"
  echo "installing ${!#} into $venv (once; some minutes, less if it is there)"
  python3 -m venv "$venv" || die "cannot make $venv, see above"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "${!#}" ||
    die "cannot install ${!#}, see above"
  echo "$wanted" > "$stamp"
}

die() { echo "error: $*" >&2; exit 2; }
