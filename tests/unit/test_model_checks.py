"""What a family cannot do, or a model folder gets wrong, is said in one sentence before any worker starts."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from avar_rl.runtime.chat_template import with_system_turn, writes_system_turn
from avar_rl.verl_plugin.config.model_checks import check_processor, check_ulysses
from avar_rl.verl_plugin.config.preflight import check_model, check_stage
from data_tools.formats.rows import parquet_rows, write_rows
from data_tools.miniature.model import MINIATURES, SYSTEM_PROMPT, TURNS_TEMPLATE, corpus, save

# What the templates of Qwen3's thinking models do with a response: a thought before it, where a question was asked.
THINKING = TURNS_TEMPLATE.replace(
    "{{ message['role'] }}\n",
    "{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and messages | selectattr('role', 'equalto', 'user') | list %}"
    "<think>\n\n</think>\n\n{% endif %}",
)


@pytest.fixture(scope="module")
def models(tiny_world, tmp_path_factory):
    """A folder for each family, its miniature in it."""
    folder = tmp_path_factory.mktemp("families")
    for family in MINIATURES:
        save(folder / family, corpus(tiny_world / "data")[:100], 0, family)
    return folder


@pytest.fixture
def model(models, tmp_path):
    """Copies a family's miniature, free to be damaged."""
    return lambda family: shutil.copytree(models / family, tmp_path / family)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def check_sft(world, model, *, masses: bool, **data) -> None:
    files = {"train_files": str(world / "data/sft_train.parquet"), "val_files": None, "messages_key": "messages"}
    guidance = {"alpha": 0.1 if masses else 0, "beta": 0}
    config = {"data": files | data, "model": {"path": str(model)}, "avar": {"guidance": guidance}}
    check_stage(OmegaConf.create(config | {"engine": {"ulysses_sequence_parallel_size": 1}}), "sft")


def check_grpo(world, model, *, masses: bool, ulysses: int = 1) -> None:
    files = {"train_files": str(world / "data/rl_train.parquet"), "val_files": None, "prompt_key": "prompt"}
    actor = {"ulysses_sequence_parallel_size": 1, "fsdp_config": {"ulysses_sequence_parallel_size": ulysses}}
    rewards = {"accuracy": 1.0, "visual": 0.3 if masses else 0}
    parts = {"actor": actor, "model": {"path": str(model)}}
    config = {"data": files, "actor_rollout_ref": parts, "avar": {"rewards": rewards}}
    check_stage(OmegaConf.create(config), "grpo")


@pytest.mark.parametrize("family", MINIATURES)
def test_every_family_passes(tiny_world, models, family):
    check_sft(tiny_world, models / family, masses=True)
    check_grpo(tiny_world, models / family, masses=True)


def test_another_familys_processor_is_refused(model):
    folder = model("qwen3_vl")
    edit(folder / "processor_config.json", processor_class="Qwen2_5_VLProcessor")
    edit(folder / "tokenizer_config.json", processor_class="Qwen2_5_VLProcessor")
    with pytest.raises(ValueError, match="processor is a Qwen2_5_VLProcessor, and a qwen3_vl needs a Qwen3VLProcessor"):
        check_model(str(folder))


def test_a_processor_without_a_grid_is_refused(models):
    from transformers import AutoConfig, AutoProcessor, CLIPImageProcessor

    processor = AutoProcessor.from_pretrained(models / "qwen2_vl")
    processor.image_processor = CLIPImageProcessor()
    with pytest.raises(
        ValueError, match=r"image processor is a CLIPImageProcessor.*no grid of patches \(image_grid_thw\)"
    ):
        check_processor("here", AutoConfig.from_pretrained(models / "qwen2_vl"), processor)


def test_patches_of_another_size_are_refused(model):
    folder = model("qwen3_vl")
    settings = json.loads((folder / "processor_config.json").read_text())
    edit(folder / "processor_config.json", image_processor=settings["image_processor"] | {"patch_size": 14})
    # 3 channels x 2 frames x 14^2, and x 16^2
    with pytest.raises(ValueError, match="it cuts patches of 1176 values, and the vision tower takes 1536; copy"):
        check_model(str(folder))


def test_an_image_token_that_the_model_does_not_know_is_refused(model):
    folder = model("qwen2_vl")
    edit(folder / "config.json", image_token_id=6)
    with pytest.raises(
        ValueError, match="becomes 0 tokens of the model's image_token_id 6, and the vision tower gives"
    ):
        check_model(str(folder))


def test_ulysses_is_refused_where_its_masses_are_not_recorded(tiny_world, models):
    check_ulysses("qwen2_5_vl", 2)
    check_grpo(tiny_world, models / "qwen3_vl", masses=False, ulysses=2)
    with pytest.raises(ValueError, match="recorded for qwen2_vl and qwen2_5_vl, not qwen3_vl: set ulysses_sequence"):
        check_grpo(tiny_world, models / "qwen3_vl", masses=True, ulysses=2)


def with_template(folder, template: str):
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_rows_without_a_system_turn_are_refused_where_the_template_writes_none(tiny_world, model, tmp_path):
    folder = with_template(model("qwen3_vl"), TURNS_TEMPLATE)  # as published
    for check in (check_sft, check_grpo):
        check(tiny_world, folder, masses=False)
        with pytest.raises(ValueError, match="row 0 of .*train.parquet has no system turn, and .*--system-prompt TEXT"):
            check(tiny_world, folder, masses=True)
    rows = [row for row, _ in zip(parquet_rows(tiny_world / "data/sft_train.parquet"), range(3), strict=False)]
    told = [row | {"messages": [{"role": "system", "content": "Look."}, *row["messages"]]} for row in rows]
    write_rows(told, tmp_path / "told.parquet")
    check_sft(tiny_world, folder, masses=True, train_files=str(tmp_path / "told.parquet"))
    write_rows([*told, rows[0]], tmp_path / "one_not.parquet")
    with pytest.raises(ValueError, match="row 3 of .*one_not.parquet has no system turn"):
        check_sft(tiny_world, folder, masses=True, train_files=str(tmp_path / "one_not.parquet"))
    pq.write_table(pa.table({"messages": [["a turn"]]}), tmp_path / "texts.parquet")
    with pytest.raises(ValueError, match="row 0 of .*texts.parquet: the column messages is no list of turns"):
        check_sft(tiny_world, folder, masses=True, train_files=str(tmp_path / "texts.parquet"))


def test_a_system_turn_is_written_where_there_is_none(model):
    from transformers import AutoProcessor

    said = 'Say "why",\nthen {{ what }}: 看图 🙂'
    folder = with_template(model("qwen3_vl"), with_system_turn(TURNS_TEMPLATE, said))
    processor = AutoProcessor.from_pretrained(folder)
    user = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    told = f"<|im_start|>system\n{said}<|im_end|>\n<|im_start|>user\n?<|im_end|>\n"
    for writer in (processor, processor.tokenizer):
        assert writes_system_turn(writer)
        assert writer.apply_chat_template(user, tokenize=False) == told
        own = [{"role": "system", "content": "Mine."}, *user]
        assert writer.apply_chat_template(own, tokenize=False) == told.replace(said, "Mine.")
    assert not writes_system_turn(AutoProcessor.from_pretrained(with_template(folder, TURNS_TEMPLATE)))


def test_the_miniature_of_qwen3_vl_says_what_qwen2_5_vls_says(models):
    from transformers import AutoProcessor

    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    old, new = (AutoProcessor.from_pretrained(models / name) for name in ("qwen2_5_vl", "qwen3_vl"))
    texts = {processor.apply_chat_template(turns, add_generation_prompt=True) for processor in (old, new)}
    assert len(texts) == 1 and SYSTEM_PROMPT in texts.pop()


def test_a_template_that_thinks_by_itself_is_refused_in_sft(tiny_world, model):
    folder = with_template(model("qwen3_vl"), with_system_turn(THINKING, SYSTEM_PROMPT))
    check_grpo(tiny_world, folder, masses=True)
    with pytest.raises(ValueError, match="writes a response after its question otherwise than alone"):
        check_sft(tiny_world, folder, masses=True)
