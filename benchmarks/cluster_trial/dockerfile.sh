#!/usr/bin/env bash
# Runs a Dockerfile's steps without Docker: RUN lines as they stand, in a folder to which the repository is copied as COPY
# would (.dockerignore left out). FROM is checked by hand; apt-get's packages are installed on this machine, so it wants
# Debian or Ubuntu and root.
#
#   bash benchmarks/cluster_trial/dockerfile.sh recipes/cluster/Dockerfile.cpu FOLDER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
FILE=${1:?a Dockerfile} FOLDER=$(realpath -m "${2:?a folder for the copy}")
mkdir -p "$FOLDER/opt"
git ls-files -z | tar --null -T - -c | tar -x -C "$FOLDER/opt"
# One step a line, continuation lines joined; the image's own tidying is left out on a machine that is not an image.
sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' "$FILE" | sed -n 's/^RUN //p' |
  sed -E 's# && rm -rf /(var/lib/apt/lists/\*|root/\.cache)##' >"$FOLDER/steps"
while IFS= read -r step; do
  echo "== $step"
  (cd "$FOLDER/opt" && env -u AVAR_VENV bash -euo pipefail -c "$step")
done <"$FOLDER/steps"
"$FOLDER/opt/.venv/bin/avar" --help >/dev/null
echo "$FILE: its steps ran, and the command it makes answers"
