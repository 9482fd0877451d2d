# shellcheck shell=bash
# One node of Apache Kafka of their own, for the scripts that source this: sets target, AILURUS if it is not set, KAFKA_DIR and
# KAFKA_PORT, has start and ailurus, and takes everything down at the end. Needs java and mvn; KEEP=1 leaves the logs behind.
#   . scripts/one-node.sh NAME
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
built=$target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}debug
if [ -z "${AILURUS:-}" ]; then
    cargo build --locked --quiet --workspace --example publisher --bin ailurus # with the features of tests: scripts/test has built it
    AILURUS=$built/ailurus
fi
for name in "${!REDPANDA_@}"; do unset "$name"; done

export KAFKA_LIBS=${KAFKA_LIBS:-$target/kafka-libs}
KAFKA_DIR=$(mktemp -d "$target/$1-XXXXXX")
export KAFKA_DIR
cleanup() {
    scripts/kafka-local.sh kill 1 || true # what it has is not needed any more
    [ "${KEEP:-}" = 1 ] || rm -rf "$KAFKA_DIR"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
KAFKA_PORT=$(scripts/kafka-local.sh ports)
export KAFKA_PORT

start() { # setting... : with these in its properties; one that runs is ended
    printf '%s\n' "$@" >"$KAFKA_DIR/props"
    local offset tries=0
    scripts/kafka-local.sh kill 1 || true
    for offset in 0 1 2 3 4; do # a process that ends has its ports for a moment still
        while listens $((KAFKA_PORT + offset)) && [ $((tries++)) -lt 100 ]; do sleep 0.1; done
    done
    KAFKA_PROPS=$KAFKA_DIR/props scripts/kafka-local.sh start >/dev/null
}
ailurus() { (cd "$KAFKA_DIR" && timeout 60 "$AILURUS" "$@"); } # in a folder without .env
