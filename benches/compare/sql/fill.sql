-- Records of people who logged in over the last hours, as otpd leaves them: codes spent,
-- every second one's message still told of, limits partly used. The variable `records`
-- says how many. Keys are random, so their order is not that of their making.
INSERT INTO otp_record (
    record_key, version, caller, purpose, challenge, state, sealed, channel, created_at,
    expires_at, attempts, sent_at, failures, failed_at, hour_full_at, day_full_at, memory,
    written_at, removable_at, sends
)
SELECT sha256(int8send(-id)), hashint8extended(id, 1), 'development', 'default',
       substr(sha256(int8send(id)), 1, 16), 'spent', NULL, 'sms', at, at + 300000, 1, at, 0, 0,
       at + 720000, at + 8640000,
       -- The two answers of a login, 153 bytes that do not repeat.
       sha256(int8send(id)) || sha256(int8send(id + 1)) || sha256(int8send(id + 2))
           || sha256(int8send(id + 3)) || substr(sha256(int8send(id + 4)), 1, 25),
       at + 20000, at + 8640000, 1
FROM otp_clock, generate_series(1, :records::bigint) AS id,
     -- None is removable yet, so that the table keeps its size.
     LATERAL (SELECT now - 3600000 * id / :records AS at) AS sending;

INSERT INTO otp_message (
    record_key, message_id, version, challenge, channel, predecessors, state, sealed, provider,
    history, created_at, updated_at, expires_at, due_at, removable_at
)
SELECT record_key, substr(sha256(record_key), 1, 16), version, challenge, 'sms', 0, 'sent', NULL,
       'log', substr(sha256(challenge), 1, 21), created_at, created_at + 3, expires_at, NULL,
       expires_at + 3600000
FROM otp_record
WHERE get_byte(record_key, 0) % 2 = 0;

-- Of client addresses that nobody here comes from.
INSERT INTO otp_limit (limit_key, version, full_at)
SELECT sha256(int8send(-id)), hashint8extended(id, 1), now + 3600000
FROM otp_clock, generate_series(1, least(:records, 100000)::bigint) AS id;

VACUUM ANALYZE otp_record;
VACUUM ANALYZE otp_message;
VACUUM ANALYZE otp_limit;
