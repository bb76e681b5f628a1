-- A million boxes, for test_store_explain.py. Groups, divided by "--", are filled side by side.
INSERT INTO devices (device_id, active, added_at) SELECT seq, 1, @at FROM seq_1_to_1000000;
INSERT INTO device_work (device_id, wanted, sealed, state_wanted, state_sealed, epoch, sequence, cause,
  priority, tries, held, state_sealed_at, dirty_at, due_at)
  SELECT seq, 1, seq > 600, 1, seq > 600, 0, 1, 'order', 0, 0, '{}', NOW(6), IF(seq > 600, NULL, @at),
  IF(seq > 600, NULL, @at) FROM seq_1_to_1000000;
INSERT INTO requests (request_id, client_id, transaction_id, kind, device_id, product_id, body, outcome,
  wanted, received_at)
  SELECT LPAD(LOWER(HEX(seq)), 32, '0'), 'sms', seq, 'addentitlement', seq, 1, '{}', 'accepted', 1, @at
  FROM seq_1_to_1000000;
--
INSERT INTO emms (device_id, message_id, part, parts, kind, epoch, number, cause, covers, revision,
  tombstone, section, sealed_at, first_aired_at)
  SELECT seq, 0, 1, 1, 1, 0, 1, 'order', 1, seq DIV 500, 0, REPEAT('s', 100), @at,
  IF(seq > 600, @at, NULL) FROM seq_1_to_1000000;
INSERT INTO entitlements (device_id, product_id, starts_at)
  SELECT seq, 1 + seq MOD 10, @at FROM seq_1_to_1000000;
INSERT INTO transactions (client_id, transaction_id, request_id, body_hash, accepted_at)
  SELECT 'sms', seq, LPAD(LOWER(HEX(seq)), 32, '0'), 'h', @at FROM seq_1_to_1000000;
--
INSERT INTO `keys` (purpose, owner, first_epoch, last_epoch, master_id, sealed_key, created_at)
  SELECT 'device', seq, 0, 65535, 'm1', 'k', @at FROM seq_1_to_1000000;
INSERT INTO `keys` (purpose, owner, first_epoch, last_epoch, master_id, sealed_key, created_at,
  live_epoch, seal_epoch, live_since)
  SELECT 'product', seq, 1, 64, 'm1', 'k', @at, 1, 1, @at FROM seq_1_to_10;
INSERT INTO airings (device_id, message_id, wanted, sealed_at)
  SELECT seq, 0, 1, @at FROM seq_1_to_1000000;
INSERT INTO messages (device_id, text, duration_s, position, priority, starts_at, expires_at, wanted,
  sealed, withdrawal_sealed)
  SELECT seq, 'text', 0, 0, 0, @at, '2100-01-01', 1, 1, 0 FROM seq_1_to_200000;
INSERT INTO products (product_id, name, created_at) SELECT seq, seq, @at FROM seq_1_to_10;
UPDATE feed SET revision = 2000;
