# shellcheck shell=bash
# What announces itself on a link: avahi and printers. Needs sites.sh.

step_mdns() {
  local site found
  for site in "${SITES[@]}"; do start_avahi "$site"; done
  serve_at lan-ada publish avahi-publish -s "notes of ada's site" _http._tcp 8080 path=/notes
  wait_until 20 "the service is found from the other site" finds_service
  found=$(grep -m 1 '^=.*_http\._tcp;' "$WORK/browse")
  same "the service's place" "$(cut -d ';' -f 7,9 <<<"$found")" 'lan-ada.local;8080'
  note "avahi-browse at ben's site: $found"
  resolves lan-ben -4 lan-ada.local 192.168.77.1
  resolves lan-ben -6 lan-ada.local "($SITE_PREFIX::1|fe80::.*)"
  resolves lan-ada -4 lan-ben.local "$BEN_SITE4"
  site_program lan-ben getent hosts lan-ada.local | grep '^192\.168\.77\.1 ' >/dev/null
  note "avahi-resolve, both ways: $(printf '%s; ' "${RESOLVED[@]}")getaddrinfo agrees"
  with avahi-daemon avahi-utils
}

RESOLVED=()

# start_avahi SITE: the system bus of that site and its avahi-daemon, which is called as the site is.
start_avahi() {
  local home=$WORK/places/$1
  mkdir -p "$home/run/dbus"
  cat >"$home/dbus.conf" <<'CONF'
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>
CONF
  printf '[server]\nallow-interfaces=eth0\n[wide-area]\nenable-wide-area=no\n[publish]\npublish-workstation=no\n' >"$home/avahi.conf"
  serve_at "$1" "dbus-$1" dbus-daemon --config-file="$home/dbus.conf" --nofork --nopidfile
  wait_until 10 "the bus of $1" test -S "$home/run/dbus/system_bus_socket"
  serve_at "$1" "avahi-$1" avahi-daemon -f "$home/avahi.conf" --no-chroot --no-rlimits
  wait_until 20 "avahi at $1 has its name" grep -qs "Server startup complete. Host name is $1.local" "$WORK/avahi-$1.log"
}

# browse SITE TYPE: what is found there by now, into $WORK/browse.
browse() { at "$1" timeout 10 avahi-browse --parsable --resolve --terminate --no-db-lookup "$2" >"$WORK/browse" 2>"$WORK/browse.log"; }
finds_service() { browse lan-ben _http._tcp && grep -q '^=;eth0;.*;notes' "$WORK/browse"; }

# resolves SITE -4|-6 NAME ADDRESS: the address is a pattern; what came is added to RESOLVED.
resolves() {
  local answer
  answer=$(at "$1" timeout 10 avahi-resolve "$2" -n "$3")
  grep -qE "^$3"$'\t'"$4\$" <<<"$answer" || { note "$1 asked for $3: $answer"; return 1; }
  RESOLVED+=("${answer/$'\t'/ is }")
}

# site_program SITE COMMAND…: a program of that site, which finds .local names by avahi, as with the package libnss-mdns installed.
site_program() { at "$1" env "LD_LIBRARY_PATH=$(dirname "$(nss_module)")" HOME="$WORK/places/$1" "${@:2}"; }
nss_module() { find /var/cache/p2plus-unpacked/libnss-mdns -name 'libnss_mdns4_minimal.so.2' | head -n 1; }

step_printer() {
  local uri home=$WORK/printer size took
  mkdir -p "$home/spool"
  serve_at lan-ada printer env HOME="$home" ippeveprinter -d "$home/spool" -k -p 8631 -f text/plain "Printer of ada"
  wait_until 20 "ippfind at ben's site finds the printer" finds_printer
  uri=$(head -n 1 "$WORK/printers")
  head -c 225000 /dev/urandom | base64 -w 59 >"$WORK/page"
  took=$(timed site_program lan-ben ipptool -t -f "$WORK/page" -d filetype=text/plain "$uri" /usr/share/cups/ipptool/print-job.test)
  wait_until 10 "the printer has the page" has_page
  size=$(same_file "$WORK/page" "$(printed_page)")
  note "ippfind at ben's site: $uri; a page printed there: $size, in $took ms"
  with cups-ipp-utils
}

finds_printer() { at lan-ben timeout 20 ippfind -T 3 _ipp._tcp,_print --print >"$WORK/printers" && grep -q '^ipp://lan-ada\.local:8631/' "$WORK/printers"; }
printed_page() { find "$WORK/printer/spool" -type f -size +1k | head -n 1; }
has_page() { [ "$(stat -c %s "$(printed_page)" 2>/dev/null)" = "$(stat -c %s "$WORK/page")" ]; }
