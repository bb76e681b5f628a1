"""The devices file: which boxes to be, and their keys."""

import json
from pathlib import Path

from stbsim.box import Box
from stbsim.errors import InputError

_MAX_ADDRESS = (1 << 40) - 1
_KEY_BYTES = range(16, 33)


def read_devices(path: Path) -> list[Box]:
    """Read `[{"device_id": "1001", "device_key": "hex"}]`.

    Raises:
        InputError: unreadable or not of this form; names the entry, never a key.
    """
    try:
        entries = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON") from error
    if not isinstance(entries, list):
        raise InputError(f"{path}: want a list of devices")
    boxes = {}
    for place, entry in enumerate(entries, start=1):
        try:
            device_id, device_key = int(entry["device_id"]), bytes.fromhex(entry["device_key"])
        except (KeyError, TypeError, ValueError):
            device_id, device_key = 0, b""
        if not 1 <= device_id <= _MAX_ADDRESS or len(device_key) not in _KEY_BYTES:
            raise InputError(
                f"{path}: entry {place}: want device_id 1 to {_MAX_ADDRESS} in decimal "
                "and device_key of 16 to 32 bytes in hex"
            )
        if device_id in boxes:
            raise InputError(f"{path}: entry {place}: device {device_id} stands there twice")
        boxes[device_id] = Box(device_id, device_key)
    return list(boxes.values())
