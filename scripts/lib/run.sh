# shellcheck shell=bash
# How a script runs that shows or measures something in network namespaces: whoever calls builds, the rest is root's, one step after
# the other, and whatever ends it leaves nothing behind. Needs common.sh, net.sh and nodes.sh. The script says before `begin`:

# Sets of Debian packages, besides what building takes.
PACKAGES=()
# Variables that root gets from whoever calls.
KEPT=(P2PLUS_BIN)
# Functions that undo what a script made outside its namespaces and its folder.
ENDS=()
STEP="preparation"

# What is built before root takes over. A script that needs more has its own.
build_programs() {
  P2PLUS_BIN=${P2PLUS_BIN:-$(build_release)}
  [ -x "$P2PLUS_BIN" ] || { echo "P2PLUS_BIN=$P2PLUS_BIN is no program" >&2; return 1; }
  P2PLUS_BIN=$(realpath "$P2PLUS_BIN")
}

# begin TITLE TAG ARGUMENT…: TITLE stands in the verdict, TAG in the names of namespaces and of the folder; the arguments are the script's.
begin() {
  local name kept=()
  TITLE=$1
  # shellcheck disable=SC2034  # net.sh names its namespaces by it
  PREFIX=p2$2$$
  need_root_or_sudo
  trap finish EXIT
  trap 'STEP="$STEP (interrupted)"; exit 130' INT TERM HUP
  as_root "$LIBRARY/packages.sh" build "${PACKAGES[@]}"
  need_kernel
  build_programs
  if [ "$EUID" != 0 ]; then
    for name in "${KEPT[@]}"; do kept+=("$name=${!name:-}"); done
    trap - EXIT INT TERM HUP
    exec sudo env "${kept[@]}" "$LIBRARY/../$(basename "$0")" "${@:3}"
  fi
  WORK=$(mktemp -d "/tmp/p2plus-$2.XXXXXX")
  chmod 755 "$WORK"
  start_clock
}

# doing DESCRIPTION: what the verdict names should it fail.
doing() { STEP=$*; }

# step FUNCTION DESCRIPTION…: one line when it begins, its time when it is done; all daemons must have outlived it.
step() {
  local started
  doing "${@:2}"
  started=$(now_ms)
  printf '%8s s  %s\n' "$(seconds $((started - BEGAN)))" "$STEP"
  "$1"
  daemons_live
  note "done in $(seconds $(($(now_ms) - started))) s"
}

# Whatever ends the script comes here: clean first, so that the verdict is the last line.
finish() {
  local status=$? undo
  begin_end
  if [ $status != 0 ] && [ -n "${WORK:-}" ]; then
    show_logs
    daemons_live
  fi
  net_down
  for undo in "${ENDS[@]}"; do "$undo"; done
  if [ -n "${WORK:-}" ]; then rm -rf "$WORK"; fi
  if [ $status = 0 ]; then
    echo "$TITLE PASSED in $(elapsed) s"
  else
    echo "$TITLE FAILED: $STEP"
    exit 1
  fi
}

show_logs() {
  local log
  for log in "$WORK"/nodes/*/*.log "$WORK"/*.log "$WORK"/*/log; do
    [ -s "$log" ] || continue
    echo "--- last lines of ${log#"$WORK"/}"
    tail -n 12 "$log"
  done >&2
}
