# shellcheck shell=bash
# What every script here needs: the repository, time, cargo, and root for the things that take root. Source it.

export LC_ALL=C
REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

# seconds MILLISECONDS → "12.3"
seconds() { printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# elapsed → the seconds since the script began, or the clock was started anew
elapsed() { seconds $(($(now_ms) - BEGAN)); }
start_clock() { BEGAN=$(now_ms); }
start_clock

# What a script says goes where it was started, wherever the output of the command at hand goes.
exec {TERMINAL}>&1

note() { printf '              %s\n' "$*" >&"$TERMINAL"; }

# What the trap of an end begins with, whatever led there: an interrupted command may have had its output elsewhere, no second Ctrl-C
# stops the cleaning, and no failure does.
begin_end() {
  exec >&"$TERMINAL"
  trap '' INT TERM HUP
  trap - EXIT
  set +e
}

as_root() {
  if [ "$EUID" = 0 ]; then "$@"; else sudo "$@"; fi
}

need_root_or_sudo() {
  [ "$EUID" = 0 ] || command -v sudo >/dev/null || {
    echo "This needs root: run it as root, or install sudo." >&2
    exit 1
  }
}

# The cargo of whoever owns the toolchain: with `sudo scripts/…` that is the caller, who then owns target/ as well.
cargo() {
  local cargo
  if cargo=$(type -P cargo) || cargo=$(type -P "${CARGO_HOME:-${HOME:-/root}/.cargo}/bin/cargo"); then
    (cd "$REPOSITORY" && PATH="$(dirname "$cargo"):$PATH" "$cargo" "$@")
  elif [ -n "${SUDO_USER:-}" ] && [ "$EUID" = 0 ]; then
    # shellcheck disable=SC2016  # expanded by the caller's shell, where cargo is
    (cd "$REPOSITORY" && sudo -H -u "$SUDO_USER" bash -c 'PATH="$HOME/.cargo/bin:$PATH" exec cargo "$@"' cargo "$@")
  else
    echo "No cargo found: install a Rust toolchain first (https://rustup.rs)." >&2
    return 1
  fi
}

# build_release ARGUMENT…: builds the program optimised for use and prints where it is.
build_release() {
  cargo build --release --bin p2plus "$@" --message-format=json-render-diagnostics |
    jq -r 'select(.executable != null and .target.name == "p2plus") | .executable'
}

# What namespaces and devices need of the kernel; says plainly what is missing.
need_kernel() {
  local probe=p2probe$$
  as_root ip netns add "$probe" || { echo "This kernel or container gives no network namespaces." >&2; return 1; }
  as_root ip netns del "$probe"
  [ -c /dev/net/tun ] || as_root modprobe tun 2>/dev/null ||
    { echo "/dev/net/tun is missing: this kernel or container gives no TUN devices." >&2; return 1; }
}
