-- The least that a service could keep of a code. A new table for each run.
CREATE TABLE bare_code (
    recipient bytea PRIMARY KEY,
    code text NOT NULL,
    expires_at bigint NOT NULL,
    used boolean NOT NULL
)
WITH (fillfactor = 70);

-- One row for each of 10,000 counters, to be updated one at a time.
CREATE TABLE bare_counter (id integer PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 70);
INSERT INTO bare_counter SELECT id, 0 FROM generate_series(1, 10000) AS id;
