-- Tables of ailurus-postgres, for PostgreSQL 13 or later. Each statement may run again.

-- Events that were handled, by consumer: see Inbox.
CREATE TABLE IF NOT EXISTS ailurus_inbox (
    consumer   text        NOT NULL,
    source     text        NOT NULL,
    event_id   text        NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, source, event_id)
);
CREATE INDEX IF NOT EXISTS ailurus_inbox_claimed_at ON ailurus_inbox (consumer, claimed_at);

-- Per partition: the generation of its last owner, and the offset after its last record (Inbox::in_order).
CREATE TABLE IF NOT EXISTS ailurus_inbox_partitions (
    consumer    text        NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    generation  bigint      NOT NULL,
    next_offset bigint      NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, topic, partition)
) WITH (fillfactor = 50);

-- Records to send: see Outbox. A row is deleted when its record is acknowledged.
CREATE TABLE IF NOT EXISTS ailurus_outbox (
    id            bigserial   PRIMARY KEY,
    event_id      text        NOT NULL DEFAULT gen_random_uuid()::text CHECK (event_id <> ''),
    topic         text        NOT NULL CHECK (topic <> ''),
    partition     integer     CHECK (partition >= 0),
    key           bytea,
    value         bytea,
    header_names  text[]      NOT NULL DEFAULT '{}',
    header_values bytea[]     NOT NULL DEFAULT '{}',
    timestamp_ms  bigint      CHECK (timestamp_ms >= 0),
    created_at    timestamptz NOT NULL DEFAULT now(),
    attempts      integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    retry_at      timestamptz,
    error         text,
    CHECK (coalesce(array_ndims(header_names), 1) = 1 AND coalesce(array_ndims(header_values), 1) = 1),
    CHECK (cardinality(header_names) = cardinality(header_values) AND array_position(header_names, NULL) IS NULL)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX IF NOT EXISTS ailurus_outbox_deferred ON ailurus_outbox (retry_at) WHERE retry_at IS NOT NULL;
