# shellcheck shell=bash
# PostgreSQL between members: a server at ada, psql at ben. Needs place.sh.

ROWS=10000

step_database() {
  local home=$WORK/postgres took count size client
  start_database ada "$ADA4" "$BEN4"
  make_rows
  took=$(timed psql_at_ben -f "$home/insert.sql")
  count=$(psql_at_ben -At -c 'SELECT count(*), sum(id) FROM things')
  same "count|sum" "$count" "$ROWS|$((ROWS * (ROWS + 1) / 2))"
  note "psql at ben: $ROWS INSERT statements, each a question and an answer, in $took ms; count|sum is $count"
  took=$(timed psql_at_ben -c "\\copy (SELECT * FROM things ORDER BY id) TO '$home/out.csv' WITH CSV")
  size=$(same_file "$home/rows.csv" "$home/out.csv")
  client=$(psql_at_ben -At -c 'SELECT client_addr FROM pg_stat_activity WHERE pid = pg_backend_pid()')
  same "the server's client" "$client" "$BEN4"
  note "COPY out: $size, in $took ms; the server has its client at $client"
  with postgresql-15
}

# The same rows as statements and as what COPY has to give back.
make_rows() {
  head -c $((ROWS * 48)) /dev/urandom | base64 -w 64 | awk -v home="$WORK/postgres" '
    BEGIN { print "CREATE TABLE things (id integer PRIMARY KEY, text text);\nBEGIN;" >(home "/insert.sql") }
    { print NR "," $0 >(home "/rows.csv"); print "INSERT INTO things VALUES (" NR ", \x27" $0 "\x27);" >(home "/insert.sql") }
    END { print "COMMIT;" >(home "/insert.sql") }'
}

psql_at_ben() {
  in_ns ben env PGPASSWORD=demo PGCONNECT_TIMEOUT=10 timeout 120 psql -X -q -v ON_ERROR_STOP=1 -h "$ADA4" -U postgres postgres "$@"
}

# start_database NODE ADDRESS CLIENT: everything of the server is under $WORK, its own user runs it, and one client may come, by password.
start_database() {
  local home=$WORK/postgres programs=/usr/lib/postgresql/15/bin
  mkdir -p "$home"
  echo demo >"$home/password"
  chown -R postgres "$home"
  (cd "$home" && runuser -u postgres -- "$programs/initdb" -D "$home/data" --auth=scram-sha-256 --pwfile="$home/password" --no-sync \
    --encoding=UTF8 --no-locale >"$home/log" 2>&1)
  echo "host all postgres $3/32 scram-sha-256" >"$home/data/pg_hba.conf"
  serve_at "$1" postgres runuser -u postgres -- "$programs/postgres" -D "$home/data" -c "listen_addresses=$2" \
    -c "unix_socket_directories=$home" -c fsync=off -c shared_buffers=16MB
  wait_for_port "$1" 5432 "$2"
  wait_until 20 "the database is ready" in_ns ben pg_isready -q -h "$2"
}
