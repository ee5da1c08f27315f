# Writes nginx's configuration from the templates; sourced by the entrypoint.

# the first version that is at least the second
at_least() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -t . -k 1,1n -k 2,2n -k 3,3n | head -n 1)" = "$2" ]
}

# What depends on the nginx that is there; asked once.
ask_nginx() {
    about=$("$NGINX_BINARY" -V 2>&1) || fail NGINX_BINARY "$NGINX_BINARY does not run: $about"
    NGINX_VERSION=$(printf '%s\n' "$about" | sed -n 's|^nginx version: [^/]*/\([0-9.]*\).*|\1|p')
    openssl=$(printf '%s\n' "$about" | sed -n 's/.*running with OpenSSL \([0-9.]*\).*/\1/p')
    [ -n "$openssl" ] || openssl=$(printf '%s\n' "$about" | sed -n 's/^built with OpenSSL \([0-9.]*\).*/\1/p')
    CURVES=X25519:prime256v1:secp384r1
    # keys that a recording of today gives to no quantum computer of tomorrow
    [ -n "$openssl" ] && at_least "$openssl" 3.5.0 && CURVES=X25519MLKEM768:$CURVES
    # root's workers are somebody else; others stay who they are
    USER_LINE=
    if [ "$(id -u)" = 0 ]; then
        for user in nginx www-data nobody; do
            ! id "$user" >/dev/null 2>&1 || { USER_LINE="user $user;"; break; }
        done
    fi
}

# listen PORT PARAMETERS
listen() {
    for address in $NGINX_LISTEN; do
        echo "listen $address:$1$2;"
    done
}

# The stapling of what the certificate's authority says of it; many no longer say anything (Let's Encrypt since 2025).
stapling() {
    [ -n "$(openssl x509 -noout -ocsp_uri -in "$CERTIFICATE" 2>/dev/null)" ] || return 0
    resolvers=$(sed -n 's/^nameserver[ \t]*\([0-9.]*\)[ \t]*$/\1/p; s/^nameserver[ \t]*\([0-9A-Fa-f]*:[0-9A-Fa-f:]*\)[ \t]*$/[\1]/p' /etc/resolv.conf)
    echo "ssl_stapling on;"
    [ -z "$resolvers" ] || echo "resolver $(words "$resolvers") valid=300s;"
}

limits() {
    [ "$NGINX_REQUESTS_PER_SECOND" = 0 ] || echo "limit_req zone=requests burst=$NGINX_REQUEST_BURST nodelay;"
    [ "$NGINX_CONNECTIONS_PER_ADDRESS" = 0 ] || echo "limit_conn connections $NGINX_CONNECTIONS_PER_ADDRESS;"
}

# upstream_block WORKERS: who shares a cookie shares a worker; when workers come or go, few change theirs
upstream_block() {
    echo "upstream workers {"
    echo "    hash \$roost_browser consistent;"
    for worker in $1; do
        # never counted out: a worker that is gone refuses at once, and no client can make one look as if it were
        echo "    server $worker max_fails=0;"
    done
    [ -n "$1" ] || echo "    server 127.0.0.1:1 down;"
    echo "}"
}

# configure FOLDER WORKERS: the whole configuration in a new folder
configure() {
    rm -rf "$1"
    (umask 077 && mkdir -p "$1") || return 1
    port=
    [ "$NGINX_PUBLIC_HTTPS_PORT" = 443 ] || port=:$NGINX_PUBLIC_HTTPS_PORT
    hsts=$NGINX_HSTS
    [ "$hsts" != off ] || hsts=
    case $NGINX_LOG_CLIENT in
        full) client='$remote_addr' ;;
        truncated) client='$roost_network_of_client' ;;
        none) client= ;;
    esac
    apart=
    at_least "$NGINX_VERSION" 1.23.0 || apart='$http_cookie $http_authorization $http_accept_language $http_origin'
    rate=$NGINX_REQUESTS_PER_SECOND
    [ "$rate" != 0 ] || rate=1
    # every value has been checked to be of plain characters: none of them means anything to sed or ends a directive
    for template in "$HERE"/templates/*.conf; do
        sed -e "s|@WORKERS@|$NGINX_WORKERS|" -e "s|@SHUTDOWN_TIMEOUT@|${NGINX_SHUTDOWN_TIMEOUT}s|" \
            -e "s|@FILES@|$FILES|" -e "s|@RUN_DIR@|$NGINX_RUN_DIR|" -e "s|@CACHE_DIR@|$NGINX_CACHE_DIR|" -e "s|@ACME_DIR@|$NGINX_ACME_DIR|" \
            -e "s|@PAGES_DIR@|$HERE/pages|" -e "s|@LOG_LEVEL@|$NGINX_LOG_LEVEL|" -e "s|@USER@|$USER_LINE|" \
            -e "s|@WORKER_CONNECTIONS@|$NGINX_WORKER_CONNECTIONS|" -e "s|@MAX_BODY_SIZE@|$NGINX_MAX_BODY_SIZE|" \
            -e "s|@CACHE_SIZE@|$NGINX_CACHE_SIZE|" -e "s|@REQUESTS_PER_SECOND@|$rate|" -e "s|@HSTS@|$hsts|" \
            -e "s|@LOGGED_CLIENT@|$client|" -e "s|@READ_TIMEOUT@|${NGINX_READ_TIMEOUT}s|" \
            -e "s|@WEBSOCKET_TIMEOUT@|${NGINX_WEBSOCKET_TIMEOUT}s|" -e "s|@PUBLIC_PORT@|$port|" \
            -e "s|@CERTIFICATE@|${CERTIFICATE:-}|" -e "s|@CERTIFICATE_KEY@|${CERTIFICATE_KEY:-}|" \
            -e "s|@CURVES@|$CURVES|" -e "s|@APART@|$apart|" "$template" >"$1/${template##*/}" || return 1
    done
    (
        cd "$1" || exit 1
        upstream_block "$2" >workers.conf
        limits >limits.conf
        : >trusted.conf
        : >peers.conf
        for network in $NGINX_TRUSTED_PROXIES; do
            echo "$network 1;" >>trusted.conf
            echo "set_real_ip_from $network;" >>peers.conf
        done
        [ -z "$NGINX_TRUSTED_PROXIES" ] || printf 'real_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n' >>peers.conf

        ours=' default_server'
        echo 'server_name localhost;' >names.conf
        : >servers.conf
        if [ -n "$NGINX_HOSTS" ]; then
            ours=
            echo "server_name $NGINX_HOSTS;" >names.conf
            echo 'include servers-strangers.conf;' >>servers.conf
        fi
        if at_least "$NGINX_VERSION" 1.25.1; then
            h2='' h2_line='http2 on;'
        else
            h2=' http2' h2_line=''
        fi
        # At a reload an idle connection is closed under the request that a client is just about to make. Later versions
        # wait for that request.
        : >patience.conf
        : >certificates.conf
        if at_least "$NGINX_VERSION" 1.27.4; then
            echo 'keepalive_min_timeout 20s;' >patience.conf
            # and they take a certificate for unchanged that was written in the second when the last one was read
            echo 'ssl_object_cache_inheritable off;' >certificates.conf
        fi
        {
            listen "$NGINX_HTTP_PORT" ' default_server so_keepalive=on'
            [ "$NGINX_TLS" = off ] || {
                listen "$NGINX_HTTPS_PORT" " ssl$h2 default_server so_keepalive=on"
                printf '%s\ninclude tls.conf;\nssl_reject_handshake on;\n' "$h2_line"
            }
        } >listen-strangers.conf
        listen "$NGINX_HTTP_PORT" "${ours:+$ours so_keepalive=on}" >listen-http.conf
        { listen "$NGINX_HTTPS_PORT" " ssl$h2${ours:+$ours so_keepalive=on}"; echo "$h2_line"; } >listen-https.conf
        listen "$NGINX_STATUS_PORT" '' >listen-status.conf
        if [ "$NGINX_TLS" = on ]; then
            stapling >>certificate.conf
            echo 'include servers-tls.conf;' >>servers.conf
        else
            echo 'include servers-plain.conf;' >>servers.conf
        fi
        echo 'include servers-status.conf;' >>servers.conf
    )
}
