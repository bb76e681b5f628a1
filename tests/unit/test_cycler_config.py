"""`[cycler]` of the configuration."""

import tomllib

import pytest

from portcullis.cycler.config import DEFAULT_CLASSES, CyclerConfig
from portcullis.runtime.config import ConfigError, ConfigSource

EXAMPLE = """
[[cycler.stream]]
client_id = 0xFFF00001
data_id = 1
mux = "127.0.0.1:32000"
bandwidth_kbit_s = 1000
format = "packets"
provision = "tcp"

[[cycler.stream.class]]
name = "fresh"
every = "2s"
airings = 5
[[cycler.stream.class]]
name = "recent"
every = "30s"
airings = 20
min_share = 0.1
[[cycler.stream.class]]
name = "steady"
every = "30min"
min_share = 0.3
"""


def read(text: str) -> CyclerConfig:
    """The section of a file."""
    return CyclerConfig.of(ConfigSource(None, text, tomllib.loads(text)))


def test_the_documented_example_is_the_default() -> None:
    """One stream, three classes."""
    config = read(EXAMPLE)
    assert config == read("")
    assert config.stream[0].classes == DEFAULT_CLASSES
    assert config.stream[0].name == "0xFFF00001:1"
    assert config.poll == 0.05


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('every = "30min"', 'every = "30min"\nairings = 3'), "airs for ever"),
        (("airings = 20", ""), "last class only"),
        (("min_share = 0.3", "min_share = 0.95"), "adds up to 1.05"),
        (('"recent"', '"fresh"'), "names must differ"),
        (('"2s"', '"0s"'), "more than 0 s"),
        (('"2s"', "2"), "expected a duration"),
        (("data_id = 1", "data_id = 65536"), "65535"),
        (('"127.0.0.1:32000"', '"nowhere"'), "host:port"),
        (('"packets"', '"frames"'), "frames"),
        (("airings = 5", "airing = 5"), "unknown field"),
    ],
)
def test_a_mistake_is_named(change: tuple[str, str], complaint: str) -> None:
    """With the key and what is expected."""
    text = EXAMPLE.replace(*change)
    assert text != EXAMPLE
    with pytest.raises(ConfigError, match=complaint) as caught:
        read(text)
    assert "cycler" in str(caught.value)


def test_two_streams_of_one_name_are_refused() -> None:
    """They would share a lease."""
    with pytest.raises(ConfigError, match="twice"):
        read(EXAMPLE + "[[cycler.stream]]\n")
