# What the operator's commands share; sourced. They need a POSIX shell, docker and its compose plugin, nothing else.
# shellcheck shell=sh
cd "$(dirname "$0")/.."
umask 077

NEED_ENGINE=25 NEED_COMPOSE=2.24

if [ -t 2 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi
title() { printf '%s%s%s\n' "$bold" "$*" "$plain" >&2; }
say() { printf '  %s\n' "$*" >&2; }
fail() { printf '%sERROR:%s %s\n' "$bold" "$plain" "$*" >&2; exit 1; }

compose() { docker compose "$@"; }

# setting NAME DEFAULT: as compose sees it, from the environment or .env
setting() {
    eval "value=\${$1-}"
    if [ -z "$value" ] && [ -f .env ]; then
        value=$(sed -n "s/^[[:space:]]*\(export \)\{0,1\}$1[[:space:]]*=[[:space:]]*//p" .env | tail -n 1 |
            sed "s/[[:space:]][[:space:]]*#.*$//; s/[[:space:]]*$//; s/^\"\(.*\)\"\$/\1/; s/^'\(.*\)'\$/\1/")
    fi
    printf '%s\n' "${value:-$2}"
}

# at_least HAVE NEED: versions, by their first two numbers
at_least() {
    printf '%s %s\n' "$1" "$2" | awk '{ split($1, a, "."); split($2, b, "."); exit !(a[1] + 0 > b[1] + 0 || (a[1] + 0 == b[1] + 0 && a[2] + 0 >= b[2] + 0)) }'
}

project() { compose config 2>/dev/null | sed -n 's/^name: //p'; }
# of SERVICE KEY: what compose knows of a service
of() { compose config 2>/dev/null | awk -v service="$1:" -v key="$2:" '/^  [a-z]/ { at = $1 } /^[a-z]/ { top = $1 } top == "services:" && at == service && $1 == key { print $2; exit }'; }
app_image() { of app image; }
replicas() { count=$(of app replicas); echo "${count:-1}"; }

# containers SERVICE: ids of those that run
containers() { compose ps --quiet "$1" 2>/dev/null; }

# address CONTAINER: on the network that nginx and the app share
address() { docker inspect --format "{{with index .NetworkSettings.Networks \"${network:=$(project)_edge}\"}}{{.IPAddress}}{{end}}" "$1"; }
health() { docker inspect --format '{{if .State.Health}}{{.State.Status}}/{{.State.Health.Status}}{{else}}{{.State.Status}}/none{{end}}' "$1" 2>/dev/null || echo gone/none; }

# wait_healthy SECONDS CONTAINER...: fails at once when one ends
wait_healthy() {
    left=$(($1 * 2))
    shift
    for container; do
        while :; do
            state=$(health "$container")
            case $state in
            running/healthy) break ;;
            exited/* | dead/* | restarting/* | gone/* | */unhealthy) return 1 ;;
            esac
            [ "$(docker inspect --format '{{.RestartCount}}' "$container")" = 0 ] || return 1
            left=$((left - 1))
            [ "$left" -gt 0 ] || return 1
            sleep 0.5
        done
    done
}

# build SERVICE...: quietly, but for what the step said that failed
build() {
    # shellcheck disable=SC2086
    said=$(BUILDKIT_PROGRESS=plain compose build ${BUILD_FLAGS-} "$@" 2>&1) && return
    printf '%s\n' "$said" | awk '
        { step = $1; line = $0; sub(/^#[0-9]+ ([0-9.]+ )?/, "", line); text[step] = text[step] line "\n" }
        $2 == "ERROR:" { failed = step }
        END { printf "%s", failed == "" ? $0 "\n" : text[failed] }' >&2
    fail "the image could not be built"
}

host() { setting NGINX_HOSTS localhost | tr ', ' '\n\n' | grep -v '^\*' | grep . | head -n 1; }
site() {
    if [ "$(setting NGINX_TLS on)" = off ]; then scheme=http port=$(setting HTTP_PORT 80) usual=80
    else scheme=https port=$(setting HTTPS_PORT 443) usual=443; fi
    [ "$port" = "$usual" ] && port='' || port=:$port
    printf '%s://%s%s%s\n' "$scheme" "$(host)" "$port" "$(setting SMOKE_PATH /)"
}

# visit URL VIA [OPTION...]: the smoke test, in a container that ends with it
visit() {
    url=$1 via=$2
    shift 2
    compose run --rm -T --no-deps smoke "$url" --via "$via" --click "$(setting SMOKE_CLICK auto)" "$@" </dev/null
}
inside() { if [ "$(setting NGINX_TLS on)" = off ]; then echo nginx:8080; else echo nginx:8443; fi; }

port_taken() {
    hex=$(printf '%04X' "$1")
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port=":$hex\$" '$4 == "0A" && $2 ~ port { found = 1 } END { exit !found }'
}
memory_mb() { awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null; }
disk_mb() {
    folder=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null)
    [ -d "$folder" ] || folder=.
    df -Pk "$folder" 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }'
}

# what every command that changes something needs, checked before it does
need_engine() {
    command -v docker >/dev/null || fail "docker is not installed: https://docs.docker.com/engine/install/"
    engine=$(docker version --format '{{.Server.Version}}' 2>&1) ||
        fail "the Docker engine does not answer: start it (systemctl start docker), or add yourself to the group docker. It says: $engine"
    at_least "$engine" $NEED_ENGINE || fail "Docker engine $engine is too old: $NEED_ENGINE or newer is needed"
    version=$(compose version --short 2>/dev/null) || fail "the compose plugin is missing: install docker-compose-plugin"
    at_least "${version#v}" $NEED_COMPOSE || fail "Docker Compose $version is too old: $NEED_COMPOSE or newer is needed"
    say "engine $engine, compose $version"
}
need_config() {
    problem=$(compose config --quiet 2>&1) || fail "the configuration is wrong (.env, compose files): $problem"
    app=$(setting APP ./app/examples/counter)
    [ -d "$app" ] || fail "APP is $app, and there is no such folder (it must be the app's folder, not a file)"
    say "configuration is valid, app in $app"
}
need_room() {
    have=$(memory_mb)
    [ -z "$have" ] || [ "$have" -ge "$1" ] || fail "$have MB of memory are free, and $1 MB are needed"
    free=$(disk_mb)
    [ -z "$free" ] || [ "$free" -ge "$2" ] || fail "$free MB of disk are free, and $2 MB are needed: docker system prune"
    say "memory ${have:-?} MB, disk ${free:-?} MB free"
}
need_ports() {
    [ -z "$(containers nginx)" ] || { say "ports are the appliance's own"; return; }
    for port in "$(setting HTTP_PORT 80)" "$(setting HTTPS_PORT 443)"; do
        ! port_taken "$port" || fail "port $port is in use by another program: stop it, or set HTTP_PORT and HTTPS_PORT in .env"
    done
    say "ports are free"
}

# one command at a time changes things
lock() {
    mkdir .roost.lock 2>/dev/null || {
        other=$(cat .roost.lock/pid 2>/dev/null || echo '?')
        kill -0 "$other" 2>/dev/null && fail "another command is at work (process $other)"
        say "the lock of a command that has ended is taken over"
    }
    echo $$ >.roost.lock/pid
}
unlock() { rm -rf .roost.lock; }
