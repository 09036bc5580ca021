# shellcheck shell=bash
# Network namespaces: each node in its own, joined by a router that sees every datagram between them.
#
#     founder 198.18.1.2 ──┐
#     ada     198.18.2.2 ──┤ router 198.18.N.1, 2001:db8:N::1
#     ben     198.18.3.2 ──┘
#
# Needs PREFIX, unique to the run.

NODES=(founder ada ben)

ns() { echo "$PREFIX-$1"; }

# in_ns NODE COMMAND…: in the foreground. In the background, `exec ip netns exec` keeps the process id the command's own.
in_ns() { ip netns exec "$(ns "$1")" "${@:2}"; }

underlay4() { echo "198.18.$1.2"; }

# number NODE → 1, 2, 3
number() {
  local at
  for at in "${!NODES[@]}"; do
    if [ "${NODES[$at]}" = "$1" ]; then echo $((at + 1)); fi
  done
}

net_up() {
  local node
  add_namespace router
  in_ns router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  for node in "${NODES[@]}"; do
    add_namespace "$node"
    plug "$node" "$(number "$node")"
  done
}

add_namespace() {
  ip netns add "$(ns "$1")"
  ip -n "$(ns "$1")" link set lo up
  in_ns "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
}

# plug NODE N: a cable from NODE's eth0 to the router, with addresses and default routes.
plug() {
  local node router
  node=$(ns "$1") router=$(ns router)
  ip link add eth0 netns "$node" type veth peer name "to-$1" netns "$router"
  ip -n "$router" addr add "198.18.$2.1/24" dev "to-$1"
  ip -n "$router" addr add "2001:db8:$2::1/64" dev "to-$1" nodad
  ip -n "$router" link set "to-$1" up
  ip -n "$node" addr add "198.18.$2.2/24" dev eth0
  ip -n "$node" addr add "2001:db8:$2::2/64" dev eth0 nodad
  ip -n "$node" link set eth0 up
  ip -n "$node" route add default via "198.18.$2.1"
  ip -n "$node" -6 route add default via "2001:db8:$2::1"
}

namespaces() { ip netns list | awk -v prefix="$PREFIX-" 'index($1, prefix) == 1 { print $1 }'; }

# Ends what runs in our namespaces, and removes them. Nothing outside them is touched.
net_down() {
  local name pids
  for name in $(namespaces); do
    pids=$(ip netns pids "$name")
    # shellcheck disable=SC2086  # a list of process ids
    if [ -n "$pids" ]; then kill $pids 2>/dev/null || true; fi
  done
  for name in $(namespaces); do
    for _ in {1..20}; do
      pids=$(ip netns pids "$name")
      if [ -z "$pids" ]; then break; fi
      sleep 0.1
    done
    # shellcheck disable=SC2086
    if [ -n "$pids" ]; then kill -KILL $pids 2>/dev/null || true; fi
    ip netns del "$name"
  done
}
