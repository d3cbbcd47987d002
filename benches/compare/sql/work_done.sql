-- The number of spent records and of sent messages. Every pair of full work adds one to each.
SELECT (SELECT count(*) FROM otp_record WHERE state = 'spent'),
       (SELECT count(*) FROM otp_message WHERE state = 'sent');
