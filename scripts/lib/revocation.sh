# shellcheck shell=bash
# How long does a revoked node still get packets through? ben sends 1,000 datagrams a second to each of the others, the founder
# revokes him, he keeps sending; the figure is the last packet that each receiver's device saw, counted from the moment at
# which the command was started.

RATE=1000
REVOKED_PORT=4998
# The promise: cut within 2 s on every reachable node.
REVOCATION_LIMIT_MS=2000

# Sets REVOCATION_MS to the slower of both receivers.
revoke_ben() {
  local started node sender
  for node in founder ada; do
    start_capture "revoke-$node" "$node" "$DEVICE" "udp port $REVOKED_PORT and src host $BEN4"
  done
  ip netns exec "$(ns ben)" "$LIBRARY/send_paced.pl" $RATE 8 $REVOKED_PORT "$FOUNDER4" "$ADA4" >"$WORK/sent" &
  sender=$!
  for node in founder ada; do
    wait_until 5 "$node receives from ben" received_for_a_second "$node"
  done
  started=$EPOCHREALTIME
  cli founder revoke ben >"$WORK/nodes/founder/revoke.log"
  wait_until 15 "the sender ends" process_ended "$sender"
  for node in founder ada; do stop_capture "revoke-$node"; done
  sent_for_three_more_seconds "$started"
  REVOCATION_MS=0
  for node in founder ada; do last_packet "$node" "$started"; done
}

# A little more than a second, so that the last second before the command is whole.
received_for_a_second() { [ "$(packets "revoke-$1")" -ge $((RATE * 3 / 2)) ]; }

# The proof that silence is enforced: the sender was still trying at its rate 3 s after the command.
sent_for_three_more_seconds() {
  local tried
  tried=$(awk -v start="$1" '$1 >= start + 3 && $1 < start + 4.5 { print $2 / 2; exit }' "$WORK/sent")
  if [ -z "$tried" ] || [ "${tried%.*}" -lt $((RATE * 9 / 10)) ]; then
    note "ben did not keep sending: ${tried:-0} datagrams a second"
    return 1
  fi
}

# last_packet NODE STARTED: prints the figure of one receiver and keeps the largest in REVOCATION_MS.
last_packet() {
  local before last
  before=$(times "revoke-$1" | awk -v start="$2" '$1 >= start - 1 && $1 < start' | wc -l)
  last=$(times "revoke-$1" | awk -v start="$2" '{ last = ($1 - start) * 1000 } END { printf "%.0f", (last > 0 ? last : 0) }')
  [[ $before.$last =~ ^[0-9]+\.[0-9]+$ ]]
  note "$1 saw $before packets from ben in the second before, and the last one $last ms after the command started"
  if [ "$before" -lt $((RATE * 9 / 10)) ]; then
    note "that is not the rate that was to be cut"
    return 1
  fi
  if [ "$last" -gt $REVOCATION_LIMIT_MS ]; then
    note "later than $REVOCATION_LIMIT_MS ms"
    return 1
  fi
  if [ "$last" -gt "$REVOCATION_MS" ]; then REVOCATION_MS=$last; fi
}

step_revocation() { revoke_ben; }

# One more run in a fresh network, so that each starts alike.
step_revocation_again() {
  forget_network
  step_founder
  step_join
  revoke_ben
}

# percentiles MILLISECONDS…: nearest rank.
percentiles() {
  printf '%s\n' "$@" | sort -n | awk '
    { value[NR] = $1 }
    function rank(part) { at = int(part * NR); if (at < part * NR) at++; return value[at < 1 ? 1 : at] }
    END { printf "revocation over %d runs: p50 %d ms, p99 %d ms, max %d ms\n", NR, rank(0.50), rank(0.99), value[NR] }'
}
