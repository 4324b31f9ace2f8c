"""What a command sets for verl, Ray and vLLM: a Ray of its own is closed to other machines."""

import pytest

from avar_rl.verl_plugin.config import environment

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_ray_of_our_own_listens_on_loopback(monkeypatch, profile):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(LOOPBACK, raising=False)
    assert environment.variables(profile)[LOOPBACK] == "0"


def test_a_cluster_that_others_started_is_left_as_it_is(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert LOOPBACK not in environment.variables("gpu")


def test_what_the_caller_has_set_stays(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv(LOOPBACK, "1")
    assert LOOPBACK not in environment.variables("cpu")
