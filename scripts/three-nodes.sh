# shellcheck shell=bash
# Three nodes of Apache Kafka of their own, for the scripts that source this: sets target, built, KAFKA_DIR, bootstrap and an empty child,
# has kafka and ours, and takes everything down at the end. Needs java and mvn; KEEP=1 leaves the logs behind.
#   . scripts/three-nodes.sh NAME [EXAMPLE]     NODE_PROPS has more settings of the nodes; where two run at once, each has a FIRST_PORT
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
built=$target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}debug

export KAFKA_LIBS=${KAFKA_LIBS:-$target/kafka-libs}
KAFKA_DIR=$(mktemp -d "$target/$1-XXXXXX")
export KAFKA_DIR
# With an example, even where none is needed: those have the features of tests, and then scripts/test has built all of it.
cargo build --locked --quiet --workspace --example "${2:-publisher}" --bin ailurus

kafka() { scripts/kafka-local.sh "$@"; }
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
child= # what is run against the cluster
cleanup() {
    if [ -n "$child" ]; then kill "$child" 2>/dev/null || true; fi
    for node in 1 2 3; do kafka kill $node || true; done # what they have is not needed any more
    [ "${KEEP:-}" = 1 ] || rm -rf "$KAFKA_DIR"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

KAFKA_PORT=
while [ -z "$KAFKA_PORT" ]; do # below the ports that outgoing connections get; node i takes five from +10*(i-1) on
    KAFKA_PORT=$((${FIRST_PORT:-20000} + RANDOM % 5900))
    port=$KAFKA_PORT
    for offset in 0 1 2 3 4 10 11 12 13 14 20 21 22 23 24; do if listens $((port + offset)); then KAFKA_PORT=; fi; done
done
export KAFKA_PORT

# min.insync.replicas as the brokers' default, so that no topic has to be created with it.
printf 'min.insync.replicas=2\nauto.leader.rebalance.enable=false\n%s\n' "${NODE_PROPS:-}" >"$KAFKA_DIR/props"
export KAFKA_PROPS=$KAFKA_DIR/props
bootstrap=$(kafka start 3 | sed -n 's/^bootstrap=//p')
ours() { (cd "$KAFKA_DIR" && REDPANDA_BROKERS=$bootstrap timeout 10 "$built/ailurus" "$@"); } # without .env
