# shellcheck shell=bash
# What a hub costs that does nothing: founder with many members, real daemons without interfaces in one namespace, each of which came
# in through it and had a session with it. P2Plus alone: the figure is what its own timers and its gossip cost.
# shellcheck disable=SC2034  # nodes.sh and measure.sh use what is set here

# Members that come in at a time.
CROWD_BATCH=10

# measure_crowd MEMBERS SETTLE SECONDS: a member that came in a moment ago is not idle yet, its connections with the hub end after 75 s.
measure_crowd() {
  local ticket member members=() before NODE_CONFIG=""
  start_founder
  TUNNELS=("${DAEMONS[founder]}")
  ticket=$(cli founder invite --needs-approval --endpoint "$(underlay4 "$(number founder)"):4647" 2>>"$WORK/nodes/founder/invite.log")
  for ((member = 1; member <= $1; member++)); do
    members+=("member-$member")
    if [ ${#members[@]} = $CROWD_BATCH ] || [ "$member" = "$1" ]; then
      bring_in "$ticket" "${members[@]}"
      members=()
    fi
  done
  sleep "$2"
  before=$(tunnel_seconds)
  sleep "$3"
  record crowd idle_percent "$(awk "BEGIN { print ($(tunnel_seconds) - $before) / $3 * 100 }")"
  record crowd rss_mib "$(resident_mib)"
  record crowd members "$1"
  record crowd sessions "$(cli founder peers --json | jq '[.data[] | select(.session)] | length')"
  forget_network
}

# bring_in TICKET MEMBER…: the founder admits them by their keys, they run in ada's namespace, and have a session with it. As guests,
# whose places are few, they would wait for each other.
bring_in() {
  local member words
  for member in "${@:2}"; do
    make_node "$member"
    cli "$member" join "$1" --name "$member" --no-start >"$WORK/nodes/$member/join.log"
    read -ra words <<<"$(sed -n 's/.* \(authorize .*\)/\1/p' "$WORK/nodes/$member/join.log")"
    cli founder "${words[@]}" >"$WORK/nodes/$member/authorize.log"
    launch_daemon "$member" ada --no-device
  done
  for member in "${@:2}"; do cli "$member" wait --for peer=founder --timeout 30 >/dev/null; done
}
