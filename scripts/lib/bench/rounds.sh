# shellcheck shell=bash
# Interleaved rounds of a benchmark that compares two things: its arguments, and the medians. Source it after run.sh.

# read_rounds ARGUMENT…: sets ROUNDS and SECONDS_EACH. The script's lines 5 to 7 are its usage.
read_rounds() {
  ROUNDS=5 SECONDS_EACH=5
  while [ $# -gt 0 ]; do
    case $1 in
      --quick) ROUNDS=1 SECONDS_EACH=1 ;;
      --rounds) ROUNDS=${2:-}; shift ;;
      *) rounds_usage ;;
    esac
    [ $# -gt 0 ] && shift
  done
  [[ $ROUNDS =~ ^[1-9][0-9]?$ ]] || rounds_usage
}

rounds_usage() {
  sed -n '5,7s/^# *//p' "$0" >&2
  exit 2
}

# tcp_goodput NODE ADDRESS → Mbit/s from that node
tcp_goodput() {
  in_ns "$1" iperf3 -c "$2" -t "$SECONDS_EACH" -O 1 -J | jq -r '.end.sum_received.bits_per_second / 1e6 | floor'
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

# show_ratio NAME FILE NAME FILE → a line with both medians and what the second has of the first
show_ratio() {
  local one other
  one=$(median <"$2") other=$(median <"$4")
  note "median: $1 $one, $3 $other, ratio $((1000 * other / one / 10)).$((1000 * other / one % 10)) %"
}
