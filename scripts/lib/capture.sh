# shellcheck shell=bash
# Captures by tcpdump inside a namespace. A capture that lost a packet proves nothing, so a drop is a failure. What the kernel
# hands over comes in blocks, up to a second late: whoever needs the newest packet waits for it.

declare -A CAPTURES=()

# start_capture NAME NODE INTERFACE [FILTER…]: into $WORK/NAME.pcap, from the moment that this returns.
start_capture() {
  # What one of the same name left would speak for this one.
  rm -f "$WORK/$1.pcap" "$WORK/$1.tcpdump"
  ip netns exec "$(ns "$2")" tcpdump -Z root -i "$3" -n -s 0 -B 65536 -U -w "$WORK/$1.pcap" "${@:4}" \
    2>"$WORK/$1.tcpdump" &
  CAPTURES[$1]=$!
  wait_until 5 "tcpdump on $3 of $2" grep -qs 'listening on' "$WORK/$1.tcpdump"
}

# stop_capture NAME
stop_capture() {
  kill "${CAPTURES[$1]}"
  wait "${CAPTURES[$1]}" 2>/dev/null || true
  unset "CAPTURES[$1]"
  local drops
  drops=$(awk '/dropped by/ { sum += $1; seen = 1 } END { if (seen) print sum }' "$WORK/$1.tcpdump")
  if [ "$drops" != 0 ]; then
    note "the capture $1 dropped ${drops:-an unknown number of} packets"
    return 1
  fi
}

# packets NAME [FILTER…] → how many
packets() { tcpdump -r "$WORK/$1.pcap" -n "${@:2}" 2>/dev/null | wc -l; }

# udp_bytes NAME [FILTER…] → bytes of UDP payload in the packets that pass FILTER, however the kernel put them together
udp_bytes() {
  tcpdump -r "$WORK/$1.pcap" -n -q "${@:2}" 2>/dev/null | awk '/ UDP, length / { sum += $NF } END { print sum + 0 }'
}

# hits NAME TEXT [FILTER…] → in how many places TEXT stands in the packets that pass FILTER
hits() {
  tcpdump -r "$WORK/$1.pcap" -w - "${@:3}" 2>/dev/null | { grep -a -o -F -- "$2" || true; } | wc -l
}

# times NAME → the time of each packet, seconds since 1970 with six decimals
times() { tcpdump -r "$WORK/$1.pcap" -n -tt 2>/dev/null | awk '{ print $1 }'; }
