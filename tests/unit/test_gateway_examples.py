"""The OpenAPI document has an example of every call, answer and error; each is a true one."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from portcullis.gateway import answers, openapi
from portcullis.gateway.orders import ORDERS, read_order
from portcullis.gateway.permits import Caller
from portcullis.gateway.problems import PROBLEMS, Problem
from portcullis.runtime.oauth import SCOPES


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operation of the document with its path."""
    for path, methods in openapi.document()["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_every_call_answer_and_error_has_an_example() -> None:
    codes = set()
    for path, operation in operations():
        bodies = [*operation["responses"].values()]
        if "requestBody" in operation:
            bodies.append(operation["requestBody"])
        for body in bodies:
            for content in body["content"].values():
                assert "example" in content or content.get("examples"), path
                codes |= content.get("examples", {}).keys()
    assert codes == PROBLEMS.keys()


@pytest.mark.parametrize("kind", ORDERS)
def test_the_example_of_an_order_is_accepted(kind: str) -> None:
    content = openapi.document()["paths"][f"/{kind}"]["post"]["requestBody"]["content"]
    example = content["application/json"]["example"]
    order = read_order(Caller("sms", frozenset(SCOPES)), kind, msgspec.json.encode(example))
    assert order.refusal is None


def test_the_examples_of_answers_and_errors_are_of_their_shape() -> None:
    for path, operation in operations():
        for status, response in operation["responses"].items():
            for media_type, content in response["content"].items():
                if media_type == "application/json":
                    shape = getattr(answers, content["schema"]["$ref"].rpartition("/")[2])
                    msgspec.convert(content["example"], shape)
                elif media_type == "application/problem+json":
                    for code, example in content["examples"].items():
                        problem = msgspec.convert(example["value"], Problem)
                        assert (problem.code, str(problem.status)) == (code, status), path
                else:
                    lines = content["example"].encode()
                    msgspec.json.Decoder(answers.BatchLine).decode_lines(lines)
