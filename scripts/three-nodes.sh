# shellcheck shell=bash
# Three nodes of Apache Kafka of their own, for the scripts that source this: sets target, built, KAFKA_DIR, bootstrap and an empty child,
# has kafka and ailurus, and takes everything down at the end. Needs java and mvn; KEEP=1 leaves the logs behind.
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

KAFKA_PORT=$(kafka ports 3)
export KAFKA_PORT

# min.insync.replicas as the brokers' default, so that no topic has to be created with it.
printf 'min.insync.replicas=2\nauto.leader.rebalance.enable=false\n%s\n' "${NODE_PROPS:-}" >"$KAFKA_DIR/props"
export KAFKA_PROPS=$KAFKA_DIR/props
bootstrap=$(kafka start 3 | sed -n 's/^bootstrap=//p')
ailurus() { (cd "$KAFKA_DIR" && REDPANDA_BROKERS=$bootstrap timeout 10 "$built/ailurus" "$@"); } # without .env
