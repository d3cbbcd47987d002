-- Updates that stay in their page, and tables that are swept up before they grow.

-- In which hour a limit is full again, after which it may be removed. An index on
-- full_at itself would change with each request that is counted; this one changes once
-- an hour at most, so that counting leaves the indexes alone.
ALTER TABLE otp_limit
ADD COLUMN full_hour bigint GENERATED ALWAYS AS (full_at / 3600000) STORED;

CREATE INDEX otp_limit_full_hour ON otp_limit (full_hour);

DROP INDEX otp_limit_full_at;

-- A record is written twice at least, by a send and by the verification soon after it:
-- half of each page is kept for the second.
ALTER TABLE otp_record SET (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

ALTER TABLE otp_limit SET (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
