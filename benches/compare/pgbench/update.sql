-- One durable write of one row.
\set id random(1, 10000)
UPDATE bare_counter SET value = value + 1 WHERE id = :id;
