"""What sections of one configuration must agree on, as no room sees them both."""

from portcullis.cycler.config import CyclerConfig
from portcullis.emmg.config import EmmgConfig
from portcullis.runtime.config import ConfigError, ConfigSource


def check_ca_system_id(source: ConfigSource) -> None:
    """Refuse a stream that announces another CA system than its EMMs are sealed for.

    A box looks for its EMMs under the upper 16 bits of `client_id` and derives its keys from them
    (ETSI TS 103 197 §6; docs/emm-format.md): it would open none. Raises ConfigError.
    """
    sealed_for = EmmgConfig.of(source).ca_system_id
    for stream in CyclerConfig.of(source).stream:
        if (announced := stream.client_id >> 16) != sealed_for:
            raise ConfigError(
                f"cycler.stream {stream.name}: client_id: the upper 16 bits, 0x{announced:04X}, "
                f"are not emmg.ca_system_id, 0x{sealed_for:04X}: no box would open an EMM"
            )
