"""Which peer may make which call: by the name in its certificate, over TCP."""

from collections.abc import Collection, Mapping
from typing import Any

from portcullis.runtime.config import Section

CALLS: Mapping[str, str] = {
    "Seal": "seal",
    "SealStates": "seal",
    "MakeChain": "make_chains",
    "ImportDeviceKeys": "import_keys",
    "SameKeys": "import_keys",
    "Rewrap": "change_masters",
    "Verify": "change_masters",
    "ChangeMaster": "change_masters",
}
"""Call → the list of `[encryptor.allow]` that its callers are in. Info is for all of them."""


class AllowConfig(Section, frozen=True):
    """`[encryptor.allow]`: peers by name (DNS name in the certificate); nobody if omitted.

    seal: EMMGs.
    make_chains: schedulers, and operators who rotate product keys by hand.
    import_keys: operators who import device keys.
    change_masters: operators who change the master and check the keys.
    """

    seal: tuple[str, ...] = ()
    make_chains: tuple[str, ...] = ()
    import_keys: tuple[str, ...] = ()
    change_masters: tuple[str, ...] = ()

    def names(self, call: str) -> Collection[str]:
        """Who may make a call."""
        if call == "Info":
            return {name for permit in set(CALLS.values()) for name in getattr(self, permit)}
        names: Collection[str] = getattr(self, CALLS[call])
        return names


def peer_names(auth_context: Mapping[str, Any]) -> list[str]:
    """The names in the certificate that a peer has shown; none without one."""
    return [
        name.decode("ascii", "replace")
        for name in auth_context.get("x509_subject_alternative_name", ())
    ]
