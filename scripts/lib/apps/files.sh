# shellcheck shell=bash
# SMB across the segment: a file server at ada's site, a client at ben's. Needs discovery.sh, because the server is found by its name.

SHARE_MB=16

step_smb() {
  local put get there back
  start_smb lan-ada
  head -c ${SHARE_MB}M /dev/urandom >"$WORK/film"
  wait_until 20 "the file server announces itself to ben's site" finds_server
  wait_until 20 "NetBIOS finds it by broadcast" finds_netbios
  smb -L //lan-ada.local -g >"$WORK/shares" 2>"$WORK/shares.log"
  grep -q '^Disk|films|' "$WORK/shares"
  note "by mDNS $(sed -n 's/^=;[^;]*;IPv4;\([^;]*\);\([^;]*\);.*/\1 (\2)/p' "$WORK/browse" | head -n 1), by NetBIOS broadcast $(head -n 1 "$WORK/netbios");" \
    "its shares: $(sed -n 's/^[A-Za-z]*|\([^|]*\)|.*/\1/p' "$WORK/shares" | paste -sd ' ')"
  put=$(timed smb //lan-ada.local/films -c "put $WORK/film film")
  there=$(same_file "$WORK/film" "$WORK/samba/films/film")
  get=$(timed smb //lan-ada.local/films -c "get film $WORK/film-back")
  back=$(same_file "$WORK/film" "$WORK/film-back")
  note "smbclient put $there in $put ms"
  note "smbclient got $back in $get ms"
  with samba smbclient
}

# start_smb SITE: with one share, which the user `games` of every Debian may write to.
start_smb() {
  local home=$WORK/samba logs
  mkdir -p "$home"/{lock,state,cache,private,logs,films} "$WORK/places/$1/run/samba"
  chown games "$home/films"
  cat >"$home/smb.conf" <<CONF
[global]
  server role = standalone server
  workgroup = SITE
  netbios name = FILMS
  interfaces = eth0
  bind interfaces only = yes
  log level = 1
  logging = file
  log file = $home/logs/%m
  lock directory = $home/lock
  state directory = $home/state
  cache directory = $home/cache
  private dir = $home/private
  pid directory = $home/lock
  ncalrpc dir = $home/ncalrpc
  passdb backend = tdbsam:$home/private/passdb.tdb
  load printers = no
  disable spoolss = yes
[films]
  path = $home/films
  read only = no
  valid users = games
CONF
  printf 'demo\ndemo\n' | at "$1" smbpasswd -c "$home/smb.conf" -s -a games >"$WORK/smbpasswd.log" 2>&1
  # Helpers of smbd have not read the configuration yet when they open their logs.
  # shellcheck disable=SC2016  # expanded there
  logs=(sh -c 'mount --bind "$0" /var/log/samba && exec "$@"' "$home/logs")
  # Each ends its whole process group when it ends, which shall not be ours and our caller's.
  serve_at "$1" nmbd "${logs[@]}" setsid nmbd --foreground --no-process-group --configfile="$home/smb.conf"
  serve_at "$1" smbd "${logs[@]}" setsid smbd --foreground --no-process-group --configfile="$home/smb.conf"
  wait_for_port "$1" 445 192.168.77.1
}

finds_server() { browse lan-ben _smb._tcp && grep -q '^=;eth0;.*;_smb\._tcp;' "$WORK/browse"; }

finds_netbios() {
  at lan-ben nmblookup -s "$WORK/samba/smb.conf" FILMS 2>"$WORK/nmblookup.log" | grep '^192\.168\.77\.1 ' >"$WORK/netbios"
}

# smb ARGUMENT…: the client at ben's site.
smb() { site_program lan-ben timeout 60 smbclient -s "$WORK/places/lan-ben/smb.conf" -U games%demo "$@"; }
