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
for part in common net nodes run capture servers by_name bench/contestants leaks leaks/exit leaks/names; do
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

# run.sh reads them
PACKAGES=(leaks) ENDS=(forget_wireguard_sockets forget_resolv_conf)

attack_everybody() {
  local contestant attack
  for contestant in "${ATTACKED[@]}"; do
    for attack in "${ATTACKS[@]}"; do
      doing "$contestant, $attack"
      net_up
      "attack_$attack" "$contestant"
      RESULTS[$contestant $attack]=$RESULT
      note "$(printf '%-14s %-18s %6d of %d' "$contestant" "$attack" "$RESULT" "$COUNT")"
      end_victim "$contestant"
      net_down
      forget_resolv_conf
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
    if [ "${RESULTS[p2plus $attack]:-0}" != 0 ] && [ -z "${UNPROMISED[$attack]:-}" ]; then
      echo "P2Plus leaked: $attack" >&2
      return 1
    fi
  done
}

begin "LEAK MATRIX" leak "$@"
NODES=(founder ada)
WIREGUARD_GO=$(command -v wireguard-go)
declare -A RESULTS=()
attack_everybody
show_table
judge
