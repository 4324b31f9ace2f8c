import copy
import io
import shutil

import pytest
from PIL import Image

from avar_rl.runtime.files import read_parquet
from data_tools.formats.rows import chat_row, rl_row, write_rows
from data_tools.miniature.model import save
from data_tools.validate import check_row, load_processor, main, token_length, validate_rows


def png(width: int = 112, height: int = 112) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


RESPONSE = "<think>Looking at the image: red circle.</think><answer>1</answer>"
QUESTION = "How many circles?"
ROW = dict(id="good", source="tiny", question=QUESTION, gold="1", images=(png(),), index=0, split="test")
RL = rl_row(**ROW)
CHAT = chat_row(id="good", question=QUESTION, response=RESPONSE, images=(png(),))
TEXT_ONLY = rl_row(id="text", source="tiny", question="What is 1 + 2?", gold="3", index=1, split="test")


def number_or_letter(gold: str) -> None:
    if not (gold.isdigit() or gold in "ABCD"):
        raise ValueError("neither a number nor a choice")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validate") / "model"
    save(folder, [QUESTION, RESPONSE] * 5, seed=0)
    return folder


@pytest.fixture(scope="module")
def processor(model):
    return load_processor(model)


def changed(row, **columns):
    return {**copy.deepcopy(row), **columns}


@pytest.mark.parametrize("row", [RL, CHAT, TEXT_ONLY, {**RL, "extra_info": {"id": "own"}}, {**RL, "extra_info": None}])
def test_good_rows_have_no_fault(processor, row):
    faults, length = check_row(row, processor, number_or_letter)
    assert faults == [] and length is not None and length > 10


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (changed(RL, images=[]), "`<image>` stands 1 times in `prompt`, but the row has 0 images"),
        (changed(RL, images=RL["images"] * 2), "stands 1 times in `prompt`, but the row has 2 images"),
        (
            changed(RL, images=[{"bytes": png(5, 1001)}]),
            "image 0 has 5 x 1001 pixels; the processor takes",
        ),
        (changed(TEXT_ONLY, images=RL["images"]), "stands 0 times in `prompt`, but the row has 1 images"),
        (changed(CHAT, images=None), "`<image>` stands 1 times in `messages`, but the row has 0 images"),
        (changed(RL, images=[{"bytes": None}]), "image 0 is missing"),
        (changed(RL, images=[{"bytes": b""}]), "image 0 is missing"),
        (changed(RL, images=[{"bytes": "iVBORw0KGgo"}]), "image 0 is a str; it must be the bytes of a file"),
        (changed(RL, images=[{"bytes": b"not a picture"}]), "image 0: an image cannot be read"),
        (changed(RL, images=[{"bytes": png()[:60]}]), "image 0: an image cannot be read"),
        (changed(RL, images=[{"bytes": png()[:60] + bytes(40) + png()[100:]}]), "image 0: an image cannot be read"),
        (changed(RL, reward_model={"style": "rule", "ground_truth": " "}), "ground_truth is empty"),
        (
            changed(RL, reward_model={"style": "rule", "ground_truth": None}),
            "no gold answer in reward_model.ground_truth",
        ),
        (changed(RL, reward_model=None), "no gold answer in reward_model.ground_truth"),
        (changed(RL, reward_model={"style": "rule", "ground_truth": "??"}), "'??' in reward_model.ground_truth cannot"),
        (changed(RL, extra_info={"options": "red, blue"}), "extra_info.options is 'red, blue'; it must be a list"),
        (changed(RL, extra_info={"options": ["red", None]}), "extra_info.options is ['red', None]"),
        (changed(RL, extra_info={"other_golds": "two"}), "extra_info.other_golds is 'two'; it must be a list of texts"),
        (changed(RL, extra_info={"other_golds": ["4", "??"]}), "'??' in extra_info.other_golds cannot be scored"),
        (changed(RL, extra_info="red"), "`extra_info` is a str; it must be a mapping"),
        (changed(RL, extra_info={"evidence": [[0, 0, 9, 9]]}), "`extra_info.evidence` is [[0, 0, 9, 9]]; it must be a"),
        (
            changed(RL, extra_info={"evidence": [[[0, 0, 9, 113]]]}),
            "evidence box 0 of image 0, [0, 0, 9, 113], reaches",
        ),
        (changed(RL, extra_info={"evidence": [[[-1, 0, 9, 9]]]}), "reaches outside the image of 112 x 112 pixels"),
        (changed(RL, extra_info={"evidence": [[[9, 0, 9, 9]]]}), "[9, 0, 9, 9], is empty"),
        (changed(RL, extra_info={"evidence": [[[9, 0, 0, 9]]]}), "[9, 0, 0, 9], is reversed"),
        (changed(RL, extra_info={"evidence": [[[9, 0, float("nan"), 9]]]}), "[9, 0, nan, 9], is not finite"),
        (changed(RL, extra_info={"evidence": [[[0, 0, 0.5, 0.5]]]}), "boxes are in pixels, not in fractions"),
        (changed(RL, extra_info={"evidence": [[], [[0, 0, 9, 9]]]}), "has 2 lists of boxes, but the row has 1 images"),
        (changed(TEXT_ONLY, extra_info={"evidence": [[[0, 0, 9, 9]]]}), "has boxes, but the row has no image"),
        (changed(RL, reward_model={"style": "rule", "ground_truth": 3}), "is a int; it must be a text"),
        (changed(RL, prompt="How many?"), "`prompt` is a str; it must be a list of {role, content}"),
        (changed(RL, images=["a.png"]), "`images` is a list; it must be a list of {bytes}"),
        (changed(RL, prompt=[None]), "turn 0 of `prompt` has no role or no text"),
        (changed(RL, prompt=[]), "`prompt` is empty"),
        (changed(RL, prompt=[{"role": "user", "content": " "}]), "turn 0 of `prompt` has no role or no text"),
        (
            changed(CHAT, messages=CHAT["messages"][:1]),
            "no gold answer in <answer></answer> of the last assistant turn",
        ),
        (
            changed(CHAT, messages=[CHAT["messages"][0], {"role": "assistant", "content": "<answer> </answer>"}]),
            "the gold answer in <answer></answer> of the last assistant turn is empty",
        ),
    ],
)
def test_each_fault_is_named(processor, row, fault):
    faults, length = check_row(row, processor, number_or_letter)
    assert len(faults) == 1 and fault in faults[0]
    assert length is None


def test_every_faulty_box_of_a_row_is_named_and_a_good_one_is_kept(processor, model, tmp_path):
    faulty = changed(RL, extra_info={"id": "boxed", "evidence": [[[0, 0, 9, 9], [9, 0, 0, 9], [0, 0, 9, 900]]]})
    report = validate_rows([RL, faulty], processor, 100, number_or_letter)
    assert [(f.index, f.id, f.text.split(",")[0]) for f in report.faults] == [
        (1, "boxed", "evidence box 1 of image 0"),
        (1, "boxed", "evidence box 2 of image 0"),
    ]
    unreadable = changed(faulty, images=[{"bytes": b"x"}])  # its boxes cannot be judged
    assert [f.text[:8] for f in validate_rows([unreadable], processor, 100, number_or_letter).faults] == ["image 0:"]
    good = rl_row(**ROW, evidence=(((0.0, 0.0, 112.0, 112.0), (1.0, 2.0, 3.5, 4.0)),))
    write_rows([good, RL], tmp_path / "a.parquet")
    argv = [str(tmp_path / "a.parquet"), "--model", str(model), "--max-prompt-length", "100"]
    assert main([*argv, "--out", str(tmp_path / "b.parquet")]) == 0
    kept = [row["extra_info"]["evidence"] for row in read_parquet(tmp_path / "b.parquet")]
    assert kept == [[[[0.0, 0.0, 112.0, 112.0], [1.0, 2.0, 3.5, 4.0]]], []]


def test_all_faults_of_all_rows_are_collected(processor):
    two = changed(RL, images=[{"bytes": b"x"}], reward_model={"style": "rule", "ground_truth": ""})
    report = validate_rows([RL, two, changed(RL, images=[])], processor, 100, number_or_letter)
    assert [(fault.index, fault.id) for fault in report.faults] == [(1, "good"), (1, "good"), (2, "good")]
    assert str(report.faults[2]).startswith("row 2 (id good): `<image>` stands 1 times")


@pytest.mark.parametrize("sizes", [[], [(112, 112)], [(112, 112), (140, 56)], [(300, 200)], [(1000, 900)], [(20, 30)]])
def test_length_is_the_processors_own(processor, sizes):
    turns = [{"role": "user", "content": "<image>" * len(sizes) + "How many circles?"}]
    parts = [{"type": "image"} for _ in sizes] + [{"type": "text", "text": "How many circles?"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    images = [Image.new("RGB", (width, height)) for height, width in sizes]
    expected = len(processor(text=[text], images=images or None)["input_ids"][0])
    assert token_length(processor, turns, sizes, add_generation_prompt=True) == expected


def run(tmp_path, model, rows, *options, limit=100):
    write_rows(rows, tmp_path / "rows.parquet")
    return main([str(tmp_path / "rows.parquet"), "--model", str(model), "--max-prompt-length", str(limit), *options])


def test_overlong_is_an_error_by_default_at_the_exact_limit(tmp_path, model, processor, capsys):
    length = token_length(processor, RL["prompt"], [(112, 112)], add_generation_prompt=True)
    assert run(tmp_path, model, [RL], limit=length) == 0
    assert run(tmp_path, model, [RL], limit=length - 1) == 1
    printed = capsys.readouterr().out
    assert f"row 0 (id good): {length} tokens, over the limit of {length - 1}" in printed
    assert f"1 rows, 0 faults, 1 over {length - 1} tokens (policy: error)" in printed


def test_overlong_rows_are_dropped_where_asked_and_counted(tmp_path, model, capsys):
    big = changed(RL, images=[{"bytes": png(224, 224)}])  # 8 x 8 = 64 image tokens instead of 16
    kept = tmp_path / "kept.parquet"
    assert run(tmp_path, model, [RL, big, TEXT_ONLY], "--overlong", "drop", "--out", str(kept), limit=70) == 0
    assert read_parquet(kept) == [RL, TEXT_ONLY]
    assert "3 rows, 0 faults, 1 over 70 tokens (policy: drop)" in capsys.readouterr().out
    assert run(tmp_path, model, [big], "--overlong", "drop", "--out", str(kept), limit=70) == 1
    assert "all 1 rows are over the limit" in capsys.readouterr().out


def test_what_is_kept_of_a_row_is_all_of_it(tmp_path, model):
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = RL | {"note": "mine", "extra_info": RL["extra_info"] | {"pass_rate": 0.5}}
    pq.write_table(pa.Table.from_pylist([own]), tmp_path / "own.parquet")
    argv = [str(tmp_path / "own.parquet"), "--model", str(model), "--max-length", "100"]
    assert main([*argv, "--out", str(tmp_path / "kept.parquet")]) == 0
    assert read_parquet(tmp_path / "kept.parquet") == [own]


def test_dropping_needs_an_output_file(tmp_path, model):
    with pytest.raises(SystemExit):
        run(tmp_path, model, [RL], "--overlong", "drop")


def test_faulty_file_fails_and_writes_nothing(tmp_path, model, capsys):
    out = tmp_path / "kept.parquet"
    assert run(tmp_path, model, [RL, changed(RL, images=[])], "--out", str(out)) == 1
    assert "row 1 (id good): `<image>` stands 1 times" in capsys.readouterr().out
    assert not out.exists()


def test_unscorable_gold_is_found_by_the_real_grader(tmp_path, model, capsys):
    rows = [
        changed(RL, reward_model={"style": "rule", "ground_truth": gold}) for gold in (r"\frac{3}{8}", r"2\pi", "yes")
    ]
    assert run(tmp_path, model, rows) == 0
    assert run(tmp_path, model, [changed(RL, reward_model={"style": "rule", "ground_truth": "  "})]) == 1
    assert "is empty" in capsys.readouterr().out


def test_golds_that_only_their_own_text_matches_are_counted(tmp_path, model, capsys):
    golds = [
        "3",
        "AB // CD ; EF // GH",
        "x = 2",
        "red",
    ]  # the second: neither words nor a formula that can be read
    rows = [changed(RL, reward_model={"style": "rule", "ground_truth": gold}) for gold in golds]
    assert run(tmp_path, model, rows) == 0
    line = "1 of 4 golds (25.0%) match only their own text, such as 'AB // CD ; EF // GH' (id good)"
    assert line in capsys.readouterr().out
    assert run(tmp_path, model, rows[2:]) == 0
    assert "own text" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"data_source": 3.5}, "`data_source` is a float; it must be a text"),
        ({"extra_info": {"kind": ["count"]}}, "`extra_info.kind` is a list; it must be a text"),
        ({"extra_info": {"id": {"a": 1}}}, "`extra_info.id` is a dict; it must be a text"),
        ({"prompt": [{"role": ["user"], "content": "?"}], "images": []}, "turn 0 of `prompt` has no role or no text"),
    ],
)
def test_names_are_texts(processor, columns, fault):
    assert check_row(changed(RL, **columns), processor, number_or_letter)[0] == [fault]


def test_mistakes_are_one_sentence_and_status_2(tmp_path, model, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": ["a"], "answer": ["b"]}), tmp_path / "columns.parquet")
    write_rows([RL], tmp_path / "rows.parquet")
    missing = "missing columns data_source, images, reward_model; it has prompt, answer"
    for name, folder, fault in [
        ("none.parquet", model, "no such data file"),
        ("columns.parquet", model, missing),
        ("rows.parquet", tmp_path, "holds no processor"),
    ]:
        assert main([str(tmp_path / name), "--model", str(folder), "--max-prompt-length", "100"]) == 2
        printed = capsys.readouterr()
        assert fault in printed.err and printed.err.startswith("avar validate: ") and printed.out == ""


def test_model_without_processor(tmp_path, model):
    with pytest.raises(ValueError, match="no processor"):
        load_processor(tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="processor"):
        load_processor(bare)
