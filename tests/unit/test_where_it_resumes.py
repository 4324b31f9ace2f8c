"""What the same command will resume from, said in the last line of a run."""

from avar_rl.verl_plugin.checkpoints import where_it_resumes


def test_the_tracked_checkpoint_is_named_with_its_folder(tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("40")
    assert where_it_resumes(tmp_path) == f"The same command resumes from step 40 ({tmp_path}/global_step_40)."


def test_without_a_checkpoint_it_starts_over(tmp_path):
    expected = f"No checkpoint is in {tmp_path} yet: the same command starts over."
    assert where_it_resumes(tmp_path) == expected
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("")  # as after a disk that was full
    assert where_it_resumes(tmp_path) == expected
