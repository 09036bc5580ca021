#!/usr/bin/env bash
# Attacks a VPN's host and counts what leaves it in clear, and what gets in: P2Plus beside wireguard-go, both real programs in
# network namespaces joined by a router.
#
#   scripts/leak-matrix.sh            both, as a table
#   scripts/leak-matrix.sh p2plus     only one: p2plus or wireguard-go
#
# As root it does everything; as a user it builds as the user and calls sudo. P2PLUS_BIN names a program built before.
# It installs the Debian packages that it needs, starts no system service, and removes what it made, also on Ctrl-C.
# It fails when P2Plus leaks anything.
# shellcheck disable=SC2153,SC2034  # what the parts in lib/ set and use, shellcheck does not see from here
set -Eeuo pipefail
LIBRARY=$(cd "$(dirname "$0")" && pwd)/lib
for part in common net nodes capture bench/contestants leaks; do
  # shellcheck source=/dev/null
  source "$LIBRARY/$part.sh"
done

usage() {
  sed -n '5,6s/^# *//p' "$0" >&2
  exit 2
}

case ${1:-both} in
  both) ATTACKED=(p2plus wireguard-go) ;;
  p2plus | wireguard-go) ATTACKED=("$1") ;;
  *) usage ;;
esac

# Whatever ends the script comes here: clean first, so that the verdict is the last line.
finish() {
  local status=$?
  begin_end
  if [ $status != 0 ]; then tail -n 12 "$WORK"/nodes/*/*.log "$WORK"/*.log >&2; fi
  net_down
  forget_wireguard_sockets
  rm -rf "$WORK"
  if [ $status = 0 ]; then
    echo "LEAK MATRIX DONE in $(elapsed) s"
  else
    echo "LEAK MATRIX FAILED"
    exit 1
  fi
}

prepare_machine() {
  as_root "$LIBRARY/packages.sh" build leaks
  need_kernel
  if [ -z "${P2PLUS_BIN:-}" ]; then
    P2PLUS_BIN=$(build_release)
  fi
  [ -x "$P2PLUS_BIN" ] || { echo "P2PLUS_BIN=$P2PLUS_BIN is no program" >&2; return 1; }
  P2PLUS_BIN=$(realpath "$P2PLUS_BIN")
}

attack_everybody() {
  local contestant attack
  for contestant in "${ATTACKED[@]}"; do
    for attack in "${ATTACKS[@]}"; do
      net_up
      add_neighbour
      start_victim "$contestant"
      "attack_$attack" "$contestant"
      RESULTS[$contestant $attack]=$RESULT
      note "$(printf '%-14s %-12s %6d of %d' "$contestant" "$attack" "$RESULT" "$COUNT")"
      end_victim "$contestant"
      net_down
    done
  done
}

show_table() {
  local attack contestant
  printf '\n| attack | counted, of %d |' "$COUNT"
  printf ' %s |' "${ATTACKED[@]}"
  printf '\n|---|---|'
  for contestant in "${ATTACKED[@]}"; do printf -- '--:|'; done
  echo
  for attack in "${ATTACKS[@]}"; do
    printf '| %s |' "${ATTACK_TITLES[$attack]}"
    for contestant in "${ATTACKED[@]}"; do printf ' %d |' "${RESULTS[$contestant $attack]}"; done
    echo
  done
  echo
}

# P2Plus has to keep what it promises; what others do is shown.
judge() {
  local attack
  for attack in "${ATTACKS[@]}"; do
    if [ "${RESULTS[p2plus $attack]:-0}" != 0 ]; then
      echo "P2Plus leaked: $attack" >&2
      return 1
    fi
  done
}

prepare_machine
if [ "$EUID" != 0 ]; then
  exec sudo P2PLUS_BIN="$P2PLUS_BIN" "$0" "$@"
fi
PREFIX=p2leak$$
NODES=(founder ada)
WIREGUARD_GO=$(command -v wireguard-go)
declare -A RESULTS=()
WORK=$(mktemp -d /tmp/p2plus-leaks.XXXXXX)
trap finish EXIT
trap 'exit 130' INT TERM HUP
attack_everybody
show_table
judge
