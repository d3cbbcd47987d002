-- A new recipient and one of 10,000 client addresses, each as a number that stands for
-- the key that the service would have made of it.
\set recipient random(1, 9223372036854775807)
\set client random(1, 10000)
\set message random(1, 9223372036854775807)
\set first random(1, 9223372036854775807)
\set second random(1, 9223372036854775807)

-- full_transactions.sql with its statements in pipelines: what is loaded comes in one
-- round trip, and what is written, with its commit, in another.

-- Send.
\startpipeline
SELECT now FROM otp_clock;
SELECT * FROM otp_record WHERE record_key = sha256(int8send(:recipient));
SELECT * FROM otp_limit WHERE limit_key = sha256(int8send(:client));
\endpipeline
\startpipeline
BEGIN;
INSERT INTO otp_limit AS old (limit_key, version, full_at)
SELECT sha256(int8send(:client)), :first, now + 36 FROM otp_clock
ON CONFLICT (limit_key) DO UPDATE
SET version = EXCLUDED.version, full_at = greatest(old.full_at + 36, EXCLUDED.full_at)
WHERE old.full_at <= EXCLUDED.full_at + 3600000 - 72;
INSERT INTO otp_record AS old (
    record_key, version, caller, purpose, challenge, state, sealed, channel, created_at,
    expires_at, attempts, sent_at, failures, failed_at, hour_full_at, day_full_at, memory,
    written_at, removable_at, sends
)
SELECT
    sha256(int8send(:recipient)), :first, 'development', 'default',
    substr(sha256(int8send(:first)), 1, 16), 'live', :sealed_record, 'sms', now, now + 300000,
    0, now, 0, 0, now + 720000, now + 8640000, :memory_sent, now, now + 8640000, 1
FROM otp_clock
ON CONFLICT (record_key) DO UPDATE
SET version = EXCLUDED.version, challenge = EXCLUDED.challenge, state = EXCLUDED.state,
    sealed = EXCLUDED.sealed, channel = EXCLUDED.channel, created_at = EXCLUDED.created_at,
    expires_at = EXCLUDED.expires_at, attempts = 0, sent_at = EXCLUDED.sent_at,
    hour_full_at = EXCLUDED.hour_full_at, day_full_at = EXCLUDED.day_full_at,
    memory = EXCLUDED.memory, written_at = EXCLUDED.written_at,
    removable_at = EXCLUDED.removable_at, sends = 1;
INSERT INTO otp_message (
    record_key, message_id, version, challenge, channel, predecessors, state, sealed, provider,
    history, created_at, updated_at, expires_at, due_at, removable_at
)
SELECT
    sha256(int8send(:recipient)), substr(sha256(int8send(:message)), 1, 16), :first,
    substr(sha256(int8send(:first)), 1, 16), 'sms', 0, 'sending', :sealed_message, '',
    :no_history, now, now, now + 300000, now + 15000, now + 3900000
FROM otp_clock;
COMMIT;
\endpipeline

-- Verify.
\startpipeline
SELECT now FROM otp_clock;
SELECT * FROM otp_record WHERE record_key = sha256(int8send(:recipient));
SELECT * FROM otp_limit WHERE limit_key = sha256(int4send(:client::integer));
\endpipeline
UPDATE otp_record
SET version = :second, state = 'spent', sealed = NULL, attempts = 1, failures = 0,
    memory = memory || :memory_verified, written_at = now
FROM otp_clock
WHERE record_key = sha256(int8send(:recipient)) AND version = :first;

-- Settle.
UPDATE otp_message AS message
SET version = :second, state = 'sent', sealed = NULL, provider = 'log',
    history = :history_sent, updated_at = now, due_at = NULL
FROM otp_clock
WHERE record_key = sha256(int8send(:recipient))
    AND message_id = substr(sha256(int8send(:message)), 1, 16) AND version = :first;
