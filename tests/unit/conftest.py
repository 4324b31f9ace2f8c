"""Fixtures of several unit tests."""

import pytest

from tests.unit.chat_endpoint import Answer, ChatEndpoint


@pytest.fixture
def odd_endpoint():
    """A function that starts an endpoint which gives these answers in turn, the last one again and again."""
    started = []

    def start(*answers: Answer) -> ChatEndpoint:
        started.append(ChatEndpoint.giving(*answers))
        return started[-1]

    yield start
    for server in started:
        server.close()
