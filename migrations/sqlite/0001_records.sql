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
    -- When this row was last written.
    written_at INTEGER NOT NULL,
    -- From then on no answer would change if the row were gone.
    removable_at INTEGER NOT NULL,
    CHECK ((state = 'live') = (sealed IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX otp_record_removable_at ON otp_record (removable_at);

-- Which index key the records were made with (a MAC, not the key): a replica with
-- another one would not find a single code, and must not start.
CREATE TABLE otp_index_key (
    only_row INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    fingerprint BLOB NOT NULL
) STRICT;
