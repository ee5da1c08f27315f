#!/bin/sh
# Starts nginx and keeps its configuration right: it follows the app's workers and the certificate, and reloads nginx
# when either changes, which no open websocket notices. `entrypoint.sh check` only says whether all is well.
set -u
LC_ALL=C TZ=UTC
export LC_ALL TZ
HERE=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=settings.sh
. "$HERE/scripts/settings.sh"
# shellcheck source=certificate.sh
. "$HERE/scripts/certificate.sh"
# shellcheck source=configure.sh
. "$HERE/scripts/configure.sh"
# shellcheck source=workers.sh
. "$HERE/scripts/workers.sh"

say() {
    # level, event, further members
    printf '{"timestamp":"%s","level":"%s","logger":"nginx","event":"%s"%s}\n' \
        "$(date -u +%Y-%m-%dT%H:%M:%S.000Z)" "$1" "$2" "${3:+,$3}"
}

# nginx's own log as lines of JSON, without what may be secret or somebody's: query strings, referrers, and addresses
# unless they are logged in full.
errors() {
    case $NGINX_LOG_CLIENT in full) anonymous='' ;; *) anonymous='s/, client: [^,]*//' ;; esac
    exec sed -u -E \
        -e 's/[^ -~]/?/g' \
        -e 's/, referrer: ".*//' \
        -e 's/(, request: "[^? "]*( [^? "]*)?)\?.*( HTTP\/[0-9.]*")/\1\3/' \
        -e 's/(, upstream: "[^?"]*)\?.*(", host: ")/\1\2/' \
        -e "$anonymous" \
        -e 's/\\/\\\\/g; s/"/\\"/g' \
        -e 's|^([0-9]{4})/([0-9]{2})/([0-9]{2}) ([0-9:]{8}) \[([a-z]+)\] [0-9]+#[0-9]+: (.*)$|{"timestamp":"\1-\2-\3T\4.000Z","level":"\5","logger":"nginx","event":"nginx","message":"\6"}|' \
        -e 's|^[^{].*|{"level":"error","logger":"nginx","event":"nginx","message":"&"}|' \
        -e 's/"level":"(warn)"/"level":"warning"/; s/"level":"notice"/"level":"info"/; s/"level":"(crit|alert|emerg)"/"level":"critical"/'
}

# try FOLDER: whether nginx would run with the configuration in it
try() {
    verdict=$("$NGINX_BINARY" -t -q -e stderr -c "$1/nginx.conf" 2>&1)
}

# The new configuration takes the place of the old one if nginx accepts it.
renew() {
    configure "$NGINX_RUN_DIR/next" "$WORKERS" || return 1
    try "$NGINX_RUN_DIR/next" || return 1
    rm -rf "$NGINX_RUN_DIR/last"
    [ ! -e "$NGINX_RUN_DIR/now" ] || mv "$NGINX_RUN_DIR/now" "$NGINX_RUN_DIR/last"
    mv "$NGINX_RUN_DIR/next" "$NGINX_RUN_DIR/now"
}

state() {
    printf '%s\n' "$WORKERS"
    [ "$NGINX_TLS" = off ] || certificate_state
}

follow() {
    find_workers
    [ "$NGINX_TLS" = off ] || choose_certificate
    wanted=$(state)
    if [ "$wanted" = "$applied" ] || [ "$wanted" = "$refused" ]; then
        return
    fi
    if renew; then
        applied=$wanted refused=
        kill -HUP "$nginx"
        say info configuration_changed "\"workers\":\"$WORKERS\""
    else
        # said once; the one that runs goes on
        refused=$wanted
        say error configuration_refused
        printf '%s\n' "$verdict" | errors >&2
    fi
}

stop() {
    stopping=1
    kill -QUIT "$nginx" 2>/dev/null
}

umask 077
mkdir -p "$NGINX_RUN_DIR" || fail NGINX_RUN_DIR "$NGINX_RUN_DIR cannot be made"
ask_nginx
WORKERS='' verdict='' applied='' refused='' stopping=''
find_workers
[ "$NGINX_TLS" = off ] || choose_certificate
if ! renew; then
    printf '%s\n' "$verdict" >&2
    exit 2
fi
[ "${1:-}" != check ] || { echo "nginx $NGINX_VERSION: the configuration is right"; exit 0; }
applied=$(state)

rm -f "$NGINX_RUN_DIR/errors"
mkfifo "$NGINX_RUN_DIR/errors"
errors <"$NGINX_RUN_DIR/errors" >&2 &
errors=$!
"$NGINX_BINARY" -e stderr -c "$NGINX_RUN_DIR/now/nginx.conf" 2>"$NGINX_RUN_DIR/errors" &
nginx=$!
trap stop TERM INT QUIT
trap 'applied=' HUP
say info proxy_started "\"version\":\"$NGINX_VERSION\",\"workers\":\"$WORKERS\""

while [ -z "$stopping" ] && kill -0 "$nginx" 2>/dev/null; do
    sleep "$NGINX_DISCOVERY_SECONDS" &
    pause=$!
    wait "$pause"
    kill "$pause" 2>/dev/null
    [ -n "$stopping" ] || follow
done

# Open websockets would hold the stop for hours: they have a little time, then they are cut, and come back.
if [ -n "$stopping" ]; then
    say info proxy_stopping
    end=$(($(date +%s) + NGINX_STOP_TIMEOUT))
    while [ "$(date +%s)" -lt "$end" ] && kill -0 "$nginx" 2>/dev/null; do
        sleep 0.1
    done
    kill -TERM "$nginx" 2>/dev/null
fi
wait "$nginx"
status=$?
if [ -n "$stopping" ]; then
    wait "$errors"
    exit 0
fi
# what it has left behind ends with the container
say critical proxy_died
exit "$((status > 0 ? status : 1))"
