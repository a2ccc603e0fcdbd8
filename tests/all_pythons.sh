#!/usr/bin/env bash
# Run the suite on each Python from 3.11 to 3.13 that this machine has, each in a virtual environment of its own.
# Used by `make test-all-pythons`.
set -uo pipefail

find_python() { # VERSION: print an interpreter of that version that works; a version manager's shim may not
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if "$candidate" -c "import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

failed=() passed=()
for version in 3.11 3.12 3.13; do
    python=$(find_python "$version")
    if [[ -z $python ]]; then
        echo "Python $version: not found, left out"
        continue
    fi
    echo "Python $version: $python"
    if make --no-print-directory test VENV=".venv-py$version" PYTHON="$python"; then
        passed+=("$version")
    else
        failed+=("$version")
    fi
done

echo "passed on: ${passed[*]:-none}; failed on: ${failed[*]:-none}"
[[ ${#passed[@]} -gt 0 && ${#failed[@]} -eq 0 ]]
