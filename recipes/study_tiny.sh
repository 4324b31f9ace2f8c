#!/usr/bin/env bash
# The smallest study, recipes/studies/tiny.yaml, and its report: arms x seeds of the miniature, a few steps each.
#
#   bash recipes/study_tiny.sh                                 # ends with the path of its page
#   STUDY=recipes/studies/mine.yaml bash recipes/study_tiny.sh # another study; arguments are those of `avar study`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STUDY=${STUDY:-recipes/studies/tiny.yaml}
recipes/setup.sh
AVAR=${AVAR_VENV:-$PWD/.venv}/bin/avar
"$AVAR" study "$STUDY" "$@"
"$AVAR" study report "$STUDY"
