-- What otpd keeps. All instants are milliseconds since the Unix epoch by the
-- clock of this database. Nothing here shows a code or a recipient: record_key is
-- an HMAC, sealed is encrypted, both under keys that the database never sees.

-- The one clock that decisions are made by.
CREATE VIEW otp_clock AS
SELECT floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint AS now;

-- One row for each (caller, recipient, purpose).
CREATE TABLE otp_record (
    -- HMAC-SHA-256 of (caller, recipient, purpose) under the index key. It leads
    -- every unique key, so that the table can be distributed by it.
    record_key bytea PRIMARY KEY CHECK (octet_length(record_key) = 32),
    -- Random, anew at each write: a writer replaces only the version that it read.
    version bigint NOT NULL,
    caller text NOT NULL,
    purpose text NOT NULL,
    -- The newest challenge.
    challenge bytea NOT NULL CHECK (octet_length(challenge) = 16),
    state text NOT NULL CHECK (state IN ('live', 'spent', 'exhausted', 'cancelled')),
    -- Code and recipient, sealed by an AEAD; only while the code can verify.
    sealed bytea,
    channel text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    attempts integer NOT NULL CHECK (attempts >= 0),
    -- When a code was last sent.
    sent_at bigint NOT NULL,
    -- Wrong answers in a row, across codes, and when the last one was judged.
    failures integer NOT NULL CHECK (failures >= 0),
    failed_at bigint NOT NULL,
    -- When the limits on sends per hour and day will be full again.
    hour_full_at bigint NOT NULL,
    day_full_at bigint NOT NULL,
    -- What the last writes answered, for requests that are made again: MACs of the
    -- requests and verdicts, never a code.
    memory bytea NOT NULL,
    -- When this row was last written.
    written_at bigint NOT NULL,
    -- From then on no answer would change if the row were gone.
    removable_at bigint NOT NULL,
    CHECK ((state = 'live') = (sealed IS NOT NULL))
)
-- Room in each page for the next version of its rows: most updates then stay in
-- the page and leave the indexes alone.
WITH (fillfactor = 70);

CREATE INDEX otp_record_removable_at ON otp_record (removable_at);

-- Limits that records share: by client IP, dialling prefix, caller. One that is full
-- needs no row.
CREATE TABLE otp_limit (
    -- HMAC-SHA-256 of what is counted and for whom, under the index key.
    limit_key bytea PRIMARY KEY CHECK (octet_length(limit_key) = 32),
    version bigint NOT NULL,
    -- When its burst will be full again.
    full_at bigint NOT NULL
) WITH (fillfactor = 70);

CREATE INDEX otp_limit_full_at ON otp_limit (full_at);

-- Which index key the records were made with (a MAC, not the key): a replica with
-- another one would not find a single code, and must not start.
CREATE TABLE otp_index_key (
    only_row boolean PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    fingerprint bytea NOT NULL
);
