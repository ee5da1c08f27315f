# Finds the workers; sourced by the entrypoint. For every address of APP_HOST its `/slots` is asked: one port per line.

# An address that is still named but does not answer keeps its workers for so many rounds, as a container that starts
# again is back soon, and asking a worker that is not there costs nothing but the attempt.
MISSES=3

# Sets WORKERS to "address:port address:port …". What was found last counts on while nobody answers.
find_workers() {
    if [ -n "$APP_SERVERS" ]; then
        WORKERS=$APP_SERVERS
        return
    fi
    known=$NGINX_RUN_DIR/slots
    mkdir -p "$known"
    # a deployment says for a while which of the app's containers count
    names=$(cat "$NGINX_RUN_DIR/app_host" 2>/dev/null) && [ -n "$names" ] || names=$APP_HOST
    addresses=$(for name in $names; do timeout 2 getent ahosts "$name"; done | awk '$2 == "STREAM" {print $1}' | sort -u)
    [ -n "$addresses" ] || return 0
    rm -f "$known"/*.new
    answered=$(slots_of $addresses | sed -n 's/^0 200 //p')
    [ -n "$answered" ] || return 0
    found=
    for address in $addresses; do
        file=$known/$address
        if printf '%s\n' "$answered" | grep -Fqx -- "$address"; then
            # at most 512 ports; whatever else is said is not believed
            awk '/^[0-9]+\r?$/ && $1 + 0 > 0 && $1 + 0 < 65536 {print $1 + 0}' "$file.new" 2>/dev/null | sort -nu | head -n 512 >"$file"
            echo 0 >"$file.missed"
        elif [ -e "$file" ]; then
            read -r missed <"$file.missed" || missed=0
            echo $((missed + 1)) >"$file.missed"
            [ "$missed" -lt "$MISSES" ] || : >"$file"
        else
            continue
        fi
        case $address in *:*) shown=[$address] ;; *) shown=$address ;; esac
        while read -r port; do
            found="$found $shown:$port"
        done <"$file"
    done
    # of addresses that are no longer named nothing is kept
    for file in "$known"/*; do
        name=${file##*/}
        printf '%s\n' "$addresses" | grep -Fqx -- "${name%.missed}" || rm -f "$file"
    done
    WORKERS=${found# }
}

# slots_of ADDRESS…: asks all of them at once; prints "EXIT STATUS ADDRESS" of each, and writes what they answered
slots_of() {
    for address; do
        case $address in *:*) host=[$address] ;; *) host=$address ;; esac
        echo "url = \"http://$host:$ROOST_INTERNAL_PORT/slots\""
        echo "output = \"$known/$address.new\""
        echo "write-out = \"%{exitcode} %{http_code} $address\\n\""
        echo 'max-time = 2'
        echo 'max-filesize = 65536'
        echo 'noproxy = "*"'
        # by standard input: a command line is for all to read
        [ -z "$ROOST_INTERNAL_TOKEN" ] || echo "header = \"Authorization: Bearer $ROOST_INTERNAL_TOKEN\""
        echo next
    done | sed '$d' | curl --disable --silent --globoff --parallel --parallel-immediate --config - 2>/dev/null
}
