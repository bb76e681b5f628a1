"""Boxes by the million, made by the database itself."""

from bench.mariadb import Server

WALKED_LONG_AGO = "NOW(6) - INTERVAL 1 DAY"
PRODUCTS = 10
PER_BOX = 3


def states(
    server: Server, boxes: int, products: str = "5", first_aired: str = WALKED_LONG_AGO
) -> None:
    """A state EMM for each box, random behind its header, as if sealed and aired before.

    `products` and `first_aired` are SQL over `seq`, the device_id.
    """
    size = f"(63 + 23 * ({products}))"
    header = (
        f"UNHEX(CONCAT('82', LPAD(HEX(0x7000 | ({size} - 3)), 4, '0'), LPAD(HEX(seq), 10, '0'),"
        " '11110000', HEX(1700000000 + seq MOD 86400)))"
    )
    server.run(
        "INSERT INTO emms (device_id, message_id, part, parts, kind, epoch, number, cause, covers,"
        " revision, tombstone, section, sealed_at, first_aired_at)"
        " SELECT seq, 0, 1, 1, 1, 0, 1700000000 + seq MOD 86400, 'order', 3, 1, 0,"
        f" CONCAT({header}, RANDOM_BYTES({size} - 16)), NOW(6), {first_aired}"
        f" FROM seq_1_to_{boxes}",
        "UPDATE feed SET revision = 1",
        "ANALYZE TABLE emms",
    )


def orderable(server: Server, boxes: int) -> None:
    """Active boxes with three of ten products, all sealed: they can be ordered for."""
    now, everyone = "NOW(6)", f"FROM seq_1_to_{boxes}"
    server.run(
        f"INSERT INTO products (product_id, name, created_at) SELECT seq, seq, {now}"
        f" FROM seq_1_to_{PRODUCTS}",
        f"INSERT INTO devices (device_id, active, added_at) SELECT seq, 1, {now} {everyone}",
        "INSERT INTO entitlements (device_id, product_id, starts_at, ends_at)"
        f" SELECT b.seq, 1 + (b.seq + p.seq) MOD {PRODUCTS}, '2026-01-01', NULL"
        f" FROM seq_1_to_{boxes} b, seq_1_to_{PER_BOX} p",
        "INSERT INTO device_work (device_id, wanted, sealed, state_wanted, state_sealed, epoch,"
        " sequence, cause, priority, tries, held, state_sealed_at)"
        f" SELECT seq, 1, 1, 1, 1, 0, 1700000000, 'order', 0, 0, '{{}}', {now} {everyone}",
        "ANALYZE TABLE `keys`, devices, entitlements, device_work",
    )
