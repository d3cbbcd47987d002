-- The outbox: messages that carry codes to their recipients, each written in one
-- transaction with its record.

-- How many messages carried the newest challenge's code.
ALTER TABLE otp_record ADD COLUMN sends INTEGER NOT NULL DEFAULT 1 CHECK (sends >= 0);

CREATE TABLE otp_message (
    -- The record whose code it carries.
    record_key BLOB NOT NULL CHECK (length(record_key) = 32),
    -- Random; what providers get as idempotency key.
    message_id BLOB NOT NULL CHECK (length(message_id) = 16),
    -- Random, anew at each write: a writer replaces only the version that it read.
    version INTEGER NOT NULL,
    challenge BLOB NOT NULL CHECK (length(challenge) = 16),
    channel TEXT NOT NULL,
    -- How many messages of the same challenge came before it.
    predecessors INTEGER NOT NULL CHECK (predecessors >= 0),
    state TEXT NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'failed', 'dropped')),
    -- Recipient, code and what else its text is made of, sealed by an AEAD; only until
    -- the message is final.
    sealed BLOB,
    -- The provider that has it, or had it last.
    provider TEXT NOT NULL,
    -- The attempts so far: providers, times and kinds of error.
    history BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    -- When its code dies.
    expires_at INTEGER NOT NULL,
    -- When somebody has to look after it: the end of a lease, or the next attempt.
    due_at INTEGER,
    -- From then on it need not be kept, once it is final.
    removable_at INTEGER NOT NULL,
    PRIMARY KEY (record_key, message_id),
    CHECK ((state IN ('queued', 'sending')) = (sealed IS NOT NULL)),
    CHECK ((state IN ('queued', 'sending')) = (due_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- What is still to be sent, oldest first.
CREATE INDEX otp_message_pending ON otp_message (created_at) WHERE due_at IS NOT NULL;

CREATE INDEX otp_message_removable_at ON otp_message (removable_at);
