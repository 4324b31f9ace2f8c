import io

import pytest
import torch
from PIL import Image

from avar_rl.attention.recorder import record_span_mass
from avar_rl.attention.regions import evidence_boxes, region_mask
from avar_rl.attention.roles import Markup, Role, has_role, query_positions, role_spans, token_roles
from avar_rl.runtime.evidence import read_evidence
from avar_rl.runtime.files import read_parquet
from data_tools.formats.rows import write_rows
from data_tools.miniature.model import (
    CHAT_SPLITS,
    MINIATURES,
    SPECIAL_TOKENS,
    corpus,
    main,
    make_model,
    make_tokenizer,
    save,
)
from data_tools.miniature.world import WorldConfig, files_of, make_questions, rl_rows
from rewards.sample import AttentionSample, Masses
from rewards.shipped.evidence import evidence

WORLD = WorldConfig(pretrain=200, sft_train=400, sft_val=1, rl_train=1, rl_val=1, test=1)


@pytest.fixture(scope="module")
def files():
    """Rows of the two files whose text trains the tokenizer, by their names."""
    questions = make_questions(WORLD)
    return {split: files_of(split, questions[split], WORLD)[split] for split in CHAT_SPLITS}


@pytest.fixture(scope="module")
def rows(files):
    return files["sft_train"]


def texts(row) -> list[str]:
    return [turn["content"].replace("<image>", "") for turn in row["messages"]]


@pytest.fixture(scope="module", params=MINIATURES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model_dir(files, tmp_path_factory, family):
    folder = tmp_path_factory.mktemp("tiny")
    for split, rows in files.items():
        write_rows(rows, folder / "data" / f"{split}.parquet")
    wanted = [] if family == "qwen2_5_vl" else ["--family", family]
    assert main(["--out", str(folder / "model"), "--data", str(folder / "data"), *wanted]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def processor(model_dir):
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def model(model_dir):
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(model_dir)


def test_evidence_marks_the_tokens_of_its_cells(processor, family):
    world = WorldConfig(pretrain=1, sft_train=1, sft_val=1, rl_train=60, rl_val=1, test=1, text_share=0.1)
    questions = make_questions(world)["rl_train"]
    rows = rl_rows(questions, "rl_train")
    markup = Markup.from_tokenizer(processor.tokenizer)
    marked = []
    for question, row in zip(questions, rows, strict=True):
        shown = [Image.open(io.BytesIO(image["bytes"])) for image in row["images"]]
        _, inputs = ask(processor, shown, question.text)
        found = evidence_boxes(read_evidence(row["extra_info"]["evidence"]), [image.size for image in shown])
        grid, merge = inputs.get("image_grid_thw"), processor.image_processor.merge_size
        region = region_mask(inputs["input_ids"], markup, [found], grid, merge)
        roles = token_roles(inputs["input_ids"], markup, region_mask=region)
        tokens = roles[has_role(roles, Role.IMAGE)] == Role.REGION  # in reading order: one token is one cell
        assert tokens.nonzero().flatten().tolist() == [3 * row + column for row, column in question.cells]
        assert len(tokens) == (9 if question.scene else 0)
        marked.append(int(tokens.sum()))
    assert {0, 1, 2, 3} <= set(marked) and max(marked) >= 4


def test_the_reward_of_evidence_is_the_share_of_the_cells_in_the_eager_maps(processor, model, model_dir):
    from transformers import AutoModelForImageTextToText

    world = WorldConfig(pretrain=1, sft_train=1, sft_val=1, rl_train=20, rl_val=1, test=1, text_share=0.0)
    questions = make_questions(world)["rl_train"]
    question, row = next(pair for pair in zip(questions, rl_rows(questions, "rl_train"), strict=True) if pair[0].cells)
    shown = [Image.open(io.BytesIO(image["bytes"])) for image in row["images"]]
    text, _ = ask(processor, shown, question.text)
    inputs = processor(text=[text + question.response()], images=shown, return_tensors="pt")
    ids, markup = inputs["input_ids"], Markup.from_tokenizer(processor.tokenizer)
    boxes = evidence_boxes(read_evidence(row["extra_info"]["evidence"]), [image.size for image in shown])
    region = region_mask(ids, markup, [boxes], inputs["image_grid_thw"], processor.image_processor.merge_size)
    roles = token_roles(ids, markup, region_mask=region)
    spans = role_spans(roles, [Role.IMAGE, Role.SYSTEM, Role.REGION])
    with torch.no_grad(), record_span_mass(model, spans, query_positions=query_positions(roles, "response")) as record:
        model(**inputs)
    image_TL, system_TL, region_TL = record.stack()[:, 0].mean(2).permute(1, 2, 0)
    masses = Masses(image_TL, system_TL, region_TL)
    sizes = tuple(image.size for image in shown)
    value = evidence(AttentionSample("q", "r", "g", row=row, image_sizes=sizes, masses=masses, group=(masses,)))

    eager = AutoModelForImageTextToText.from_pretrained(model_dir, attn_implementation="eager")
    with torch.no_grad():
        maps_LTT = torch.stack(eager(**inputs, output_attentions=True).attentions)[:, 0].mean(1)
    pads = (ids[0] == markup.image_pad).nonzero().flatten()
    cells = pads[[3 * row + column for row, column in question.cells]]
    of_response = maps_LTT[:, roles[0] == Role.RESPONSE]
    share = of_response[..., cells].sum(-1) / of_response[..., pads].sum(-1)
    assert value == pytest.approx(share.mean().item(), abs=1e-5)
    assert 0.5 < value / (len(cells) / 9) < 2  # an untrained model looks everywhere


def ask(processor, images, question):
    content = [{"type": "image"} for _ in images] + [{"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text, processor(text=[text], images=images or None, return_tensors="pt")


def test_it_is_a_small_model_of_its_family_in_float32(model, processor, family):
    assert model.config.model_type == family
    assert type(model).__name__ == f"{MINIATURES[family].classes}ForConditionalGeneration"
    assert type(processor).__name__ == f"{MINIATURES[family].classes}Processor"
    assert sum(p.numel() for p in model.parameters()) < 3_000_000
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.text_config.num_hidden_layers == 4


def test_vocabulary_is_the_tokenizers(model, processor):
    assert model.config.text_config.vocab_size == len(processor.tokenizer) == model.lm_head.weight.shape[0]


def test_one_image_is_nine_tokens(processor, rows, family):
    image = Image.open(io.BytesIO(rows[0]["images"][0]["bytes"]))
    _, inputs = ask(processor, [image], "How many circles?")
    # 84 / 14 = 6 patches a side, or 96 / 16 after a resize, merged 2 x 2: 3 * 3 = 9 tokens
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 6]]
    assert inputs["pixel_values"].shape == (36, 3 * 2 * (16 if family == "qwen3_vl" else 14) ** 2)
    pad = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (inputs["input_ids"] == pad).sum() == 9


def test_prompt_has_qwens_markup(processor):
    text, _ = ask(processor, [Image.new("RGB", (112, 112))], "How many circles?")
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How many circles?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_template_takes_own_system_turn_and_video(processor):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What moves?"}]},
        {"role": "assistant", "content": "Nothing."},
    ]
    assert processor.apply_chat_template(turns) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>What moves?<|im_end|>\n"
        "<|im_start|>assistant\nNothing.<|im_end|>\n"
    )


def test_tokenizer_keeps_text_and_splits_digits(processor, files):
    tokenizer = processor.tokenizer
    for row in [*files["pretrain"], *files["sft_train"]]:
        for text in texts(row):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("16") == ["1", "6"]
    assert tokenizer.tokenize(" circle") == ["Ġcircle"]
    assert tokenizer.tokenize("system\n") == ["system", "Ċ"]
    for token in SPECIAL_TOKENS:
        assert len(tokenizer(token)["input_ids"]) == 1
    assert len(tokenizer("<think>")["input_ids"]) > 1, "think tags are ordinary text"


def test_responses_are_short(processor, rows):
    lengths = [len(processor.tokenizer(texts(row)[1])["input_ids"]) for row in rows]
    assert max(lengths) <= 75  # of the 80 that recipes/config/tiny_grpo.yaml allows
    assert 15 <= sum(lengths) / len(lengths) <= 40


def test_generation_stops_at_the_end_of_turn(model, processor):
    end, pad = processor.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.generation_config.eos_token_id == [end, pad]
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id == pad
    assert processor.tokenizer.eos_token_id == end


def test_the_image_reaches_the_answer(model, processor, rows):
    pictures = [Image.open(io.BytesIO(row["images"][0]["bytes"])) for row in rows if row["images"]][:2]
    _, inputs = ask(processor, pictures[:1], "How many circles?")
    _, others = ask(processor, pictures[1:], "How many circles?")
    with torch.no_grad():
        assert not torch.equal(model(**inputs).logits[:, -1], model(**others).logits[:, -1])


def test_text_only_prompt_runs(model, processor):
    _, inputs = ask(processor, [], "What is 1 + 2?")
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()


def test_deep_stacked_features_reach_the_first_two_layers(model, processor, rows, family):
    """Of Qwen3-VL alone: without what its tower adds to the first layers, the answer is another."""
    if family != "qwen3_vl":
        assert not hasattr(model.model.visual, "deepstack_merger_list")
        return
    picture = Image.open(io.BytesIO(next(row for row in rows if row["images"])["images"][0]["bytes"]))
    _, inputs = ask(processor, [picture], "How many circles?")
    with torch.no_grad():
        whole = model(**inputs).logits[:, -1]
        for merger in model.model.visual.deepstack_merger_list:
            kept = merger.linear_fc2.weight.clone()
            merger.linear_fc2.weight.zero_()
            assert (model(**inputs).logits[:, -1] - whole).abs().max() > 1e-3
            merger.linear_fc2.weight.copy_(kept)
        assert len(model.model.visual.deepstack_merger_list) == 2


def test_weights_depend_on_the_seed_only(rows, family):
    tokenizer = make_tokenizer([text for row in rows for text in texts(row)])
    state = torch.get_rng_state()
    zero, again, one = (make_model(tokenizer, seed, MINIATURES[family]).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(zero, again) and not torch.equal(zero, one)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random state is left alone"


def test_a_model_is_replaced_whole(model_dir, tmp_path, family):
    out = tmp_path / "model"
    out.mkdir()
    (out / "config.json").write_text("{}")
    (out / "stale.bin").write_text("")
    save(out, ["How many circles?"] * 3, 0, family)
    assert {p.name for p in out.iterdir()} == {p.name for p in model_dir.iterdir()}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_refuses_to_replace_other_folders_and_missing_data(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["--out", str(tmp_path), "--data", str(tmp_path)]) == 2
    assert "is not a model folder" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "notes.txt"), "--data", str(tmp_path)]) == 2
    assert "notes.txt is a file" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "new"), "--data", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "no such data file; make it with `python -m data_tools.miniature.data --out" in printed
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_corpus_is_what_the_rows_say(model_dir):
    data = model_dir.parent / "data"
    rows = [row for name in ("pretrain", "sft_train") for row in read_parquet(data / f"{name}.parquet")]
    assert corpus(data) == [text for row in rows for text in texts(row)]
