-- What each user may do in the tables, and no more:  mariadb portcullis < grants.sql
-- Run after each `portcullis migrate`, as the grants name the tables.

-- gateway: takes orders; sees which devices have a key, and no key. It deletes no request.
GRANT SELECT ON alembic_version TO portcullis_gateway@'%';
GRANT SELECT, INSERT ON requests TO portcullis_gateway@'%';
GRANT SELECT, INSERT ON transactions TO portcullis_gateway@'%';
GRANT SELECT ON recoveries TO portcullis_gateway@'%';
GRANT SELECT, INSERT, UPDATE ON chains TO portcullis_gateway@'%';
GRANT INSERT ON key_events TO portcullis_gateway@'%';
GRANT SELECT, INSERT, UPDATE ON devices TO portcullis_gateway@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON entitlements TO portcullis_gateway@'%';
GRANT SELECT, INSERT, UPDATE ON products TO portcullis_gateway@'%';
-- A re-hit has messages sealed again.
GRANT SELECT, INSERT, UPDATE (removed_at, sealed, withdrawal_sealed) ON messages
    TO portcullis_gateway@'%';
-- INSERT … ON DUPLICATE KEY UPDATE wants the right to update every column that it inserts.
GRANT SELECT, INSERT, UPDATE ON device_work TO portcullis_gateway@'%';
GRANT SELECT ON airings TO portcullis_gateway@'%';
-- … and what the console shows: where keys and rotations stand, when an EMM is due, the streams.
GRANT SELECT (purpose, owner, first_epoch, last_epoch, master_id, created_at, live_epoch,
    seal_epoch, live_since, switch_at, retired_at) ON `keys` TO portcullis_gateway@'%';
GRANT SELECT ON rotations TO portcullis_gateway@'%';
GRANT SELECT (device_id, message_id, part, tombstone, first_aired_at) ON emms
    TO portcullis_gateway@'%';
GRANT SELECT ON leases TO portcullis_gateway@'%';

-- emmg: seals what is ordered; passes sealed keys on to the encryptor.
GRANT SELECT ON alembic_version TO portcullis_emmg@'%';
GRANT SELECT ON devices TO portcullis_emmg@'%';
GRANT SELECT ON entitlements TO portcullis_emmg@'%';
GRANT SELECT, UPDATE (sealed, withdrawal_sealed) ON messages TO portcullis_emmg@'%';
GRANT SELECT, UPDATE ON device_work TO portcullis_emmg@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON claims TO portcullis_emmg@'%';
GRANT SELECT, INSERT, UPDATE ON queue_places TO portcullis_emmg@'%';
GRANT SELECT ON `keys` TO portcullis_emmg@'%';
GRANT SELECT, INSERT, UPDATE ON emms TO portcullis_emmg@'%';
GRANT SELECT, INSERT, UPDATE ON airings TO portcullis_emmg@'%';
GRANT SELECT, UPDATE (revision) ON feed TO portcullis_emmg@'%';

-- cycler: airs; says when an EMM was first on air.
GRANT SELECT ON alembic_version TO portcullis_cycler@'%';
GRANT SELECT, UPDATE (first_aired_at) ON emms TO portcullis_cycler@'%';
GRANT SELECT, UPDATE (first_aired_at) ON airings TO portcullis_cycler@'%';
GRANT SELECT ON feed TO portcullis_cycler@'%';
GRANT SELECT, INSERT, UPDATE ON leases TO portcullis_cycler@'%';

-- scheduler: keys, re-seals, retention. Alone it deletes requests, once they are archived.
GRANT SELECT ON alembic_version TO portcullis_scheduler@'%';
GRANT SELECT, INSERT, UPDATE ON `keys` TO portcullis_scheduler@'%';
GRANT SELECT ON products TO portcullis_scheduler@'%';
GRANT SELECT ON devices TO portcullis_scheduler@'%';
GRANT SELECT, DELETE ON entitlements TO portcullis_scheduler@'%';
GRANT SELECT, DELETE ON messages TO portcullis_scheduler@'%';
GRANT SELECT, UPDATE ON device_work TO portcullis_scheduler@'%';
GRANT SELECT, UPDATE, DELETE ON emms TO portcullis_scheduler@'%';
GRANT SELECT, DELETE ON airings TO portcullis_scheduler@'%';
GRANT SELECT, DELETE ON transactions TO portcullis_scheduler@'%';
GRANT SELECT, INSERT, DELETE, CREATE, ALTER, DROP ON requests TO portcullis_scheduler@'%';
GRANT SELECT, UPDATE (revision) ON feed TO portcullis_scheduler@'%';
GRANT SELECT, INSERT, UPDATE ON leases TO portcullis_scheduler@'%';
GRANT SELECT, INSERT, UPDATE ON rotations TO portcullis_scheduler@'%';
GRANT SELECT, INSERT, UPDATE ON chains TO portcullis_scheduler@'%';
GRANT SELECT, UPDATE (chains_made_at) ON recoveries TO portcullis_scheduler@'%';
GRANT SELECT, INSERT ON key_events TO portcullis_scheduler@'%';

-- auditor: reads what it keeps a record of, and `portcullis audit reconcile` what is held.
GRANT SELECT ON requests TO portcullis_auditor@'%';
GRANT SELECT ON key_events TO portcullis_auditor@'%';
GRANT SELECT ON chains TO portcullis_auditor@'%';
GRANT SELECT ON devices TO portcullis_auditor@'%';
GRANT SELECT ON entitlements TO portcullis_auditor@'%';

-- keys: `portcullis keys …`.
GRANT SELECT, INSERT, UPDATE ON `keys` TO portcullis_keys@'%';
GRANT SELECT, INSERT, UPDATE ON chains TO portcullis_keys@'%';
GRANT SELECT, INSERT ON key_events TO portcullis_keys@'%';
GRANT SELECT, INSERT, UPDATE ON key_imports TO portcullis_keys@'%';
GRANT SELECT ON rotations TO portcullis_keys@'%';
-- … and `portcullis device blacklist|rehit`: an order, as the gateway writes it, and nothing else.
GRANT SELECT, INSERT ON requests TO portcullis_keys@'%';
GRANT SELECT, INSERT ON transactions TO portcullis_keys@'%';
GRANT SELECT, INSERT, UPDATE ON devices TO portcullis_keys@'%';
GRANT SELECT, DELETE ON entitlements TO portcullis_keys@'%';
GRANT SELECT ON products TO portcullis_keys@'%';
GRANT SELECT, UPDATE (removed_at, sealed, withdrawal_sealed) ON messages TO portcullis_keys@'%';
GRANT SELECT ON recoveries TO portcullis_keys@'%';
GRANT SELECT, INSERT, UPDATE ON device_work TO portcullis_keys@'%';
GRANT SELECT ON leases TO portcullis_keys@'%';

-- operator: `portcullis products|requests|db …`; sees no key.
GRANT SELECT ON alembic_version TO portcullis_operator@'%';
GRANT SELECT ON requests TO portcullis_operator@'%';
GRANT SELECT ON transactions TO portcullis_operator@'%';
GRANT SELECT ON devices TO portcullis_operator@'%';
GRANT SELECT ON entitlements TO portcullis_operator@'%';
GRANT SELECT ON products TO portcullis_operator@'%';
GRANT SELECT ON messages TO portcullis_operator@'%';
GRANT SELECT, UPDATE (due_at, tries, failed_at, last_error) ON device_work
    TO portcullis_operator@'%';
GRANT SELECT (purpose, owner, first_epoch, last_epoch, master_id, created_at, live_epoch,
    seal_epoch, live_since, switch_at, retired_at) ON `keys` TO portcullis_operator@'%';
GRANT SELECT ON emms TO portcullis_operator@'%';
GRANT SELECT ON airings TO portcullis_operator@'%';
GRANT SELECT ON feed TO portcullis_operator@'%';
GRANT SELECT ON leases TO portcullis_operator@'%';
GRANT SELECT ON chains TO portcullis_operator@'%';
GRANT SELECT ON recoveries TO portcullis_operator@'%';
GRANT SELECT ON key_events TO portcullis_operator@'%';

-- admin: `cluster promote`.
GRANT SELECT, UPDATE (timeline) ON feed TO portcullis_admin@'%';
