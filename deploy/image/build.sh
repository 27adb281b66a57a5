#!/usr/bin/env bash
# Puts tenterhook, with the packages that requirements/main.txt names by hash, into a folder of its own.
#
#   deploy/image/build.sh TARGET
#
# The first stage of deploy/image/Dockerfile, and what tests/e2e/test_image.py runs where there is no container engine.
# A virtual environment knows its path: TARGET has to be where it will run. PYTHON chooses the interpreter.
set -euo pipefail

target=${1:?usage: build.sh TARGET}
python=${PYTHON:-python3}
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Tools, which do not come along.
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --require-hashes \
    -r "$source/requirements/uv.txt"

# A copy, since building a wheel leaves folders behind, and takes up those that lie there.
mkdir "$work/source"
for each in pyproject.toml README.md requirements schemas streams services tenterhook; do
    cp -r "$source/$each" "$work/source/"
done
"$work/tools/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --wheel-dir "$work/wheels" "$work/source"

# Without pip: nothing in the image installs anything. Compiled here, since nothing can be written there.
"$python" -m venv --without-pip "$target"
install() {
    "$work/tools/bin/uv" pip install --quiet --python "$target/bin/python" --compile-bytecode --link-mode copy "$@"
}
install --only-binary :all: --require-hashes -r "$source/requirements/main.txt"
install --no-deps --no-index "$work"/wheels/tenterhook-*.whl
rm -f "$target/.lock"  # uv's, which anybody could write to
cp "$source/deploy/image/healthy.py" "$target/healthy.py"
"$target/bin/tenterhook" --version >/dev/null
