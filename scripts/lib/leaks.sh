# shellcheck shell=bash
# What is done to the hosts of a VPN, and what is counted. The founder sends to ada's address in the VPN, TARGET; each attack sets RESULT.
# shellcheck disable=SC2034  # the script uses what is set here

ATTACKS=(kill route neighbour)
declare -A ATTACK_TITLES=(
  [kill]="the sender's daemon is killed | packets that left in clear"
  [route]="a more specific route appears (CVE-2024-3661) | packets that left in clear"
  [neighbour]="a neighbour on the LAN sends to the VPN address | packets that a service there received"
)

COUNT=10000
RATE=2000
LEAK_PORT=7777

# A machine beside ada on a LAN, which knows where ada's address in the VPN can be reached.
add_neighbour() {
  add_namespace neighbour
  ip link add lan0 netns "$(ns ada)" type veth peer name lan0 netns "$(ns neighbour)"
  ip -n "$(ns ada)" addr add 192.0.2.1/24 dev lan0
  ip -n "$(ns neighbour)" addr add 192.0.2.2/24 dev lan0
  ip -n "$(ns ada)" link set lan0 up
  ip -n "$(ns neighbour)" link set lan0 up
}

# start_victim CONTESTANT: as its manual says, nothing more.
start_victim() {
  if [ "$1" = p2plus ]; then start_contestant aes; else start_contestant "$1"; fi
  ip -n "$(ns neighbour)" route add "$TARGET/32" via 192.0.2.1
}

end_victim() {
  if [ "$1" = p2plus ]; then
    forget_network
  else
    stop_wireguard_go
  fi
}

# send_from NODE: COUNT packets to TARGET.
send_from() { in_ns "$1" "$LIBRARY/send_paced.pl" $RATE $((COUNT / RATE)) $LEAK_PORT "$TARGET" >"$WORK/sent"; }

# in_clear NAME → packets of the capture that go to TARGET as everybody can read
in_clear() { packets "$1" "dst host $TARGET"; }

# kill_sender CONTESTANT: the way a crash or the kernel out of memory does it.
kill_sender() {
  local pid=${TUNNELS[0]}
  if [ "$1" = p2plus ]; then unset "DAEMONS[founder]"; else TUNNELS=("${TUNNELS[1]}"); fi
  kill -KILL "$pid"
  # Waited for in silence, or the shell tells of its end.
  wait "$pid" 2>/dev/null || true
}

attack_kill() {
  start_capture leak router to-founder "udp port $LEAK_PORT"
  kill_sender "$1"
  send_from founder
  end_capture leak
}

attack_route() {
  ip -n "$(ns founder)" route add "$TARGET/32" via 198.18.1.1
  start_capture leak router to-founder "udp port $LEAK_PORT"
  send_from founder
  end_capture leak
}

# The observer has seen all when it has seen what comes last.
end_capture() {
  in_ns founder "$LIBRARY/send_paced.pl" 1 1 $LEAK_PORT 198.18.1.1 >"$WORK/sent"
  wait_until 10 "the capture sees the last packet" last_was_seen "$1"
  RESULT=$(in_clear "$1")
  stop_capture "$1"
}

last_was_seen() { [ "$(packets "$1" "dst host 198.18.1.1")" != 0 ]; }

attack_neighbour() {
  ip netns exec "$(ns ada)" "$LIBRARY/count_datagrams.pl" "$TARGET" $LEAK_PORT $((COUNT / RATE + 2)) >"$WORK/counted" &
  local counter=$!
  wait_until 5 "the service at $TARGET" listens "$TARGET:$LEAK_PORT"
  send_from neighbour
  wait "$counter"
  RESULT=$(cat "$WORK/counted")
}

listens() { in_ns ada ss -Hlun | grep -qF "$1"; }
