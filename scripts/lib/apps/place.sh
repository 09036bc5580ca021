# shellcheck shell=bash
# A place is a namespace whose programs have a host name and a /run of their own, so that daemons whose sockets have fixed paths (D-Bus, avahi, sshd,
# wireguard-go) run there as on a machine of their own. Needs net.sh, nodes.sh and servers.sh.

# make_place NAME: for a namespace that is there.
make_place() { mkdir -p "$WORK/places/$1/run"; }

# What goes before a command: `ip netns exec` gives it mounts of its own, which end with it. The process id stays the command's own.
settle() {
  # shellcheck disable=SC2016  # expanded in the place
  SETTLE=(unshare --uts sh -c 'mount --bind "$0/run" /run && echo "${0##*/}" >/proc/sys/kernel/hostname && exec "$@"' "$WORK/places/$1")
}

# at PLACE COMMAND…
at() {
  settle "$1"
  in_ns "$1" "${SETTLE[@]}" "${@:2}"
}

# serve_at PLACE NAME COMMAND…: likewise in the background; its output goes to $WORK/NAME.log.
serve_at() {
  settle "$1"
  serve "$1" "$2" "${SETTLE[@]}" "${@:3}"
}

digest() { sha256sum "$1" | cut -d ' ' -f 1; }

# same_file MADE GOT: prints size and digest; fails unless both are equal.
same_file() {
  local made got
  made=$(digest "$1") got=$(digest "$2")
  echo "$(stat -c %s "$2") bytes, sha256 ${got:0:16}…"
  [ "$made" = "$got" ] || { note "$2 is not what was sent: $got, not $made"; return 1; }
}

# same WHAT FOUND WANTED
same() { [ "$2" = "$3" ] || { note "$1 is \`$2\`, not \`$3\`"; return 1; }; }

# timed COMMAND… → milliseconds that it took; its own output goes to $WORK/timed.
timed() {
  local began
  began=$(now_ms)
  "$@" >"$WORK/timed" 2>&1 || { tail -n 5 "$WORK/timed" >&2; return 1; }
  echo $(($(now_ms) - began))
}

# dropped NODE REASON → how many packets and frames the node's daemon dropped for it
dropped() { cli "$1" status --json | jq -e ".data.drops.$2 // 0"; }

# with PACKAGE…: says which versions did it.
with() {
  local said
  # shellcheck disable=SC2016  # dpkg-query's own names
  said=$(dpkg-query -W -f '${Package} ${Version}, ' "$@")
  note "with ${said%, }"
}
