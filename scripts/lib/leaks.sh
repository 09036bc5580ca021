# shellcheck shell=bash
# What is done to the hosts of a VPN, and what is counted: here where two members talk; in leaks/ with an exit, and with names. Each attack
# starts its victims, the founder and ada, and sets RESULT. TARGET is ada's address in the VPN.
# shellcheck disable=SC2034  # the script uses what is set here

ATTACKS=(kill route neighbour)
declare -A ATTACK_TITLES=(
  [kill]="the sender's daemon is killed | packets that left in clear"
  [route]="a more specific route appears (CVE-2024-3661) | packets that left in clear"
  [neighbour]="a neighbour on the LAN sends to the VPN address | packets that a service there received"
)
# What P2Plus promises nothing about, and what is shown all the same.
declare -A UNPROMISED=()

COUNT=10000
RATE=2000
LEAK_PORT=7777

# start_victim CONTESTANT: as its manual says, nothing more.
start_victim() {
  if [ "$1" = p2plus ]; then start_contestant aes; else start_contestant "$1"; fi
}

end_victim() {
  if [ "$1" = p2plus ]; then
    forget_network
  else
    stop_wireguard_go
  fi
}

# configure NODE TEXT: of a P2Plus daemon that runs.
configure() {
  printf '%s\n' "$2" >>"$WORK/nodes/$1/p2plus.toml"
  cli "$1" reload >/dev/null
}

# send_from NODE ADDRESS…: COUNT packets, to all of them together.
send_from() { in_ns "$1" "$LIBRARY/send_paced.pl" $((RATE / ($# - 1))) $((COUNT / RATE)) $LEAK_PORT "${@:2}" >"$WORK/sent"; }

# kill_daemon CONTESTANT NODE: the way a crash or the kernel out of memory does it.
kill_daemon() {
  local pid at
  if [ "$1" = p2plus ]; then
    pid=${DAEMONS[$2]}
    unset "DAEMONS[$2]"
  else
    at=$(($(number "$2") - 1))
    pid=${TUNNELS[$at]}
    unset "TUNNELS[$at]"
  fi
  kill -KILL "$pid"
  # Waited for in silence, or the shell tells of its end.
  wait "$pid" 2>/dev/null || true
  wait_until 10 "the daemon of $2 ends" process_ended "$pid"
}

# observe FILTER: what passes by the founder's uplink.
observe() { start_capture leak router to-founder "udp port $LEAK_PORT or ($1)"; }

# The observer has seen all when it has seen what comes last. That comes from the router, because the founder may not be able to send anything.
observed_all() {
  in_ns router "$LIBRARY/send_paced.pl" 1 1 $LEAK_PORT "$(underlay4 "$(number founder)")" >"$WORK/sent"
  wait_until 10 "the capture sees the last packet" last_was_seen
}

last_was_seen() { [ "$(packets leak "udp port $LEAK_PORT and dst host $(underlay4 "$(number founder)")")" != 0 ]; }

# send_observed ADDRESS…: the founder sends to them; RESULT is how many of the packets everybody can read.
send_observed() {
  local address filter=""
  for address in "$@"; do filter+=${filter:+ or }"dst host $address"; done
  observe "$filter"
  send_from founder "$@"
  observed_all
  RESULT=$(packets leak "udp port $LEAK_PORT and ($filter)")
  stop_capture leak
}

attack_kill() {
  start_victim "$1"
  kill_daemon "$1" founder
  send_observed "$TARGET"
}

attack_route() {
  start_victim "$1"
  ip -n "$(ns founder)" route add "$TARGET/32" via 198.18.1.1
  send_observed "$TARGET"
}

# A machine beside ada on a LAN.
add_neighbour() {
  add_namespace neighbour
  ip link add lan0 netns "$(ns ada)" type veth peer name lan0 netns "$(ns neighbour)"
  ip -n "$(ns ada)" addr add 192.0.2.1/24 dev lan0
  ip -n "$(ns neighbour)" addr add 192.0.2.2/24 dev lan0
  ip -n "$(ns ada)" link set lan0 up
  ip -n "$(ns neighbour)" link set lan0 up
}

attack_neighbour() {
  add_neighbour
  start_victim "$1"
  # It knows where ada's address in the VPN can be reached.
  ip -n "$(ns neighbour)" route add "$TARGET/32" via 192.0.2.1
  ip netns exec "$(ns ada)" "$LIBRARY/count_datagrams.pl" "$TARGET" $LEAK_PORT $((COUNT / RATE + 2)) >"$WORK/counted" &
  local counter=$!
  wait_until 5 "the service at $TARGET" serves_datagrams "$TARGET:$LEAK_PORT"
  send_from neighbour "$TARGET"
  wait "$counter"
  RESULT=$(cat "$WORK/counted")
}

serves_datagrams() { in_ns ada ss -Hlun | grep -qF "$1"; }
