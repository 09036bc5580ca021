# shellcheck shell=bash
# What was measured, for people and for programs. Needs RESULTS and TITLES.

# metric|title|digits behind the point
METRICS=(
  "tcp_one_gbps|TCP one stream, Gb/s|2"
  "tcp_reverse_gbps|TCP reverse, Gb/s|2"
  "tcp_four_gbps|TCP four streams, Gb/s|2"
  "machine_s_per_gib|CPU of all, s/GiB|2"
  "tunnel_s_per_gib|CPU of both ends, s/GiB|2"
  "rtt_idle_p50_us|RTT idle p50, us|0"
  "rtt_idle_p99_us|RTT idle p99, us|0"
  "rtt_loaded_p50_us|RTT loaded p50, us|0"
  "udp_kpps|UDP 64 B, 1000/s|1"
  "rss_mib|memory of one end, MiB|1"
)

# medians → a JSON array of {mode, metric, name, value}
medians() {
  jq -s 'group_by([.mode, .metric, .name]) | map(.[0] * {
    value: (map(.value) | sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2)
  } | del(.round))' "$RESULTS"
}

# print_table MODE NAME…: a line for each metric, with the ratio to wireguard-go in brackets.
print_table() {
  local mode=$1 name header
  shift
  printf -v header '%-26s' "$mode"
  for name in "$@"; do printf -v header '%s%20s' "$header" "${TITLES[$name]}"; done
  printf '\n%s\n' "$header"
  medians | jq -r --arg mode "$mode" '.[] | select(.mode == $mode) | "\(.metric)\t\(.name)\t\(.value)"' |
    awk -F '\t' -v names="$*" -v metrics="$(printf '%s\n' "${METRICS[@]}")" '
      { value[$1, $2] = $3; seen[$1] = 1 }
      END {
        columns = split(names, name, " ")
        rows = split(metrics, row, "\n")
        for (at = 1; at <= rows; at++) {
          split(row[at], metric, "|")
          if (!seen[metric[1]]) continue
          printf "%-26s", metric[2]
          for (column = 1; column <= columns; column++) printf "%20s", cell(metric[1], name[column], metric[3])
          print ""
        }
      }
      function cell(metric, name, digits, base, text) {
        if (!((metric, name) in value)) return "-"
        text = sprintf("%." digits "f", value[metric, name])
        base = value[metric, "wireguard-go"]
        return base > 0 && name != "wireguard-go" ? text sprintf(" %7s", sprintf("(%.2fx)", value[metric, name] / base)) : text "        "
      }'
}

print_crowd() {
  medians | jq -r 'map(select(.name == "crowd") | {(.metric): .value}) | add // empty |
    "\nan idle hub with \(.members) members, \(.sessions) of them in a session: " +
    "\(.idle_percent * 100 | round / 100) % of a core, \(.rss_mib | round) MiB"'
}

# machine and versions, a line each
print_machine() {
  printf 'machine    %s cores, %s, Linux %s\n' "$(nproc)" "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" "$(uname -r)"
  printf 'versions   %s\n' "$(versions)"
}

versions() {
  local all=()
  if [ -n "${P2PLUS_BIN:-}" ]; then all+=("$("$P2PLUS_BIN" -V) $(commit)"); fi
  if [ -n "${WIREGUARD_GO:-}" ]; then all+=("$("$WIREGUARD_GO" --version | head -n 1)"); fi
  all+=("$(iperf3 --version | head -n 1 | cut -d ' ' -f 1,2)")
  printf '%s' "${all[0]}"
  printf ', %s' "${all[@]:1}"
}

commit() { git -C "$REPOSITORY" describe --always --dirty 2>/dev/null || true; }

# write_json FILE: everything, every round.
write_json() {
  medians | jq -n --slurpfile results "$RESULTS" --arg machine "$(print_machine)" \
    '{machine: ($machine | split("\n")), medians: input, results: $results}' >"$1"
}
