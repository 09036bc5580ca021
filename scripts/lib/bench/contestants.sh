# shellcheck shell=bash
# Who is measured. Each stands between founder and ada: start_NAME brings it up and sets TARGET, ada's address through it, and
# TUNNELS, the process ids whose processor time and memory are its own. stop_contestant ends it, whichever it is.
# shellcheck disable=SC2034  # the measurements use what is set here

CONTESTANTS=(raw wireguard-go aes chacha null)

declare -A TITLES=(
  [raw]="raw veth" [wireguard-go]="wireguard-go" [aes]="P2Plus AES" [chacha]="P2Plus ChaCha" [null]="P2Plus null"
)

WIREGUARD_PORT=51820
WIREGUARD_MTU=1420

start_contestant() {
  TUNNELS=() TARGET=""
  case $1 in
    raw) start_raw ;;
    wireguard-go) start_wireguard_go ;;
    aes) start_p2plus "$P2PLUS_BIN" aes-256-gcm ;;
    chacha) start_p2plus "$P2PLUS_BIN" chacha20-poly1305 ;;
    null) start_p2plus "$P2PLUS_NULL_BIN" auto ;;
  esac
  wait_until 20 "the first ping by $1" in_ns founder ping -q -c 1 -W 1 "$TARGET" >/dev/null
}

stop_contestant() {
  case $1 in
    raw) ;;
    wireguard-go) stop_wireguard_go ;;
    *) forget_network ;;
  esac
}

# The way of the datagrams itself.
start_raw() { TARGET=$(underlay4 "$(number ada)"); }

# start_p2plus PROGRAM CIPHER
start_p2plus() {
  local P2PLUS_BIN=$1 NODE_CONFIG
  printf -v NODE_CONFIG '[tunnel]\ncipher = "%s"' "$2"
  start_founder
  join_by_ticket ada
  meet ada founder
  TARGET=$(overlay ada 4)
  TUNNELS=("${DAEMONS[founder]}" "${DAEMONS[ada]}")
}

# wireguard_device NODE → unique on the machine, because wireguard-go's socket has its name
wireguard_device() { echo "wg$$-${1:0:1}"; }

start_wireguard_go() {
  local node home=$WORK/wireguard
  mkdir -p "$home"
  for node in founder ada; do
    (umask 077 && wg genkey >"$home/$node.key")
    wg pubkey <"$home/$node.key" >"$home/$node.pub"
    # In the background as a command of its own, so that $! is the program.
    ip netns exec "$(ns "$node")" "$WIREGUARD_GO" -f "$(wireguard_device "$node")" >>"$WORK/wireguard-go.log" 2>&1 &
    TUNNELS+=($!)
  done
  wireguard_peer founder ada 10.99.0.1 10.99.0.2
  wireguard_peer ada founder 10.99.0.2 10.99.0.1
  TARGET=10.99.0.2
}

# wireguard_peer NODE PEER ADDRESS PEER'S-ADDRESS: what wg-quick does.
wireguard_peer() {
  local device
  device=$(wireguard_device "$1")
  wait_until 10 "wireguard-go at $1" test -S "/var/run/wireguard/$device.sock"
  in_ns "$1" wg set "$device" listen-port $WIREGUARD_PORT private-key "$WORK/wireguard/$1.key" \
    peer "$(cat "$WORK/wireguard/$2.pub")" endpoint "$(underlay4 "$(number "$2")"):$WIREGUARD_PORT" allowed-ips "$4/32"
  ip -n "$(ns "$1")" addr add "$3/24" dev "$device"
  ip -n "$(ns "$1")" link set "$device" mtu $WIREGUARD_MTU up
}

stop_wireguard_go() {
  local pid
  kill "${TUNNELS[@]}"
  for pid in "${TUNNELS[@]}"; do wait_until 10 "wireguard-go stops" process_ended "$pid"; done
  forget_wireguard_sockets
}

forget_wireguard_sockets() { rm -f "/var/run/wireguard/$(wireguard_device founder).sock" "/var/run/wireguard/$(wireguard_device ada).sock"; }
