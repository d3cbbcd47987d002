-- What otpd keeps. All instants are milliseconds since the Unix epoch by the
-- clock of this machine. Nothing here shows a code or a recipient: record_key is
-- an HMAC, sealed is encrypted, both under keys that the database never sees.

-- The one clock that decisions are made by.
CREATE VIEW otp_clock AS
SELECT CAST(round(unixepoch('now', 'subsec') * 1000) AS INTEGER) AS now;

-- One row for each (caller, recipient, purpose).
CREATE TABLE otp_record (
    -- HMAC-SHA-256 of (caller, recipient, purpose) under the index key.
    record_key BLOB NOT NULL PRIMARY KEY CHECK (length(record_key) = 32),
    -- Random, anew at each write: a writer replaces only the version that it read.
    version INTEGER NOT NULL,
    caller TEXT NOT NULL,
    purpose TEXT NOT NULL,
    -- The newest challenge.
    challenge BLOB NOT NULL CHECK (length(challenge) = 16),
    state TEXT NOT NULL CHECK (state IN ('live', 'spent', 'exhausted', 'cancelled')),
    -- Code and recipient, sealed by an AEAD; only while the code can verify.
    sealed BLOB,
    channel TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    -- When a code was last sent.
    sent_at INTEGER NOT NULL,
    -- Wrong answers in a row, across codes, and when the last one was judged.
    failures INTEGER NOT NULL CHECK (failures >= 0),
    failed_at INTEGER NOT NULL,
    -- When the limits on sends per hour and day will be full again.
    hour_full_at INTEGER NOT NULL,
    day_full_at INTEGER NOT NULL,
    -- What the last writes answered, for requests that are made again: MACs of the
    -- requests and verdicts, never a code.
    memory BLOB NOT NULL,
    -- When this row was last written.
    written_at INTEGER NOT NULL,
    -- From then on no answer would change if the row were gone.
    removable_at INTEGER NOT NULL,
    CHECK ((state = 'live') = (sealed IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX otp_record_removable_at ON otp_record (removable_at);

-- Limits that records share: by client IP, dialling prefix, caller. One that is full
-- needs no row.
CREATE TABLE otp_limit (
    -- HMAC-SHA-256 of what is counted and for whom, under the index key.
    limit_key BLOB NOT NULL PRIMARY KEY CHECK (length(limit_key) = 32),
    version INTEGER NOT NULL,
    -- When its burst will be full again.
    full_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX otp_limit_full_at ON otp_limit (full_at);

-- Which index key the records were made with (a MAC, not the key): a replica with
-- another one would not find a single code, and must not start.
CREATE TABLE otp_index_key (
    only_row INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    fingerprint BLOB NOT NULL
) STRICT;
