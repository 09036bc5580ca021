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
for part in common net nodes run servers by_name capture steps places revocation; do
  # shellcheck source=/dev/null
  source "$LIBRARY/$part.sh"
done

usage() {
  sed -n '5,6s/^# *//p' "$0" >&2
  exit 2
}

# shellcheck disable=SC2034  # run.sh reads them
PACKAGES=(demo) ENDS=(forget_resolv_conf)
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

begin DEMO demo "${ARGUMENTS[@]}"
doing "three namespaces joined by a router"
net_up
if [ "$RUNS" = 0 ]; then show_everything; else repeat_revocation; fi
