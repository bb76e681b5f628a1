"""`portcullis keys …`: masters, device keys, product key chains."""

from collections.abc import Mapping
from datetime import UTC, datetime

import click
from sqlalchemy import Engine, func, select

from portcullis.cli.context import Context, common_options
from portcullis.cli.encryptors import each_encryptor, encryptor
from portcullis.cli.key_import import import_devices
from portcullis.cli.progress import progress_bar
from portcullis.encryptor.config import EncryptorConfig
from portcullis.runtime.config import ConfigSource
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorUnavailableError
from portcullis.scheduler import master as masters
from portcullis.scheduler.chains import rotate_now
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store.blacklist import repair_number
from portcullis.store.rekey import read_rotations
from portcullis.store.rewrap import count_by_master
from portcullis.store.schema import keys as key_rows

_CHAIN_COLUMNS = (
    "product_id",
    "first_epoch",
    "last_epoch",
    "live_epoch",
    "seal_epoch",
    "switch_at",
    "retired_at",
    "master_id",
)
_ROTATION_COLUMNS = (
    "product_id",
    "new_epoch",
    "begun_at",
    "boxes",
    "marked",
    "sealed",
    "skipped",
    "cycles_aired",
    "ends_at",
)
_MASTER_COLUMNS = ("master_id", "state", "check_value", "keys", "encryptor")


@click.group()
def keys() -> None:
    """Masters, device keys and product key chains. No key is ever shown."""


keys.add_command(import_devices)


def new_master_id() -> str:
    """A name that tells when the master was made."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}"


def init_keys(source: ConfigSource) -> tuple[bool, str]:
    """Make what is missing of master and import key.

    Returns whether a master was made, and the recipient that vendors encrypt key files to.
    """
    made, import_key = EncryptorConfig.of(source).init_keys(new_master_id())
    return made, import_key.recipient()


@keys.command()
@common_options
@click.pass_obj
def init(context: Context) -> None:
    """Make the first master and the import key, as [encryptor] says. Run it on that host.

    Keep a copy of the master where the database's backups are not: without it nothing opens.
    The import recipient is for the chip vendors, who encrypt their key files to it.
    """
    made, recipient = init_keys(context.source())
    state = "made" if made else "was there already; left as it is"
    context.show({"master_key": state, "import_recipient": recipient})


@keys.command("list")
@common_options
@click.pass_obj
def list_keys(context: Context) -> None:
    """List product key chains, masters, and the number of device keys."""
    with context.database() as engine:
        context.show_rows(_chains(engine), _CHAIN_COLUMNS)
        context.show_rows(_rotations(engine), _ROTATION_COLUMNS)
        counts = count_by_master(engine)
        device_keys = _count_device_keys(engine)
    known: list[dict[str, object]] = []
    try:
        with each_encryptor(context) as encryptors:
            for one_of_them in encryptors:
                info = one_of_them.info()
                known += [_describe(one, one_of_them.address, counts) for one in info.masters]
                context.show({"import_recipient": info.import_recipient or None})
    except EncryptorUnavailableError as error:
        context.show({"masters": str(error)})
    here = {row["master_id"] for row in known}
    for one, count in counts.items():
        if one not in here:
            known.append(dict.fromkeys(_MASTER_COLUMNS) | {"master_id": one, "keys": count})
    context.show_rows(known, _MASTER_COLUMNS)
    context.show({"device_keys": device_keys})


def _chains(engine: Engine) -> list[Mapping[str, object]]:
    with engine.connect() as connection:
        rows = connection.execute(
            select(key_rows)
            .where(key_rows.c.purpose == "product")
            .order_by(key_rows.c.owner, key_rows.c.first_epoch)
        ).mappings()
        return [
            {"product_id": row["owner"]} | {name: row[name] for name in _CHAIN_COLUMNS[1:]}
            for row in rows
        ]


def _rotations(engine: Engine) -> list[dict[str, object]]:
    """The rotations under way."""
    return [
        {"product_id": one.product_id, "new_epoch": one.seal_epoch}
        | {name: getattr(one, name) for name in _ROTATION_COLUMNS[2:]}
        for one in read_rotations(engine)
        if one.switched_at is None
    ]


def _count_device_keys(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(
            select(func.count()).select_from(key_rows).where(key_rows.c.purpose == "device")
        ).scalar_one()


def _describe(master: pb.Master, address: str, counts: dict[str, int]) -> dict[str, object]:
    return {
        "master_id": master.master_id,
        "state": pb.Master.State.Name(master.state).lower(),
        "check_value": master.check_value,
        "keys": counts.get(master.master_id, 0),
        "encryptor": address,
    }


@keys.command()
@click.option("--product", "product_id", type=int, help="The product, with --now.")
@click.option("--now", is_flag=True, help="Start a new chain; do not wait for its time.")
@click.option("--master", "is_master", is_flag=True, help="Make a new master and rewrap all keys.")
@common_options
@click.pass_obj
def rotate(context: Context, product_id: int | None, *, now: bool, is_master: bool) -> None:
    """Start a new key chain of a product, or change the master.

    --product P --now: after a compromise or a blacklisting. Boxes are given both keys; the new one
    goes live, and the old chain retires, once every box has had it for `scheduler.air_cycles`.

    --master: everything goes on meanwhile. Run again, it goes on where it was.
    """
    if is_master and product_id is None and not now:
        _rotate_master(context)
    elif product_id is not None and now and not is_master:
        _rotate_product(context, product_id)
    else:
        raise click.UsageError("give either --product P --now, or --master")


def _rotate_product(context: Context, product_id: int) -> None:
    config = SchedulerConfig.of(context.source())
    with context.database() as engine, encryptor(context) as client:
        try:
            since = rotate_now(engine, client, product_id, config.chain_epochs)
        except LookupError as error:
            raise click.BadParameter(str(error)) from error
    context.show({"product_id": product_id, "new_chain_since": since})


def _rotate_master(context: Context) -> None:
    with context.database() as engine, each_encryptor(context) as encryptors:
        master_id, is_new = masters.begin_master_change(engine, encryptors, new_master_id())
        counts = count_by_master(engine)
        total = sum(counts.values()) - counts.get(master_id, 0)
        with progress_bar(context, "keys rewrapped", total) as advance:
            result = masters.rewrap_all(engine, encryptors[0], master_id, advance)
    context.show(
        {"master_id": master_id, "master": "made" if is_new else "gone on with"}
        | {"rewrapped": result.done, "refused": len(result.refused)}
    )
    _report_refused(context, result)


@keys.command()
@click.option("--master", "master_id", required=True, help="Its master_id, as `keys list` says.")
@common_options
@click.pass_obj
def retire(context: Context, master_id: str) -> None:
    """Put a master aside that no key needs any more: it opens no row from now on.

    Keep it off this machine for as long as backups sealed under it are kept.
    """
    with context.database() as engine, each_encryptor(context) as encryptors:
        masters.retire_master(engine, encryptors, master_id)
    context.show({"retired": master_id})


@keys.command()
@click.option("--master", "master_id", required=True, help="Its master_id.")
@common_options
@click.pass_obj
def recall(context: Context, master_id: str) -> None:
    """Have a retired master open rows again: a backup that it has sealed was restored."""
    with context.database() as engine, each_encryptor(context) as encryptors:
        masters.recall_master(engine, encryptors, master_id)
    context.show({"recalled": master_id})


@keys.command()
@common_options
@click.pass_obj
def verify(context: Context) -> None:
    """Have the encryptor open every key and say which do not; status 1 if any does not."""
    with context.database() as engine, each_encryptor(context) as encryptors:
        total = sum(count_by_master(engine).values())
        with progress_bar(context, "keys verified", total) as advance:
            result = masters.verify_all(engine, encryptors[0], advance)
    context.show({"opened": result.done, "refused": len(result.refused)})
    _report_refused(context, result)


def _report_refused(context: Context, result: masters.Rewrapped) -> None:
    """Show the keys that do not open; exit with status 1 if there are any."""
    rows = [
        {
            "purpose": pb.SealedKey.Purpose.Name(key.purpose).lower(),
            "owner": key.owner,
            "first_epoch": key.first_epoch,
            "reason": reason,
        }
        for key, reason in result.refused
    ]
    if rows:
        context.show_rows(rows, ("purpose", "owner", "first_epoch", "reason"))
        raise SystemExit(1)


@keys.command("repair-number")
@click.option("--device", "device_id", type=int, required=True, help="The device.")
@common_options
@click.pass_obj
def repair_device_number(context: Context, device_id: int) -> None:
    """Raise a box's key epoch because its number ran away; refused where it has not.

    A number a day or more ahead of the clock (a wrong clock made it) would be ahead of all that
    the box is ever told: with a new epoch it hears the next state.
    """
    with context.database() as engine:
        epoch = repair_number(engine, device_id)
    context.show({"device_id": device_id, "epoch": epoch})
