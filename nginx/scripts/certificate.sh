# Which certificate counts; sourced by the entrypoint.

# Sets CERTIFICATE and CERTIFICATE_KEY: what was named, else what was put into the TLS directory, else what ACME has
# got, else one that is made here once.
choose_certificate() {
    acme=$NGINX_ACME_DIR/live/roost
    if [ -n "$NGINX_CERTIFICATE" ]; then
        CERTIFICATE=$NGINX_CERTIFICATE CERTIFICATE_KEY=$NGINX_CERTIFICATE_KEY
    elif [ -e "$NGINX_TLS_DIR/fullchain.pem" ]; then
        CERTIFICATE=$NGINX_TLS_DIR/fullchain.pem CERTIFICATE_KEY=$NGINX_TLS_DIR/privkey.pem
    elif [ -r "$acme/fullchain.pem" ] && [ -r "$acme/privkey.pem" ]; then
        CERTIFICATE=$acme/fullchain.pem CERTIFICATE_KEY=$acme/privkey.pem
    else
        CERTIFICATE=$NGINX_TLS_DIR/self-signed/fullchain.pem CERTIFICATE_KEY=$NGINX_TLS_DIR/self-signed/privkey.pem
        [ -e "$NGINX_TLS_DIR/self-signed" ] || make_certificate
    fi
}

# What changes when the certificate does.
certificate_state() {
    printf '%s\n' "$CERTIFICATE"
    cat "$CERTIFICATE" "$CERTIFICATE_KEY" 2>/dev/null | cksum
}

# A key and a certificate signed by itself. Both appear by one rename, for the user's eyes only, and what is there is
# never overwritten.
make_certificate() {
    [ -w "$NGINX_TLS_DIR" ] || fail NGINX_TLS_DIR "$NGINX_TLS_DIR cannot be written to, and there is no certificate in it"
    alternatives=DNS:localhost,IP:127.0.0.1,IP:::1
    for host in $NGINX_HOSTS; do
        case $host in
            localhost | \[*) ;;
            *[!0-9.]*) alternatives=$alternatives,DNS:$host ;;
            *) alternatives=$alternatives,IP:$host ;;
        esac
    done
    made=$(umask 077 && mktemp -d "$NGINX_TLS_DIR/.making.XXXXXX") || exit 1
    # ten years: whoever has told a browser to trust it does not want to do so again
    (umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -sha256 -nodes -days 3650 \
        -subj "/CN=roost self-signed" -addext "subjectAltName=$alternatives" -addext "basicConstraints=critical,CA:FALSE" \
        -addext "keyUsage=critical,digitalSignature" -addext "extendedKeyUsage=serverAuth" \
        -keyout "$made/privkey.pem" -out "$made/fullchain.pem" 2>"$made/log") || { cat "$made/log" >&2; rm -rf "$made"; exit 1; }
    rm -f "$made/log"
    # another container may have been faster; then its certificate counts
    mv -T "$made" "$NGINX_TLS_DIR/self-signed" 2>/dev/null || rm -rf "$made"
}
