#!/bin/sh
# Gets a certificate by ACME and renews it; for the certbot image, as the same user as nginx and with the same volume.
# nginx serves the challenge and takes the certificate up by itself when it is there.
set -eu
: "${ACME_HOSTS:=${NGINX_HOSTS:-}}" "${ACME_EMAIL:=}" "${ACME_SERVER:=}" "${ACME_RENEW_SECONDS:=43200}"
: "${NGINX_ACME_DIR:=/var/lib/acme}" "${CERTBOT:=certbot}"
hosts=$(printf '%s' "$ACME_HOSTS" | tr ',\t\r\n' '    ' | tr -s ' ' | sed 's/^ //; s/ $//')
if [ -z "$hosts" ]; then
    echo "acme: ACME_HOSTS: say for which host names the certificate shall be, or set NGINX_HOSTS" >&2
    exit 2
fi

umask 027
work=${TMPDIR:-/tmp}/certbot
mkdir -p "$NGINX_ACME_DIR/www/.well-known/acme-challenge"

# The keys stay private, the answers to challenges are what the world is to read; both are nginx's user's.
ask() {
    set -- certonly --non-interactive --agree-tos --keep-until-expiring --expand --cert-name roost --key-type ecdsa \
        --webroot --webroot-path "$NGINX_ACME_DIR/www" \
        --config-dir "$NGINX_ACME_DIR" --work-dir "$work" --logs-dir "$work/log" "$@"
    if [ -n "$ACME_EMAIL" ]; then set -- "$@" --email "$ACME_EMAIL"; else set -- "$@" --register-unsafely-without-email; fi
    [ -z "$ACME_SERVER" ] || set -- "$@" --server "$ACME_SERVER"
    for host in $hosts; do set -- "$@" --domain "$host"; done
    "$CERTBOT" "$@"
}

[ "${1:-}" != once ] || { shift; ask "$@"; exit; }

trap 'exit 0' TERM INT
# The same command asks the first time, renews when a third of the life is left, and does nothing else. After a failure
# it waits an hour: authorities count failures.
while :; do
    if ask; then pause=$ACME_RENEW_SECONDS; else pause=3600; fi
    sleep "$pause" &
    wait "$!"
done
