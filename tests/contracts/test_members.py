"""Which member of a run on Ray was lost: what Ray's table of actors, its processes and its store say of it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from avar_rl.runtime.stopping import OUT_OF_TIME
from avar_rl.verl_plugin.health.loss import LOST, Loss, cause_of_exit

HERE = Path(__file__).parent


def lost(fault: str) -> dict:
    done = subprocess.run(
        [sys.executable, str(HERE / "members_worker.py"), fault],
        cwd=HERE.parents[1], capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_first_member_that_was_killed_is_named_with_its_process_node_and_cause():
    found = lost("worker")
    assert found["before"] == "None"  # one that was ended on purpose is no loss
    assert found["member"] == f"reward worker reward_loop_worker_0 (process {found['pid']})"
    assert "127.0.0.1 (host " in found["node"] and "killed" in found["cause"] and found["status"] == LOST
    assert found["sentence"].startswith(f"{found['member']} on node {found['node']} was lost: ")


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_task_runner_that_ended_itself_says_why():
    found = lost("words")
    assert found["member"].startswith("the task runner (process ")
    assert found["cause"] == "it ended itself, no step finished within 3.0 minutes"
    assert found["status"] == OUT_OF_TIME
    assert found["ends"] == [
        "TimeoutError()",
        "KeyError('its own')",
        "asked: True",
    ]  # and runs that lose nobody end as they end


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_end_of_rays_own_process_is_told_from_that_of_its_actors():
    found = lost("raylet")
    assert found["member"].startswith("Ray's node manager (raylet) (process ")
    assert found["cause"].startswith("killed (signal 9)") and found["status"] == LOST


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fault", "members"),
    [
        ("node", {2}),  # its actors report their ends, as their raylet is gone
        # all of it is gone at once, and nobody says a word
        pytest.param("silence", {2}, marks=pytest.mark.long),
        # The same, and what is left of the run has failed and ends its members. One had ended before: it counts once
        # no member is left alive, and whether Ray's table says so yet when it is read is a matter of moments.
        ("peer", {2, 3}),
    ],
)
def test_the_loss_of_a_node_is_told_from_that_of_its_actors(fault, members):
    found = lost(fault)
    assert found["member"].startswith("node 127.0.0.1 (host ") and found["status"] == LOST
    (count,) = re.findall(r" with (\d+) members of the run$", found["member"])
    assert int(count) in members
    assert found["cause"].endswith("its raylet was killed, or the machine is gone")


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_nothing_of_ray_outlives_a_command_that_was_killed():
    """Ray's agents would, by a minute: they try to report the death of their node."""
    command = subprocess.Popen(
        [sys.executable, str(HERE / "members_worker.py"), "command"],
        cwd=HERE.parents[1], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert command.stdout is not None
    assert any(line == "ready\n" for line in command.stdout)
    family = psutil.Process(command.pid).children(recursive=True)
    assert {"ray::DashboardAgent", "ray::RuntimeEnvAgent"} <= {it.cmdline()[0].strip() for it in family}
    command.kill()
    command.wait()
    _, alive = psutil.wait_procs(family, timeout=40)
    assert alive == []


def test_an_exit_status_becomes_words():
    assert cause_of_exit(-9).startswith("killed (signal 9)")
    assert cause_of_exit(-11) == "ended by signal 11 (SIGSEGV)"
    assert cause_of_exit(3).startswith("it ended by itself with exit status 3")
    assert str(Loss("engine", "n1", "killed")) == "engine on node n1 was lost: killed"
    assert str(Loss("node n1", "", "gone")) == "node n1 was lost: gone"
