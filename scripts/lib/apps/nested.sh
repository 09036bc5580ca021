# shellcheck shell=bash
# Tunnels within the tunnel: VXLAN and WireGuard between overlay addresses. Needs place.sh.

NESTED_MB=64
VXLAN_ADA=192.168.88.1 VXLAN_BEN=192.168.88.2
WIREGUARD_ADA=192.168.89.1 WIREGUARD_BEN=192.168.89.2

step_vxlan() {
  local mtu node
  vxlan ada "$ADA4" "$BEN4" $VXLAN_ADA dev "$DEVICE"
  vxlan ben "$BEN4" "$ADA4" $VXLAN_BEN dev "$DEVICE"
  mtu=$(mtu_of ben vx0)
  wait_until 10 "the first ping through VXLAN" in_ns ben ping -q -c 1 -W 1 $VXLAN_ADA >/dev/null
  full_size ben $VXLAN_ADA "$mtu"
  note "VXLAN over $(mtu_of ben "$DEVICE")-byte packets: the kernel gives it MTU $mtu; a ping of that size passes, a byte more does not"
  transfer ben ada $VXLAN_ADA
  for node in ada ben; do ip -n "$(ns "$node")" link del vx0; done
  vxlan ada "$ADA4" "$BEN4" $VXLAN_ADA
  vxlan ben "$BEN4" "$ADA4" $VXLAN_BEN
  mtu=$(mtu_of ben vx0)
  full_size ben $VXLAN_ADA "$mtu"
  note "without \`dev\` its MTU is $mtu: its datagrams leave in fragments, and a ping of that size passes all the same"
  transfer ben ada $VXLAN_ADA
  with iproute2 iperf3
}

# vxlan NODE LOCAL REMOTE ADDRESS OPTION…
vxlan() {
  ip -n "$(ns "$1")" link add vx0 type vxlan id 42 local "$2" remote "$3" dstport 4789 "${@:5}"
  ip -n "$(ns "$1")" addr add "$4/24" dev vx0
  ip -n "$(ns "$1")" link set vx0 up
}

mtu_of() { ip -n "$(ns "$1")" -j link show "$2" | jq '.[0].mtu'; }

# full_size NODE ADDRESS MTU: packets of the MTU pass unfragmented, longer ones are refused by the kernel at once.
full_size() {
  in_ns "$1" ping -q -c 3 -i 0.2 -W 2 -M "do" -s $(($3 - 28)) "$2" >"$WORK/ping"
  if in_ns "$1" ping -q -c 1 -W 1 -M "do" -s $(($3 - 27)) "$2" >"$WORK/ping-long" 2>&1; then note "a longer one passed"; return 1; fi
}

# transfer NODE SERVER ADDRESS: a file by curl that has to be the same there, and what iperf3 measures.
transfer() {
  local took same measured web full
  [ -e "$WORK/nested/file" ] || { mkdir -p "$WORK/nested" && head -c 16M /dev/urandom >"$WORK/nested/file"; }
  serve "$2" http-server /usr/bin/python3 -m http.server --bind "$3" --directory "$WORK/nested" 8000
  web=$!
  serve "$2" iperf3 iperf3 -s -1 -B "$3"
  wait_for_port "$2" 8000 "$3"
  wait_for_port "$2" 5201 "$3"
  full=$(($(no_room "$1") + $(no_room "$2")))
  took=$(timed in_ns "$1" curl -sS --fail --noproxy '*' --max-time 60 -o "$WORK/nested/got" "http://$3:8000/file")
  same=$(same_file "$WORK/nested/file" "$WORK/nested/got")
  in_ns "$1" timeout 60 iperf3 -J -n ${NESTED_MB}M -c "$3" >"$WORK/iperf3.json"
  # The server stops counting when the client says that it is done, so that the last bytes on their way are missing.
  measured=$(jq -er --argjson least $((NESTED_MB << 20)) '.end | select(.sum_sent.bytes >= $least and .sum_received.bytes >= $least * 0.9) |
    "\(.sum_received.bits_per_second / 1e6 | round) Mbit/s, \(.sum_sent.retransmits) segments again of \(.sum_sent.bytes) bytes"' "$WORK/iperf3.json")
  kill "$web"
  wait_until 10 "the web server ends" process_ended "$web"
  full=$(($(no_room "$1") + $(no_room "$2") - full))
  note "curl got $same in $took ms; iperf3: $measured; $full datagrams found a program's socket full"
}

step_wireguard() {
  local node mtu
  mkdir -p "$WORK/wireguard"
  for node in ada ben; do
    (umask 077 && wg genkey >"$WORK/wireguard/$node.key")
    wg pubkey <"$WORK/wireguard/$node.key" >"$WORK/wireguard/$node.pub"
    serve_at "$node" "wireguard-$node" wireguard-go -f wg0
  done
  # What wg-quick sets: the way's MTU less 80.
  mtu=$(($(mtu_of ben "$DEVICE") - 80))
  wireguard ada ben "$BEN4" $WIREGUARD_ADA $WIREGUARD_BEN "$mtu"
  wireguard ben ada "$ADA4" $WIREGUARD_BEN $WIREGUARD_ADA "$mtu"
  wait_until 10 "the first ping through WireGuard" in_ns ben ping -q -c 1 -W 1 $WIREGUARD_ADA >/dev/null
  full_size ben $WIREGUARD_ADA "$mtu"
  note "WireGuard with MTU $mtu, as wg-quick would set it: a ping of that size passes, a byte more does not"
  transfer ben ada $WIREGUARD_ADA
  at ben wg show wg0 | grep "endpoint: $ADA4:51820" >/dev/null
  for node in ada ben; do ip -n "$(ns "$node")" link set wg0 mtu 1420; done
  in_ns ben ping -q -c 3 -i 0.2 -W 2 -M "do" -s 1392 $WIREGUARD_ADA >"$WORK/ping"
  note "with WireGuard's own MTU 1420 its datagrams leave in fragments, and a ping of 1420 bytes passes"
  transfer ben ada $WIREGUARD_ADA
  # What is wireguard-go's own: its socket, of the kernel's default size, is full at times.
  wireguard_moves ada ben "$(underlay4 "$(number ben)")"
  wireguard_moves ben ada "$(underlay4 "$(number ada)")"
  note "the same two beside the overlay, on the bare network:"
  transfer ben ada $WIREGUARD_ADA
  with wireguard-go iperf3
}

# wireguard NODE PEER ENDPOINT ADDRESS PEER'S-ADDRESS MTU
wireguard() {
  wait_until 10 "wireguard-go at $1" test -S "$WORK/places/$1/run/wireguard/wg0.sock"
  at "$1" wg set wg0 listen-port 51820 private-key "$WORK/wireguard/$1.key" \
    peer "$(cat "$WORK/wireguard/$2.pub")" endpoint "$3:51820" allowed-ips "$5/32"
  ip -n "$(ns "$1")" addr add "$4/24" dev wg0
  ip -n "$(ns "$1")" link set wg0 mtu "$6" up
}

# wireguard_moves NODE PEER ENDPOINT
wireguard_moves() { at "$1" wg set wg0 peer "$(cat "$WORK/wireguard/$2.pub")" endpoint "$3:51820"; }

# no_room NODE → datagrams that found the buffer of a program's socket full
no_room() { in_ns "$1" nstat -asz UdpRcvbufErrors | awk '$1 == "UdpRcvbufErrors" { print $2 }'; }
