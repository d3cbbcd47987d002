-- A new recipient and one of 10,000 client addresses, each as a number that stands for
-- the key that the service would have made of it.
\set recipient random(1, 9223372036854775807)
\set client random(1, 10000)
\set message random(1, 9223372036854775807)
\set first random(1, 9223372036854775807)
\set second random(1, 9223372036854775807)

-- The work of an otpd pair, one function of functions_schema.sql and one transaction for
-- each of its three steps.
SELECT otp_send(:recipient, :client, :message, :first, :sealed_record, :memory_sent,
                :sealed_message, :no_history);
SELECT otp_verify(:recipient, :client, :second, :sealed_record, :memory_verified);
SELECT otp_settle(:recipient, :message, :first, :second, :history_sent);
