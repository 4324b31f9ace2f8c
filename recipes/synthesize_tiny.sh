#!/usr/bin/env bash
# The whole visual-anchored synthesis on a CPU, against the project's own offline teacher (some of its answers and of its
# requests are bad, so that filters and retries have something to do): source -> describe -> reason -> anchor -> export.
#
#   bash recipes/synthesize_tiny.sh                             # outputs/tiny_synthesis/data/{train,val}.parquet
#   ROWS=8000 NAME=large bash recipes/synthesize_tiny.sh        # more questions
#   bash recipes/synthesize_tiny.sh filters.min_anchors=2       # arguments are overrides of the recipe
#   DRY_RUN=1 bash recipes/synthesize_tiny.sh                   # print the checked recipe, ask nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-tiny_synthesis}
OUT=${OUT:-outputs/$NAME}
SEED=${SEED:-0}
ROWS=${ROWS:-4000}
BASE=${BASE:-}                 # the miniature, if there is one already: outputs/tiny/base of avar_tiny.sh
TEACHER_ARGS=${TEACHER_ARGS:-} # for example TEACHER_ARGS="--failing 0.2 --bad 0.3"
PROFILE=cpu
source recipes/stages.sh

RECIPE=(recipes/config/synthesis/tiny.yaml "seed=$SEED" "sources.tiny_world.path=$OUT/source.parquet"
  "filters.tokenizer=${BASE:-$OUT/base}" "$@")
if [ "${DRY_RUN:-0}" = 1 ]; then exec "$PYTHON" -m data_tools.synthesis "${RECIPE[@]}" --dry-run; fi

# The miniature's own tokenizer measures the responses.
if [ -z "$BASE" ]; then
  stage world "$PYTHON" -m data_tools.miniature.data --out "$OUT/world" --seed "$SEED"
  stage base "$PYTHON" -m data_tools.miniature.model --out "$OUT/base" --data "$OUT/world" --seed "$SEED"
fi
stage source "$PYTHON" -m data_tools.miniature.source --out "$OUT/source.parquet" --seed "$SEED" --rows "$ROWS"

URL_FILE=$OUT/teacher.url
rm -f "$URL_FILE"
"$PYTHON" -m data_tools.miniature.teacher --seed "$SEED" --rows "$ROWS" --url-file "$URL_FILE" $TEACHER_ARGS 8>&- &
TEACHER=$!
trap 'kill "$TEACHER" 2>/dev/null || true; unlock_out' EXIT
until [ -f "$URL_FILE" ]; do
  kill -0 "$TEACHER" 2>/dev/null || { echo "the offline teacher did not start" >&2; exit 1; }
  sleep 0.1
done
# Not a `stage`: its journal knows what is done, and the teacher's port differs from run to run.
attended -- "$PYTHON" -m data_tools.synthesis "${RECIPE[@]}" --out "$OUT/data" "endpoints.offline.base_url=$(cat "$URL_FILE")"
echo "cold start from it: SFT_ROWS=$OUT/data/train.parquet bash recipes/avar_tiny.sh"
