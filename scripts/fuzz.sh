#!/usr/bin/env bash
# Feeds every parser of untrusted bytes what it never expected: scripts/fuzz.sh [SECONDS per target, 60] [TARGET…]
# Works with the stable toolchain; everything is below target/fuzz, corpora included, which the next run goes on from.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/common.sh
source scripts/lib/common.sh

CARGO_FUZZ=0.13.2
SECONDS_EACH=${1:-60}
FOLDER=$REPOSITORY/target/fuzz
# Bounds of one target: a longer input, a slower one and a larger process are findings.
MAX_INPUT_LEN=16384
SLOW_INPUT_SECONDS=10
MEMORY_MB=2048
MAX_CORPUS_FILES=2000

[[ $SECONDS_EACH =~ ^[1-9][0-9]*$ ]] || { echo "usage: scripts/fuzz.sh [SECONDS per target] [TARGET…]" >&2; exit 2; }
mapfile -t TARGETS < <(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' fuzz/Cargo.toml)
if [ $# -gt 1 ]; then TARGETS=("${@:2}"); fi

# As a plain instrumented build: the sanitizers need a nightly toolchain, and the program's own code has no unsafe outside src/io.
build() {
  as_root scripts/lib/packages.sh build
  if [ "$("$FOLDER/tools/bin/cargo-fuzz" --version 2>/dev/null)" != "cargo-fuzz $CARGO_FUZZ" ]; then
    cargo install cargo-fuzz --version $CARGO_FUZZ --locked --debug --quiet --root "$FOLDER/tools"
  fi
  PATH="$FOLDER/tools/bin:$PATH" cargo fuzz build --sanitizer none --target-dir "$FOLDER/build"
}

# seed TARGET NAME HEX
seed() {
  mkdir -p "$FOLDER/corpus/$1"
  printf '%b' "$(sed 's/[^ ]\{2\} */\\x&/g; s/ //g' <<<"$3")" >"$FOLDER/corpus/$1/seed-$2"
}

# many COUNT HEX: the byte so many times.
many() { printf "%0${1}d" 0 | sed "s/0/$2 /g"; }

# What a corpus begins with: the frozen vectors, the configuration's template, and shortest useful scripts.
plant_seeds() {
  local name hex target file
  while read -r name hex; do
    case $name in *.d1 | *.d2a | *.d2b | *.m2a | *.m2b | *.cookie) seed datagram "$name" "$hex" ;; esac
  done <tests/vectors/hybrid.txt
  for file in tests/vectors/ledger/*.hex; do
    name=$(basename "$file" .hex)
    case $name in
      block-* | certificate-* | genesis) target=block ;;
      message-*) target=ledger_message ;;
      operations | revocation) target=transaction ;;
      *) continue ;;
    esac
    seed "$target" "$name" "$(cat "$file")"
  done
  mkdir -p "$FOLDER/corpus/config"
  cp config/p2plus.toml "$FOLDER/corpus/config/seed-template"
  # An honest flight of three datagrams and its two answers.
  seed handshake flight "00 00 00 00 00  01 00 00 00 00  02 00 00 00 00 00 00"
  # One packet sealed, delivered, repeated, damaged.
  seed transport packet "00 03 00 61 62 63 00  02 00 00 00  02 00 00 00  02 00 00 01 10 00 01"
  # A message each way, then the packets.
  seed control_link messages "03 00 00 05 00  04 00 03 05 00  06 00 40  04 01 01 05 00  06 01 40  07 00 10 00  06 01 40"
  seed packet ipv4 "45 00 00 1c 00 00 40 00 40 11 00 00 0a 4d 00 02 0a 4d 00 01 00 35 00 35 00 08 00 00"
  seed packet ipv6 "60 00 00 00 00 08 11 40 fd 77 00 00 00 00 00 00 00 00 00 00 00 00 00 02 \
    fd 77 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 35 00 35 00 08 00 00"
  # A question for the texts of a long name, with options; the name alone.
  seed dns_message long "00 08 01 00 00 01 00 00 00 00 00 01 04 6c 6f 6e 67 03 6c 61 62 08 69 6e 74 65 72 6e 61 6c 00 00 10 00 01 \
    00 00 29 04 d0 00 00 00 00 00 00"
  seed dns_message pointer "01 32 01 30 02 37 37 02 31 30 07 69 6e 2d 61 64 64 72 04 61 72 70 61 00 00 0c 00 01"
  # A question by ARP, a router's advertisement in a VLAN; a frame's record, a chunk of one and a part of one.
  local link="02 00 00 00 00 02 02 00 00 00 00 01"
  seed frame arp "00 $link 08 06 00 01 08 00 06 04 00 01 02 00 00 00 00 01 0a 09 00 01 00 00 00 00 00 00 0a 09 00 02"
  seed frame router "02 $link 81 00 00 2a 86 dd 60 00 00 00 00 10 3a ff fe 80 $(many 13 00) 01 ff 02 $(many 13 00) 01 \
    86 00 00 00 $(many 12 00)"
  seed record frame "15 01 00 00 00 $link 08 00"
  seed record fragment "18 01 00 00 00 01 00 00 00 61 62"
  # Two datagrams of a flow; two chunks of a super-packet, each behind its length.
  local udp tcp
  udp="10 45 00 00 1e 00 00 40 00 40 11 00 00 0a 4d 00 02 0a 4d 00 01 00 35 00 35 00 0a 00 00 61 62"
  tcp="45 00 02 40 00 00 40 00 40 06 00 00 0a 4d 00 02 0a 4d 00 01 00 35 00 35 00 00 00 01 00 00 00 02 50 10 01 00 00 00 00 00"
  seed reassembly row "1f 00 00 $udp 1f 00 00 $udp"
  seed reassembly chunks "48 02 00 01 28 01 00 00 00 18 02 $tcp $(many 536 61) 48 02 00 11 28 01 00 18 02 18 02 $tcp $(many 536 62)"
  seed record chunk "11 28 01 00 18 02 18 02 $tcp $(many 536 62)"
  # A member's record with one endpoint, sealed and left as it is; the same damaged in one place.
  local record
  record="$(many 32 02) 01 $(many 7 00) 01 00 00 00 00 c0 00 02 01 27 12 $(many 8 00) 01 00 00 00 00 00"
  seed dht_value whole "$(many 12 03) 00 00 $record"
  seed dht_value damaged "$(many 12 03) 01 01 40 00 80 $record"
  # A ticket's payload: version, length, name, ids and secrets, one peer with one endpoint.
  seed ticket payload "01 d5 00 03 6c 61 62 $(many 136 05) 01 $(many 64 07) 01 04 c0 00 02 01 27 12"
  # An opened height, and two timeouts.
  seed consensus_log timeouts "ff ff 11 00 00 $(many 16 01) 06 00 05 00 01 00 00 00 06 00 05 01 01 00 00 00"
  seed api_request ping "01 07 7b 22 70 65 65 72 22 3a 22 61 22 2c 22 63 6f 75 6e 74 22 3a 31 7d"
}

# run TARGET: prints its count of runs, fails on a finding.
run() {
  local program corpus=$FOLDER/corpus/$1 log=$FOLDER/$1.log
  program=$(echo "$FOLDER"/build/*/release/"$1")
  mkdir -p "$corpus" "$FOLDER/findings"
  # The largest inputs go first when there are too many.
  find "$corpus" -type f ! -name 'seed-*' -printf '%s %p\n' | sort -n | tail -n +$MAX_CORPUS_FILES | cut -d' ' -f2- |
    xargs -r -d '\n' rm
  if ! "$program" "$corpus" -artifact_prefix="$FOLDER/findings/$1-" -max_total_time="$SECONDS_EACH" \
    -max_len=$MAX_INPUT_LEN -timeout=$SLOW_INPUT_SECONDS -rss_limit_mb=$MEMORY_MB -print_final_stats=1 >"$log" 2>&1; then
    echo "FINDING in $1: $log"
    grep -E -m 8 'panicked|ERROR|SUMMARY|Test unit written' -A1 "$log" || tail -n 20 "$log"
    return 1
  fi
  printf '%-18s %12s runs, %5s inputs kept\n' "$1" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
    "$(find "$corpus" -type f | wc -l)"
}

build
plant_seeds
failed=()
for target in "${TARGETS[@]}"; do
  run "$target" || failed+=("$target")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "FUZZING FAILED: ${failed[*]}"
  exit 1
fi
echo "FUZZING PASSED: ${#TARGETS[@]} targets, $SECONDS_EACH s each"
