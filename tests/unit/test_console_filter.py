"""What of a stage's output reaches the console; the log has all of it. Lines are those of real runs."""

import os
from pathlib import Path

from avar_rl.runtime.console import Console, tell

RAY = "\x1b[36m(TaskRunnerV1 pid=5663)\x1b[0m "
SAID = [
    ("avar grpo: attention: sdpa (a CPU, padded batches)", True),
    ("INFO:2026-11-26 20:27:40,928:Platform override from VERL_PLATFORM: cpu", False),
    ("2026-11-26 20:27:51,827\tINFO worker.py:2029 -- Started a local Ray instance.", False),
    ("/site/verl/x.py:164: UserWarning: Disabled critic", True),
    ("  validate_config(config)", False),
    ("Saved dataloader state to: /out/checkpoints/sft/global_step_4/data_1.pt", False),
    ("Saving checkpoint to: /out/checkpoints/sft/global_step_4", True),
    ("Ray dashboard: http://127.0.0.1:8265", True),
    (RAY + "{'actor_rollout_ref': {'actor': {'_target_': 'verl.workers.config.FSDPActorConfig',", False),
    (RAY + "                                  'calculate_entropy': False,", False),
    ("\x1b[36m(vLLMHttpServer pid=6425)\x1b[0m (Worker pid=7287) Loading safetensors checkpoint shards", False),
    ("(WorkerDict pid=5951, ip=10.0.0.2) Using blocking ray.get inside async actor.", False),
    (RAY + "Training Progress:  50%|█████     | 1/2 [01:20<01:20, 80.88s/it]", False),
    ("ray.exceptions.RayTaskError(ValueError): ray::TaskRunnerV1.run() (pid=5663, ip=127.0.0.1)", True),
    ('  File "/site/verl/trainer.py", line 3, in run', True),
    ("ValueError: the cause", True),
]


def console(tmp_path: Path) -> tuple[Console, Path, Path]:
    shown, log = tmp_path / "shown", tmp_path / "logs" / "grpo.log"
    return Console(os.open(shown, os.O_WRONLY | os.O_CREAT), log), shown, log


def test_libraries_go_to_the_log_and_what_matters_to_the_console_too(tmp_path):
    it, shown, log = console(tmp_path)
    said = "".join(f"{line}\n" for line, _ in SAID).encode()
    for start in range(0, len(said), 7):  # pieces of any length
        it.write(said[start : start + 7])
    it.close()
    left_out = sum(not seen for _, seen in SAID)
    expected = [line for line, seen in SAID if seen] + [f"({left_out} lines of libraries are in {log} only)"]
    assert shown.read_text().splitlines() == expected
    assert log.read_bytes() == said


def test_what_a_trainer_tells_loses_its_marks_and_rays(tmp_path, capsys):
    tell("step 1 | reward 0.5\n  format: 0.1")
    told = capsys.readouterr().out
    assert told == "avar: step 1 | reward 0.5\navar:   format: 0.1\n"
    it, shown, _ = console(tmp_path)
    it.write("".join(RAY + line + "\n" for line in told.splitlines()).encode())
    it.close()
    assert shown.read_text() == "step 1 | reward 0.5\n  format: 0.1\n"


def test_a_warning_of_a_library_is_shown_once(tmp_path):
    it, shown, _ = console(tmp_path)
    for pid in (1, 2):
        it.write(
            f"(WorkerDict pid={pid}) [rank{pid}]:W1126 20:26:43.892000 487{pid} symbolic_trace.py:56] old\n".encode()
        )
    it.close()
    assert shown.read_text().count("symbolic_trace.py:56] old") == 1


def test_what_is_said_behind_a_progress_bar_is_seen(tmp_path):
    it, shown, _ = console(tmp_path)
    bar = "Epoch 1/100:   4%|▍         | 1/25 [00:01<00:46,  1.96s/it]"
    it.write(f"\r{bar}\r{bar}avar: step 10 | loss 1.5\n{bar}Saving checkpoint to: /out\n{bar}\n".encode())
    it.close()
    assert shown.read_text().splitlines()[:2] == ["step 10 | loss 1.5", "Saving checkpoint to: /out"]
    assert "Epoch" not in shown.read_text()


def test_the_cause_of_a_failure_is_last(tmp_path):
    it, shown, _ = console(tmp_path)
    it.write(b"INFO:x\nValueError: the cause\n")
    it.close(succeeded=False)
    assert shown.read_text() == "ValueError: the cause\n"


def test_the_log_keeps_what_came_before(tmp_path):
    for _ in range(2):
        it, _, _ = console(tmp_path)
        it.write(b"once more\n")
        it.close()
    log = tmp_path / "logs" / "grpo.log"
    assert log.read_text() == "once more\n" * 2
