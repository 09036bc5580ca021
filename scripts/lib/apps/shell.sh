# shellcheck shell=bash
# ssh between members, by name, and rsync over it. Needs place.sh and names.

step_ssh() {
  local home=$WORK/ssh said took
  start_ssh ada "$ADA4" "$ADA6"
  # shellcheck disable=SC2016  # ada's shell expands it
  took=$(timed remote 'echo "$SSH_CONNECTION"; ip -4 -o addr show dev eth0; head -c 1000000 /dev/zero | sha256sum')
  said=$(cat "$WORK/timed")
  # Who connected is ben's overlay address, and where the command ran is ada's namespace.
  same "SSH_CONNECTION without the port" "$(awk 'NR == 1 { print $1, $3, $4 }' <<<"$said")" "$BEN6 $ADA6 22"
  same "the address where the command ran" "$(awk 'NR == 2 { sub("/.*", "", $4); print $4 }' <<<"$said")" 198.18.2.2
  same "the sha256 of a million zeros" "$(tail -n 1 <<<"$said")" "$(head -c 1000000 /dev/zero | sha256sum)"
  note "ssh ada.demo.internal: a command ran there in $took ms; SSH_CONNECTION is $(head -n 1 <<<"$said")"
  took=$(timed in_ns ben ssh -4 -F "$home/client" ada.demo.internal true)
  # shellcheck disable=SC2016
  note "over IPv4 in $took ms, $(in_ns ben ssh -6 -F "$home/client" ada.demo.internal 'set -- $SSH_CONNECTION; echo "over IPv6 from $1"')"
  with openssh-server
}

remote() { in_ns ben ssh -F "$WORK/ssh/client" ada.demo.internal "$1"; }

# start_ssh NODE ADDRESS4 ADDRESS6: a server with keys made for this run, and what its client needs in order to know it.
start_ssh() {
  local home=$WORK/ssh
  mkdir -p "$home" "$WORK/places/$1/run/sshd"
  ssh-keygen -q -t ed25519 -N '' -f "$home/host"
  ssh-keygen -q -t ed25519 -N '' -f "$home/key"
  printf '%s %s\n' "$1.demo.internal" "$(cut -d ' ' -f 1,2 "$home/host.pub")" >"$home/known"
  cat >"$home/sshd_config" <<CONF
Port 22
ListenAddress $2
ListenAddress $3
HostKey $home/host
AuthorizedKeysFile $home/key.pub
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM yes
CONF
  cat >"$home/client" <<CONF
Host *
  User root
  IdentityFile $home/key
  IdentitiesOnly yes
  UserKnownHostsFile $home/known
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 15
CONF
  serve_at "$1" sshd /usr/sbin/sshd -D -e -f "$home/sshd_config"
  wait_for_port "$1" 22 "$2" "$3"
}

step_rsync() {
  local first second made got
  make_tree "$WORK/tree"
  first=$(timed sync_tree)
  cp "$WORK/timed" "$WORK/rsync"
  diff -r --no-dereference "$WORK/tree" "$WORK/tree-at-ada"
  made=$(tree_digest "$WORK/tree") got=$(tree_digest "$WORK/tree-at-ada")
  same "the tree's sha256" "$got" "$made"
  note "rsync over ssh: $(rsync_said 'Number of regular files transferred') files, $(rsync_said 'Total transferred file size') bytes in $first ms;" \
    "diff -r finds no difference, the trees' sha256 are $made and $got"
  # One byte in a large file, one new file and one that is gone.
  printf x | dd of="$WORK/tree/large" bs=1 seek=1000000 conv=notrunc status=none
  # Rsync tells a changed file of the same length by its time, in seconds.
  touch -d '+2 seconds' "$WORK/tree/large"
  echo new >"$WORK/tree/new"
  rm "$WORK/tree/d1/1"
  second=$(timed sync_tree)
  cp "$WORK/timed" "$WORK/rsync"
  diff -r --no-dereference "$WORK/tree" "$WORK/tree-at-ada"
  note "and after three changes again: $(rsync_said 'Literal data') bytes of data in $second ms, no difference"
  with rsync
}

sync_tree() { in_ns ben timeout 60 rsync --archive --delete --stats -e "ssh -F $WORK/ssh/client" "$WORK/tree/" "ada.demo.internal:$WORK/tree-at-ada/"; }
rsync_said() { sed -n "s/^$1: \([0-9,]*\).*/\1/p" "$WORK/rsync"; }

# tree_digest FOLDER → over names, modes, links and contents
tree_digest() { (cd "$1" && find . -printf '%p %M %l\n' -type f -exec sha256sum {} + | sort | sha256sum | cut -c 1-16); }

# make_tree FOLDER: 300 small files of odd lengths in ten folders, a large one, a link.
make_tree() {
  local folder file
  for folder in {1..10}; do
    mkdir -p "$1/d$folder"
    for file in {1..30}; do head -c $((folder * file * 97)) /dev/urandom >"$1/d$folder/$file"; done
  done
  head -c 8M /dev/urandom >"$1/large"
  ln -s d1/2 "$1/link"
  chmod 600 "$1/d2/3"
}
