"""`device_work.held`: the highest epoch of each product that was ever sealed for a device."""

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from portcullis.runtime.errors import PortcullisError


class HeldError(PortcullisError):
    """The column holds something else: the row was damaged, or changed by hand."""


@lru_cache(maxsize=4096)  # few bundles of products, many boxes
def read_held(text: str) -> Mapping[int, int]:
    """Product → epoch, of a JSON object; raises HeldError."""
    try:
        found = {int(product): epoch for product, epoch in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise HeldError("device_work.held is no JSON object of epochs by product") from error
    if not all(type(epoch) is int for epoch in found.values()):
        raise HeldError("device_work.held names something that is no epoch")
    return MappingProxyType(found)
