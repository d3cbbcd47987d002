-- The outbox: messages that carry codes to their recipients, each written in one
-- transaction with its record.

-- How many messages carried the newest challenge's code.
ALTER TABLE otp_record ADD COLUMN sends integer NOT NULL DEFAULT 1 CHECK (sends >= 0);

CREATE TABLE otp_message (
    -- The record whose code it carries; it leads the key, so that a message lies where
    -- its record lies when the tables are distributed.
    record_key bytea NOT NULL CHECK (octet_length(record_key) = 32),
    -- Random; what providers get as idempotency key.
    message_id bytea NOT NULL CHECK (octet_length(message_id) = 16),
    -- Random, anew at each write: a writer replaces only the version that it read.
    version bigint NOT NULL,
    challenge bytea NOT NULL CHECK (octet_length(challenge) = 16),
    channel text NOT NULL,
    -- How many messages of the same challenge came before it.
    predecessors integer NOT NULL CHECK (predecessors >= 0),
    state text NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'failed', 'dropped')),
    -- Recipient, code and what else its text is made of, sealed by an AEAD; only until
    -- the message is final.
    sealed bytea,
    -- The provider that has it, or had it last.
    provider text NOT NULL,
    -- The attempts so far: providers, times and kinds of error.
    history bytea NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    -- When its code dies.
    expires_at bigint NOT NULL,
    -- When somebody has to look after it: the end of a lease, or the next attempt.
    due_at bigint,
    -- From then on it need not be kept, once it is final.
    removable_at bigint NOT NULL,
    PRIMARY KEY (record_key, message_id),
    CHECK ((state IN ('queued', 'sending')) = (sealed IS NOT NULL)),
    CHECK ((state IN ('queued', 'sending')) = (due_at IS NOT NULL))
)
-- A queue is a table most of whose rows are dead: it is swept up early, so that who
-- looks for the oldest message does not wade through those that are gone.
WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.0,
    autovacuum_analyze_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);

-- What is still to be sent, oldest first.
CREATE INDEX otp_message_pending ON otp_message (created_at) WHERE due_at IS NOT NULL;

CREATE INDEX otp_message_removable_at ON otp_message (removable_at);
