-- Messages wait in lanes, one per caller, so that a backlog of one caller does not keep the
-- messages of another one waiting.

-- The caller of the record when the message was written; empty if a version that knows no
-- lanes wrote it. It only says whose turn it is: whose code a message carries is said by its
-- record.
ALTER TABLE otp_message ADD COLUMN caller text NOT NULL DEFAULT '';

-- What is still to be sent, oldest first in each lane.
CREATE INDEX otp_message_waiting ON otp_message (caller, created_at, message_id)
WHERE due_at IS NOT NULL;

-- Replicas of the version before find the same rows by the index above.
DROP INDEX otp_message_pending;
