"""Every `portcullis` and `make` command of the pages exists, with these options and arguments."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

from tests.typed import check_portcullis, stages

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def lines(text: str) -> Iterator[str]:
    """What is typed: in shell blocks, and in a sentence's code."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`((?:portcullis|make) [^`…|<*]+)`", text)


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of ours, without what goes before and where its output goes."""
    for line in lines(text):
        if not re.search(r"\b(portcullis|make) ", line) or line.lstrip().startswith("echo "):
            continue
        for words in stages(line):
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            end = next((n for n, word in enumerate(words) if word[0] in "<>&12;"), len(words))
            if words and words[0].rpartition("/")[2] in ("portcullis", "make"):
                yield [words[0].rpartition("/")[2], *words[1:end]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_has_its_reader_type_is_there(page: Path) -> None:
    for program, *words in commands(page.read_text(encoding="utf-8")):
        if program == "make":
            assert words[0] in TARGETS or words[0].startswith("bench-"), words
            continue
        typed = " ".join(words)
        try:
            # A value may be a placeholder, and left out in a sentence.
            with suppress(click.BadParameter, click.BadOptionUsage):
                check_portcullis(words)
        except click.UsageError as error:
            pytest.fail(f"{typed}: {error.message}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_files_that_a_page_has_its_reader_use_are_there(page: Path) -> None:
    """Of the repository, in shell blocks and in a sentence's code; `*` stands for any."""
    text = page.read_text(encoding="utf-8")
    typed = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    typed += re.findall(r"`([^`\n]+)`", text)
    folders = "deploy|tools|tests|examples|requirements|src|bench|demo|docs"
    for named in re.findall(rf"(?<![\w./*-])((?:{folders})/[\w./*@-]*[\w*])", "\n".join(typed)):
        assert any(REPOSITORY.glob(named)), named
