# shellcheck shell=bash
# The measurements of one contestant, from founder to TARGET at ada. Each load is bounded by its own seconds and by `timeout`.
# Needs TUNNELS, SECONDS_TCP, SECONDS_MORE, PINGS, RATE_STEPS, SECONDS_RATE, SMALL_PACKETS, ROUND, MODE and RESULTS.

IPERF_PORT=5201
RATE_PORT=5202
# Bytes of a small packet's payload, and what may be lost at a rate that counts.
RATE_LEN=64
RATE_LOSS=0.01
TICKS=$(getconf CLK_TCK)

# The same congestion control on every machine that has it.
CONTROL=()
if grep -qw cubic /proc/sys/net/ipv4/tcp_available_congestion_control; then CONTROL=(-C cubic); fi

# record NAME METRIC VALUE: one line of JSON. What could not be measured has no value.
record() {
  if [ -z "$3" ]; then return; fi
  printf '{"round":%d,"mode":"%s","name":"%s","metric":"%s","value":%s}\n' "$ROUND" "$MODE" "$1" "$2" "$3" >>"$RESULTS"
}

# measure NAME: whatever this mode asks for.
measure() {
  start_contestant "$1"
  in_ns ada iperf3 -s -B "$TARGET" -p $IPERF_PORT >"$WORK/iperf3-server.log" 2>&1 &
  local server=$!
  wait_for_port ada $IPERF_PORT "$TARGET"
  if [ "$MODE" = super ]; then measure_latency "$1"; fi
  measure_tcp "$1" one "$SECONDS_TCP"
  measure_tcp "$1" reverse "$SECONDS_MORE" -R
  measure_tcp "$1" four "$SECONDS_MORE" -P 4
  if [ "$MODE" = super ]; then
    measure_rate "$1"
    record "$1" rss_mib "$(resident_mib)"
  fi
  kill "$server" 2>/dev/null || true
  stop_contestant "$1"
}

# The processor seconds of the tunnel's processes (proc(5): fields 14 and 15 of stat), 0 where there are none.
tunnel_seconds() {
  local pid
  for pid in "${TUNNELS[@]}"; do sed 's/.*) //' "/proc/$pid/stat"; done | awk -v ticks="$TICKS" '{ sum += $12 + $13 } END { print sum / ticks }'
}

# The processor seconds of the whole machine: all of the first line of /proc/stat but idle, waiting and stolen.
machine_seconds() { awk -v ticks="$TICKS" '/^cpu / { print ($2 + $3 + $4 + $7 + $8) / ticks }' /proc/stat; }

# The memory of one end, on average.
resident_mib() {
  local pid
  for pid in "${TUNNELS[@]}"; do sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB$/\1/p' "/proc/$pid/status"; done |
    awk '{ sum += $1 } END { if (NR) print sum / NR / 1024 }'
}

# ping_us COUNT INTERVAL → the times of all answers in microseconds, in order of size
ping_us() {
  { in_ns founder timeout 60 ping -n -i "$2" -c "$1" -W 1 "$TARGET" || true; } |
    sed -n 's/.* time=\([0-9.]*\) ms$/\1/p' | sort -n | awk '{ print $1 * 1000 }'
}

# rank PART → that value of a sorted list, nearest rank; nothing of nothing
rank() { awk -v part="$1" '{ value[NR] = $1 } END { at = int(part * NR); if (at < part * NR) at++; if (NR) print value[at < 1 ? 1 : at] }'; }

measure_latency() {
  ping_us "$PINGS" 0.002 >"$WORK/pings"
  record "$1" rtt_idle_p50_us "$(rank 0.50 <"$WORK/pings")"
  record "$1" rtt_idle_p99_us "$(rank 0.99 <"$WORK/pings")"
}

# measure_tcp NAME one|reverse|four SECONDS ARGUMENT…: with one stream also what it costs, and what a ping beside it takes.
measure_tcp() {
  local tunnel machine gib pinger
  tunnel=$(tunnel_seconds) machine=$(machine_seconds)
  if [ "$2" = one ] && [ "$MODE" = super ]; then
    ping_us $(($3 * 50)) 0.02 >"$WORK/pings" &
    pinger=$!
  fi
  if ! in_ns founder timeout $(($3 + 20)) iperf3 -c "$TARGET" -p $IPERF_PORT -t "$3" "${CONTROL[@]}" -J "${@:4}" >"$WORK/iperf3.json"; then
    note "$1: iperf3 $2: $(jq -r '.error // "no answer"' "$WORK/iperf3.json")"
    return
  fi
  record "$1" "tcp_$2_gbps" "$(jq '.end.sum_received.bits_per_second / 1e9' "$WORK/iperf3.json")"
  if [ "$2" != one ]; then return; fi
  gib=$(jq '.end.sum_received.bytes / 1073741824' "$WORK/iperf3.json")
  record "$1" machine_s_per_gib "$(awk "BEGIN { if ($gib > 0) print ($(machine_seconds) - $machine) / $gib }")"
  if [ ${#TUNNELS[@]} -gt 0 ]; then
    record "$1" tunnel_s_per_gib "$(awk "BEGIN { if ($gib > 0) print ($(tunnel_seconds) - $tunnel) / $gib }")"
  fi
  if [ -n "${pinger:-}" ]; then
    wait "$pinger" || true
    record "$1" rtt_loaded_p50_us "$(rank 0.50 <"$WORK/pings")"
  fi
}

# try_rate RATE → packets a second sent, and received
try_rate() {
  local receiver sent
  in_ns ada "$SMALL_PACKETS" receive "$TARGET:$RATE_PORT" "$(awk "BEGIN { print $SECONDS_RATE + 0.6 }")" >"$WORK/received" &
  receiver=$!
  wait_until 5 "the receiver of small packets" hears ada $RATE_PORT
  sent=$(in_ns founder timeout 20 "$SMALL_PACKETS" send "$TARGET:$RATE_PORT" $RATE_LEN "$1" "$SECONDS_RATE")
  wait "$receiver"
  awk -v seconds="$SECONDS_RATE" -v sent="$sent" '{ print sent / seconds, $1 / seconds }' "$WORK/received"
}

hears() { in_ns "$1" ss -Hlun "sport = :$2" | grep . >/dev/null; }

# arriving RATE → packets a second that arrive; fails when they are fewer than were sent, or than were to be sent
arriving() {
  local sent got
  read -r sent got <<<"$(try_rate "$1")"
  echo "$got"
  awk "BEGIN { exit !($sent >= 0.95 * $1 && $got >= (1 - $RATE_LOSS) * $sent) }"
}

# The highest rate of small packets that arrives: halving the logarithm between two bounds. Each is tried twice: what else the machine
# does may spoil one try, and a rate that was given up is not tried again.
measure_rate() {
  local low=4000 high=1600000 rate got best=0 step
  for ((step = 0; step < RATE_STEPS; step++)); do
    rate=$(awk "BEGIN { print int(sqrt($low * $high)) }")
    if got=$(arriving "$rate") || got=$(arriving "$rate"); then
      low=$rate best=$got
    else
      high=$rate
    fi
  done
  record "$1" udp_kpps "$(awk "BEGIN { print $best / 1000 }")"
}
