-- A new recipient and one of 10,000 client addresses, each as a number that stands for
-- the key that the service would have made of it.
\set recipient random(1, 9223372036854775807)
\set client random(1, 10000)
\set message random(1, 9223372036854775807)
\set first random(1, 9223372036854775807)
\set second random(1, 9223372036854775807)

-- The work of an otpd pair, as one statement and one transaction for each of its three
-- steps. The rules are in the statements, so there is nothing to load first.

-- Send: the client's limit is taken, the record made or replaced, its message queued.
WITH clock AS MATERIALIZED (
    SELECT now FROM otp_clock
),
taken AS (
    INSERT INTO otp_limit AS old (limit_key, version, full_at)
    SELECT sha256(int8send(:client)), :first, now + 36 FROM clock
    ON CONFLICT (limit_key) DO UPDATE
    SET version = EXCLUDED.version, full_at = greatest(old.full_at + 36, EXCLUDED.full_at)
    WHERE old.full_at <= EXCLUDED.full_at + 3600000 - 72
    RETURNING limit_key
),
made AS (
    INSERT INTO otp_record AS old (
        record_key, version, caller, purpose, challenge, state, sealed, channel, created_at,
        expires_at, attempts, sent_at, failures, failed_at, hour_full_at, day_full_at, memory,
        written_at, removable_at, sends
    )
    SELECT sha256(int8send(:recipient)), :first, 'development', 'default',
           uuid_send(gen_random_uuid()), 'live', :sealed_record, 'sms', now, now + 300000, 0, now,
           0, 0, now + 720000, now + 8640000, :memory_sent, now, now + 8640000, 1
    FROM clock, taken
    ON CONFLICT (record_key) DO UPDATE
    SET version = EXCLUDED.version, challenge = EXCLUDED.challenge, state = EXCLUDED.state,
        sealed = EXCLUDED.sealed, channel = EXCLUDED.channel,
        created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at, attempts = 0,
        sent_at = EXCLUDED.sent_at,
        hour_full_at = greatest(old.hour_full_at + 720000, EXCLUDED.hour_full_at),
        day_full_at = greatest(old.day_full_at + 8640000, EXCLUDED.day_full_at),
        memory = EXCLUDED.memory, written_at = EXCLUDED.written_at,
        removable_at = EXCLUDED.removable_at, sends = 1
    WHERE (old.state = 'spent' OR old.sent_at + 60000 <= EXCLUDED.sent_at)
        AND old.hour_full_at + 720000 <= EXCLUDED.sent_at + 3600000
        AND old.day_full_at + 8640000 <= EXCLUDED.sent_at + 86400000
    RETURNING record_key, challenge
)
INSERT INTO otp_message (
    record_key, message_id, version, challenge, channel, predecessors, state, sealed, provider,
    history, created_at, updated_at, expires_at, due_at, removable_at
)
SELECT record_key, substr(sha256(int8send(:message)), 1, 16), :first, challenge, 'sms', 0,
       'sending', :sealed_message, '', :no_history, now, now, now + 300000, now + 15000,
       now + 3900000
FROM made, clock;

-- Verify: the code is judged and spent.
UPDATE otp_record AS record
SET version = :second, state = 'spent', sealed = NULL, attempts = attempts + 1, failures = 0,
    memory = memory || :memory_verified, written_at = now
FROM otp_clock
WHERE record_key = sha256(int8send(:recipient)) AND state = 'live' AND expires_at > now
    AND attempts < 5 AND sealed = :sealed_record
    AND NOT EXISTS (
        SELECT FROM otp_limit
        WHERE limit_key = sha256(int4send(:client::integer)) AND full_at + 36 > now + 3600000
    );

-- Settle: the provider has the message.
UPDATE otp_message AS message
SET version = :second, state = 'sent', sealed = NULL, provider = 'log',
    history = :history_sent, updated_at = now, due_at = NULL
FROM otp_clock
WHERE record_key = sha256(int8send(:recipient))
    AND message_id = substr(sha256(int8send(:message)), 1, 16) AND version = :first;
