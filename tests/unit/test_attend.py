"""The process that runs a recipe's stage: signals, limits, and nothing that outlives anything."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from avar_rl.runtime.attend import seconds

ROOT = Path(__file__).parents[2]
# Says that it is ready; at SIGTERM it finishes in good order, with a status of its own.
PATIENT = """
import signal, sys, time
def finish(*_):
    print("finished in good order", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, finish)
print("ready", flush=True)
time.sleep(300)
"""
DEAF = PATIENT.replace("    sys.exit(7)\n", "")


def attend(*options: str, code: str, **more) -> subprocess.Popen:
    command = [sys.executable, "-m", "avar_rl.runtime.attend", *options, "--", sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def until_ready(process: subprocess.Popen) -> psutil.Process:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (child,) = psutil.Process(process.pid).children()
    return child


def ended(process: psutil.Process) -> bool:
    """Within a generous limit."""
    deadline = time.monotonic() + 30
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_the_commands_status_and_all_it_says(tmp_path):
    done = attend(
        "--log", str(tmp_path / "log"), code="import sys; print('out'); sys.stderr.write('err\\n'); sys.exit(3)"
    )
    stdout, _ = done.communicate(timeout=60)
    assert done.returncode == 3 and sorted(stdout.split()) == ["err", "out"]
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]


def test_what_was_used_counts_all_descendants_and_every_start(tmp_path):
    """A grandchild that computes for half a second, twice; wall and processor time, and the status."""
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); sys.exit(3)"
    for _ in range(2):
        attend("--used", str(tmp_path / "used"), code=code).communicate(timeout=60)
    starts = [json.loads(line) for line in (tmp_path / "used").read_text().splitlines()]
    assert len(starts) == 2 and all(start["status"] == 3 for start in starts)
    assert all(start["processor_seconds"] >= 0.5 for start in starts)


def test_what_was_used_counts_processes_that_nobody_waits_for(tmp_path):
    """As Ray's node manager leaves its workers to the kernel, which then adds their time to nobody's. The worker
    computes until it has been looked at twice, and the command ends long after it."""
    worker = "import time\nwhile time.process_time() < 5: pass"
    code = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", {worker!r}])
while os.path.exists(f"/proc/{{worker.pid}}"):
    time.sleep(0.05)
"""
    done = attend("--used", str(tmp_path / "used"), code=code)
    done.communicate(timeout=120)
    (line,) = map(json.loads, (tmp_path / "used").read_text().splitlines())
    assert 1 <= line["processor_seconds"] < 10


def test_a_signal_is_passed_on_once_and_the_stage_ends_with_130():
    process = attend(code=PATIENT)
    until_ready(process)
    for number in (signal.SIGTERM, signal.SIGINT):  # as those of a process group and of the recipe's shell
        process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and stdout == "finished in good order\n"


def test_the_end_of_the_notice_kills_what_does_not_listen():
    process = attend("--notice", "0.5s", code=DEAF)
    child = until_ready(process)
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and stdout == "finished in good order\n" and ended(child)


def test_the_limit_ends_the_stage_in_good_order_with_124():
    process = attend("--limit", "2s", code=PATIENT)
    stdout, stderr = process.communicate(timeout=90)
    assert process.returncode == 124 and "finished in good order" in stdout
    assert "the stage has reached its limit in time (STAGE_LIMIT)" in stderr


def test_a_stage_dies_with_the_one_that_attends_to_it():
    process = attend(code=DEAF)
    child = until_ready(process)
    process.kill()
    assert ended(child)


def test_the_stage_is_asked_to_stop_when_the_recipe_dies():
    shell = f"{sys.executable} -m avar_rl.runtime.attend --parent $$ -- {sys.executable} -c '{PATIENT}' & wait"
    with subprocess.Popen(["bash", "-c", shell], cwd=ROOT, stdout=subprocess.PIPE, text=True) as recipe:
        assert recipe.stdout is not None and recipe.stdout.readline() == "ready\n"
        recipe.kill()
        assert recipe.stdout.read() == "finished in good order\n"  # until all of them are gone


def test_what_a_stage_leaves_behind_ends_with_it():
    orphan = "import subprocess; print(subprocess.Popen(['setsid', 'sleep', '300']).pid)"
    process = attend("--limit", "1m", code=orphan)
    stdout, _ = process.communicate(timeout=90)
    assert process.returncode == 0 and not psutil.pid_exists(int(stdout))


def test_a_stage_does_not_inherit_the_recipes_lock(tmp_path):
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(lock, True)
    code = f"import os\ntry: os.fstat({lock})\nexcept OSError: print('closed')"
    stdout, _ = attend(code=code, pass_fds=[lock]).communicate(timeout=60)
    assert stdout == "closed\n"


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    process = attend("--log", str(tmp_path / "file" / "log"), code="print('never')")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 2 and stdout == ""
    assert "cannot write the stage's log" in stderr and "choose another OUT" in stderr


def test_times_as_timeout_has_them():
    assert [seconds(text) for text in ("90m", "14d", "0.5s", "2h", "3600")] == [5400, 1209600, 0.5, 7200, 3600]
