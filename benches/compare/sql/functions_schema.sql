-- The statements of full_statements.sql, split where PL/pgSQL can: a function plans each
-- of them once in a session, and none is a CTE.
CREATE FUNCTION otp_send(
    the_recipient bigint, the_client bigint, the_message bigint, the_version bigint,
    sealed_record bytea, memory_sent bytea, sealed_message bytea, no_history bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    the_time CONSTANT bigint := floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint;
    the_key CONSTANT bytea := sha256(int8send(the_recipient));
    the_challenge CONSTANT bytea := uuid_send(gen_random_uuid());
BEGIN
    INSERT INTO otp_limit AS old (limit_key, version, full_at)
    VALUES (sha256(int8send(the_client)), the_version, the_time + 36)
    ON CONFLICT (limit_key) DO UPDATE
    SET version = EXCLUDED.version, full_at = greatest(old.full_at + 36, EXCLUDED.full_at)
    WHERE old.full_at <= EXCLUDED.full_at + 3600000 - 72;
    IF NOT FOUND THEN
        RETURN FALSE;
    END IF;
    INSERT INTO otp_record AS old (
        record_key, version, caller, purpose, challenge, state, sealed, channel, created_at,
        expires_at, attempts, sent_at, failures, failed_at, hour_full_at, day_full_at, memory,
        written_at, removable_at, sends
    )
    VALUES (
        the_key, the_version, 'development', 'default', the_challenge, 'live', sealed_record,
        'sms', the_time, the_time + 300000, 0, the_time, 0, 0, the_time + 720000,
        the_time + 8640000, memory_sent, the_time, the_time + 8640000, 1
    )
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
        AND old.day_full_at + 8640000 <= EXCLUDED.sent_at + 86400000;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'too soon';
    END IF;
    INSERT INTO otp_message (
        record_key, message_id, version, challenge, channel, predecessors, state, sealed,
        provider, history, created_at, updated_at, expires_at, due_at, removable_at
    )
    VALUES (
        the_key, substr(sha256(int8send(the_message)), 1, 16), the_version, the_challenge, 'sms',
        0, 'sending', sealed_message, '', no_history, the_time, the_time, the_time + 300000,
        the_time + 15000, the_time + 3900000
    );
    RETURN TRUE;
END
$$;

CREATE FUNCTION otp_verify(
    the_recipient bigint, the_client bigint, the_version bigint, sealed_record bytea,
    memory_verified bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    the_time CONSTANT bigint := floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint;
BEGIN
    PERFORM FROM otp_limit
    WHERE limit_key = sha256(int4send(the_client::integer)) AND full_at + 36 > the_time + 3600000;
    IF FOUND THEN
        RETURN FALSE;
    END IF;
    UPDATE otp_record
    SET version = the_version, state = 'spent', sealed = NULL, attempts = attempts + 1,
        failures = 0, memory = memory || memory_verified, written_at = the_time
    WHERE record_key = sha256(int8send(the_recipient)) AND state = 'live'
        AND expires_at > the_time AND attempts < 5 AND sealed = sealed_record;
    RETURN FOUND;
END
$$;

CREATE FUNCTION otp_settle(
    the_recipient bigint, the_message bigint, old_version bigint, new_version bigint,
    history_sent bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE otp_message
    SET version = new_version, state = 'sent', sealed = NULL, provider = 'log',
        history = history_sent,
        updated_at = floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint, due_at = NULL
    WHERE record_key = sha256(int8send(the_recipient))
        AND message_id = substr(sha256(int8send(the_message)), 1, 16) AND version = old_version;
    RETURN FOUND;
END
$$;
