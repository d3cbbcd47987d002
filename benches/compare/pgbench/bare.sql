-- The least that can be called sending and verifying: no limits, no attempts, no message.
\set recipient random(1, 9223372036854775807)
INSERT INTO bare_code (recipient, code, expires_at, used)
VALUES (sha256(int8send(:recipient)), '123456',
        floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint + 300000, FALSE)
ON CONFLICT (recipient) DO UPDATE
SET code = EXCLUDED.code, expires_at = EXCLUDED.expires_at, used = FALSE;
UPDATE bare_code SET used = TRUE
WHERE recipient = sha256(int8send(:recipient)) AND code = '123456' AND NOT used
    AND expires_at > floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint
RETURNING recipient;
