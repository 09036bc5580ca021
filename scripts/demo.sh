#!/usr/bin/env bash
# Shows P2Plus at work on this one machine: three real daemons in network namespaces joined by a router; web, mail and chat
# through the tunnel, by name too; two LANs that become one; what a listener on the router sees; and how fast a revoked node is cut off.
#
#   scripts/demo.sh            everything
#   scripts/demo.sh --runs N   only the revocation, N times, with p50, p99 and max
#
# As root it does everything; as a user it builds as the user and calls sudo. P2PLUS_BIN names a program built before.
# It installs the Debian packages that it needs, starts no system service, and removes what it made, also on Ctrl-C.
set -Eeuo pipefail
LIBRARY=$(cd "$(dirname "$0")" && pwd)/lib
for part in common net nodes servers by_name capture steps places revocation; do
  # shellcheck source=/dev/null
  source "$LIBRARY/$part.sh"
done

usage() {
  sed -n '5,6s/^# *//p' "$0" >&2
  exit 2
}

ARGUMENTS=("$@")
RUNS=0
while [ $# -gt 0 ]; do
  case $1 in
    --runs) RUNS=${2:-}; shift ;;
    *) usage ;;
  esac
  [[ $RUNS =~ ^[1-9][0-9]*$ ]] || usage
  shift
done

STEP="preparation"

# step FUNCTION DESCRIPTION…: one line when it begins, its time when it is done; all daemons must have outlived it.
step() {
  local started
  STEP=${*:2} started=$(now_ms)
  printf '%8s s  %s\n' "$(seconds $((started - BEGAN)))" "$STEP"
  "$1"
  daemons_live
  note "done in $(seconds $(($(now_ms) - started))) s"
}

# Whatever ends the script comes here: clean first, so that the verdict is the last line.
finish() {
  local status=$?
  begin_end
  if [ $status != 0 ]; then
    show_logs
    daemons_live
  fi
  net_down
  forget_resolv_conf
  rm -rf "$WORK"
  if [ $status = 0 ]; then
    echo "DEMO PASSED in $(elapsed) s"
  else
    echo "DEMO FAILED: $STEP"
    exit 1
  fi
}

show_logs() {
  local log
  for log in "$WORK"/nodes/*/*.log "$WORK"/*.log; do
    [ -s "$log" ] || continue
    echo "--- last lines of ${log#"$WORK"/}"
    tail -n 12 "$log"
  done >&2
}

prepare_machine() {
  as_root "$LIBRARY/packages.sh" build demo
  need_kernel
  if [ -z "${P2PLUS_BIN:-}" ]; then
    P2PLUS_BIN=$(build_release)
  fi
  [ -x "$P2PLUS_BIN" ] || { echo "P2PLUS_BIN=$P2PLUS_BIN is no program" >&2; return 1; }
  P2PLUS_BIN=$(realpath "$P2PLUS_BIN")
}

show_everything() {
  # shellcheck disable=SC2034  # used by the steps
  MARKER=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
  # shellcheck disable=SC2034  # nodes.sh writes it
  NODE_CONFIG=$'[dns]\nbackend = "file"'
  lan_resolver
  step step_founder "the founder makes the network: init, daemon"
  step step_join "ada and ben join, each by a ticket of one line"
  step step_web "web: a real nginx at ada, fetched by ben over IPv4 and IPv6"
  start_capture router router any
  step step_mail "mail: ben sends an attachment to a real SMTP server at ada and reads it by IMAP"
  step step_chat "chat: a line of ben's through a real IRC server at ada to the founder"
  step step_secrecy "secrecy: a 32-byte marker went through the tunnel in mail, chat and web; what did the router see?"
  step step_names "names: ben's mail server finds the founder's by MX, beside a LAN whose resolver lies"
  step step_lan "bridges: a LAN at ada and a LAN at ben become one Ethernet"
  step step_without_founder "the founder stops; ada and ben go on"
  step step_revocation "revocation: ben sends $RATE packets a second to both others and is revoked"
}

repeat_revocation() {
  local run figures=()
  for ((run = 1; run <= RUNS; run++)); do
    step step_revocation_again "revocation, run $run of $RUNS"
    figures+=("$REVOCATION_MS")
  done
  percentiles "${figures[@]}"
}

main() {
  need_root_or_sudo
  # shellcheck disable=SC2034  # net.sh names its namespaces by it
  PREFIX=p2demo$$
  WORK=$(mktemp -d /tmp/p2plus-demo.XXXXXX)
  chmod 755 "$WORK"
  trap finish EXIT
  trap 'STEP="$STEP (interrupted)"; exit 130' INT TERM HUP
  prepare_machine
  if [ "$EUID" != 0 ]; then
    rm -rf "$WORK"
    trap - EXIT INT TERM HUP
    exec sudo env P2PLUS_BIN="$P2PLUS_BIN" "$LIBRARY/../demo.sh" "${ARGUMENTS[@]}"
  fi
  start_clock
  STEP="three namespaces joined by a router"
  net_up
  if [ "$RUNS" = 0 ]; then show_everything; else repeat_revocation; fi
}

main
