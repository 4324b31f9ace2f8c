"""The last sentence of a GRPO run that failed: what raised first says why, in the first line of its text."""

from ray.exceptions import RayError

from avar_rl.verl_plugin.grpo.run import _root_cause


def test_the_first_line_of_an_exceptions_own_text():
    disagreement = RuntimeError("rollout and actor disagree at step 1.\nLikely causes:\n- a precision that differs")
    outer = RayError("traceback\nRuntimeError: - a precision that differs")
    outer.cause = disagreement  # pyright: ignore[reportAttributeAccessIssue]
    assert _root_cause(outer) == "rollout and actor disagree at step 1."


def test_the_last_line_of_a_traceback_that_ray_gives_as_text():
    assert _root_cause(RayError("Traceback …\n  File …\nValueError: no rows\n")) == "ValueError: no rows"


def test_an_exception_without_a_text():
    assert _root_cause(KeyError()) == "KeyError()"
