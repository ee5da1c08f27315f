# What can be set, checked once; sourced by the entrypoint. A wrong value stops the start and is named.

# fail NAME PROBLEM
fail() {
    echo "nginx: $1: $2" >&2
    exit 2
}

# check NAME PATTERN MEANING: the variable's value matches the (extended, whole) pattern
check() {
    eval "checked=\$$1"
    # not line by line: a line break matches nothing
    case $checked in *"
"*) fail "$1" "must be $3" ;; esac
    printf '%s\n' "$checked" | grep -Eqx -- "$2" || fail "$1" "must be $3, not \"$checked\""
}

# check_range NAME LOW HIGH
check_range() {
    check "$1" '[0-9]{1,9}' "a number from $2 to $3"
    [ "$checked" -ge "$2" ] && [ "$checked" -le "$3" ] || fail "$1" "must be from $2 to $3, not $checked"
}

# words TEXT: commas and line breaks are spaces
words() {
    printf '%s' "$1" | tr ',\t\r\n' '    ' | tr -s ' ' | sed 's/^ //; s/ $//'
}

cpus() {
    count=$(nproc 2>/dev/null || echo 1)
    # the container's quota, cgroup v2 or v1, rounded up
    if [ -r /sys/fs/cgroup/cpu.max ]; then
        read -r quota period </sys/fs/cgroup/cpu.max
    elif [ -r /sys/fs/cgroup/cpu/cpu.cfs_quota_us ]; then
        read -r quota </sys/fs/cgroup/cpu/cpu.cfs_quota_us
        read -r period </sys/fs/cgroup/cpu/cpu.cfs_period_us
    fi
    case ${quota:-max} in
        max | -1) ;;
        *)
            limit=$(((quota + period - 1) / period))
            [ "$limit" -lt "$count" ] && count=$limit
            ;;
    esac
    [ "$count" -ge 1 ] || count=1
    echo "$count"
}

# where it is
: "${NGINX_HTTP_PORT:=8080}" "${NGINX_HTTPS_PORT:=8443}" "${NGINX_STATUS_PORT:=8081}" "${NGINX_PUBLIC_HTTPS_PORT:=443}"
if [ -s /proc/net/if_inet6 ]; then
    : "${NGINX_LISTEN:=0.0.0.0 [::]}"
else
    : "${NGINX_LISTEN:=0.0.0.0}"
fi
# whom it asks
: "${APP_HOST:=app}" "${APP_SERVERS:=}" "${ROOST_INTERNAL_PORT:=9000}" "${NGINX_DISCOVERY_SECONDS:=2}"
: "${ROOST_INTERNAL_TOKEN:=}" "${ROOST_INTERNAL_TOKEN_FILE:=}"
# who it is
: "${NGINX_HOSTS:=}" "${NGINX_TLS:=on}" "${NGINX_CERTIFICATE:=}" "${NGINX_CERTIFICATE_KEY:=}" "${NGINX_HSTS:=max-age=31536000}"
# whom it believes, and what it bears
: "${NGINX_TRUSTED_PROXIES:=}" "${NGINX_REQUESTS_PER_SECOND:=200}" "${NGINX_REQUEST_BURST:=2000}"
: "${NGINX_CONNECTIONS_PER_ADDRESS:=2000}" "${NGINX_MAX_BODY_SIZE:=}" "${FLET_MAX_UPLOAD_SIZE:=}"
# how long
: "${NGINX_READ_TIMEOUT:=60}" "${NGINX_WEBSOCKET_TIMEOUT:=3600}" "${NGINX_SHUTDOWN_TIMEOUT:=28800}" "${NGINX_STOP_TIMEOUT:=8}"
# how it runs
: "${NGINX_WORKERS:=auto}" "${NGINX_WORKER_CONNECTIONS:=16384}" "${NGINX_CACHE_SIZE:=256m}"
: "${NGINX_LOG_CLIENT:=full}" "${NGINX_LOG_LEVEL:=warn}"
# where things are; in the image nobody needs to change these
: "${NGINX_RUN_DIR:=/run/roost-nginx}" "${NGINX_CACHE_DIR:=/var/cache/nginx}" "${NGINX_TLS_DIR:=/etc/nginx/tls}"
: "${NGINX_ACME_DIR:=/var/lib/acme}" "${NGINX_BINARY:=nginx}"

APP_HOST=$(words "$APP_HOST")
APP_SERVERS=$(words "$APP_SERVERS")
NGINX_LISTEN=$(words "$NGINX_LISTEN")
NGINX_HOSTS=$(words "$NGINX_HOSTS")
NGINX_TRUSTED_PROXIES=$(words "$NGINX_TRUSTED_PROXIES")

for name in NGINX_HTTP_PORT NGINX_HTTPS_PORT NGINX_STATUS_PORT NGINX_PUBLIC_HTTPS_PORT ROOST_INTERNAL_PORT; do
    check_range "$name" 1 65535
done
check NGINX_LISTEN '((\*|[0-9.]+|\[[0-9A-Fa-f:.]+\])( |$))+' 'addresses, such as 0.0.0.0 and [::]'
check APP_HOST '([A-Za-z0-9._:-]+( |$))+' 'names or addresses'
check APP_SERVERS '(([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}( |$))*' 'addresses with ports, such as 10.0.0.2:8000'
check NGINX_HOSTS '((\*\.)?[A-Za-z0-9._-]+( |$)|\[[0-9A-Fa-f:.]+\]( |$))*' 'host names without ports'
check NGINX_TRUSTED_PROXIES '([0-9A-Fa-f:.]+(/[0-9]{1,3})?( |$))*' 'addresses or networks, such as 10.0.0.0/24'
check NGINX_TLS 'on|off' 'on or off'
check NGINX_HSTS 'off|max-age=[0-9]{1,9}(; includeSubDomains)?(; preload)?' 'off or such as "max-age=31536000; includeSubDomains"'
check NGINX_LOG_CLIENT 'full|truncated|none' 'full, truncated or none'
check NGINX_LOG_LEVEL 'info|notice|warn|error|crit' 'info, notice, warn, error or crit'
check NGINX_MAX_BODY_SIZE '([0-9]{1,15}[kKmMgG]?)?' 'a size, such as 500m; 0 is no limit'
check FLET_MAX_UPLOAD_SIZE '[0-9]{0,15}' 'a number of bytes'
check NGINX_CACHE_SIZE '[1-9][0-9]{0,5}[mMgG]' 'a size, such as 256m'
check_range NGINX_DISCOVERY_SECONDS 1 3600
check_range NGINX_REQUESTS_PER_SECOND 0 1000000
check_range NGINX_REQUEST_BURST 0 1000000
check_range NGINX_CONNECTIONS_PER_ADDRESS 0 65535
check_range NGINX_READ_TIMEOUT 1 86400
check_range NGINX_WEBSOCKET_TIMEOUT 60 604800
check_range NGINX_SHUTDOWN_TIMEOUT 1 604800
check_range NGINX_STOP_TIMEOUT 0 3600
check_range NGINX_WORKER_CONNECTIONS 64 1000000
for name in NGINX_RUN_DIR NGINX_CACHE_DIR NGINX_TLS_DIR NGINX_ACME_DIR; do
    check "$name" '/[A-Za-z0-9/._-]+' 'an absolute path of plain characters'
done
for name in NGINX_CERTIFICATE NGINX_CERTIFICATE_KEY; do
    check "$name" '(/[A-Za-z0-9/._-]+)?' 'an absolute path of plain characters'
done
case ${NGINX_CERTIFICATE:+c}${NGINX_CERTIFICATE_KEY:+k} in
    c) fail NGINX_CERTIFICATE_KEY 'is missing beside NGINX_CERTIFICATE' ;;
    k) fail NGINX_CERTIFICATE 'is missing beside NGINX_CERTIFICATE_KEY' ;;
esac

# Room for what the app takes: a gigabyte, or its own limit if that is larger.
if [ -z "$NGINX_MAX_BODY_SIZE" ]; then
    NGINX_MAX_BODY_SIZE=1g
    [ "${FLET_MAX_UPLOAD_SIZE:-0}" -gt 1073741824 ] && NGINX_MAX_BODY_SIZE=$FLET_MAX_UPLOAD_SIZE
fi

[ "$NGINX_WORKERS" = auto ] && NGINX_WORKERS=$(cpus)
check_range NGINX_WORKERS 1 512

# Each connection is a file, and a file that is sent to it is another one. What the system does not let us have would
# only fail later.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
FILES=$(ulimit -n)
[ "$FILES" != unlimited ] || FILES=$((NGINX_WORKER_CONNECTIONS * 2))
[ "$NGINX_WORKER_CONNECTIONS" -le $((FILES / 2)) ] || NGINX_WORKER_CONNECTIONS=$((FILES / 2))

# for curl's eyes only: not in the environment of any program that is started from here
token=$ROOST_INTERNAL_TOKEN
unset ROOST_INTERNAL_TOKEN
ROOST_INTERNAL_TOKEN=$token
if [ -n "$ROOST_INTERNAL_TOKEN_FILE" ]; then
    ROOST_INTERNAL_TOKEN=$(cat "$ROOST_INTERNAL_TOKEN_FILE") || fail ROOST_INTERNAL_TOKEN_FILE 'cannot be read'
fi
case $ROOST_INTERNAL_TOKEN in
    *[!A-Za-z0-9._~+/=-]*) fail ROOST_INTERNAL_TOKEN 'may hold letters, digits and ._~+/=- only' ;;
esac
