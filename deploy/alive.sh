#!/bin/sh
# The health check of a daemon in its container: `alive [MINUTES]`, 3 of them unless said.
#
# A process touches its file while it works (billing/liveness.py); untouched for so many minutes, it
# is unwell. Docker only marks that. So one that stays so for twice as long, which is longer than any
# request, is killed here, and `restart:` starts it anew; what it had sent is asked about then.
set -eu
minutes=${1:-3}
file=${MAEWOL_LIVENESS_FILE:-/tmp/alive}
touched_within() { [ -n "$(find "$file" -mmin "-$1")" ]; }

# Read before it is found old: then it is the number of whoever let it grow old.
number=$(cat "$file")
touched_within "$minutes" && exit 0
echo "alive: nothing for $minutes minutes" >&2
touched_within $((2 * minutes)) || kill -KILL "$number"
exit 1
