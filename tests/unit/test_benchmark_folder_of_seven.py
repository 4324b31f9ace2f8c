"""From files in the seven schemas to scores, reports, exports and a comparison, with responses made here: no model."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from avar_rl.cli import main as avar
from avar_rl.evaluation.benchmarks.asking.prompting import load_prompts
from avar_rl.evaluation.benchmarks.benchmark import ALL, chosen, copies_in, read
from avar_rl.evaluation.benchmarks.reporting.answered import overlay_path
from avar_rl.evaluation.benchmarks.reporting.export import DATASETS
from data_tools.formats.sample import SampleWriter
from data_tools.miniature.benchmarks import write_benchmarks
from tests.unit.benchmark_folder import ORIGIN, lines

ROWS = 10


def answers(out: Path, name: str, benchmark, samples, right, model: Path) -> None:
    """The files of a model that answers the questions at the places for which `right` holds with their gold."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    with SampleWriter(folder / f"{benchmark.name}.samples.parquet") as writer:
        for sample in samples:
            writer.add(sample)
    found = []
    for place, sample in enumerate(samples):
        said = f"<think>…</think><answer>{sample.gold if right(place) else 'no idea'}</answer>"
        record = {"id": sample.id, "sample": None, "response": said, "tokens": 5, "truncated": False, "prefill": ""}
        found.append(record)
    lines(folder / f"{benchmark.name}.responses.jsonl", found)
    prompts = load_prompts("official", benchmark)
    generation = ORIGIN["generation"] | {"intervention": {"img": 0.3, "sys": 0.1, "mode": "weight", "layers": [1]}}
    origin = ORIGIN | {"model": {"path": str(model), "files": {}}, "generation": generation}
    origin |= {"prompts": {"name": prompts.name, "hash": prompts.hash}, "limit": ROWS, "n": len(samples)}
    (folder / f"{benchmark.name}.origin.json").write_text(json.dumps(origin | {"official_n": benchmark.n}))


@pytest.fixture(scope="module")
def out(tmp_path_factory, tiny_world) -> Path:
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out")
    write_benchmarks(data, rows=ROWS)
    for benchmark in chosen([ALL]):
        samples = read(benchmark, copies_in(data, benchmark), ROWS)
        answers(out, "half", benchmark, samples, lambda place: place % 2 == 0, tiny_world / "base")
        answers(out, "all", benchmark, samples, lambda place: True, tiny_world / "base")
    assert avar(["score", str(out)]) == 0
    return out


def test_scores_and_pages_of_all_seven(out, capsys):
    assert avar(["report", str(out)]) == 0
    said = capsys.readouterr().out
    text = (out / "benchmarks.md").read_text(encoding="utf-8")
    results = json.loads((out / "benchmarks.json").read_text())["models"]
    for benchmark in chosen([ALL]):
        assert benchmark.name in said and f"| {benchmark.title} | half |" in text
        assert results["all"]["benchmarks"][benchmark.name]["limited"]
        page = (out / "half.html").read_text(encoding="utf-8")
        assert f'"{benchmark.name}/' in page.partition('id="data">')[2]
        assert (out / "half" / "page" / f"{benchmark.name}.0.js").is_file()
    assert "Mean of the paper's seven" in text and "| half | **" in text
    scores = [line for line in text.partition("## Scores")[2].partition("## ")[0].splitlines() if "| half |" in line]
    assert len(scores) == 7 and all(line.count("LIMITED") == 3 for line in scores)


def test_the_page_shows_the_prompt_that_was_asked(out):
    assert avar(["report", str(out), "--models", "half"]) == 0
    text = (out / "half" / "page" / "mmstar.0.js").read_text(encoding="utf-8")
    first = json.loads(text.removeprefix("loaded(").removesuffix(");\n"))[2][0]
    assert first["prompt"].endswith("Answer with the option's letter from the given choices directly")


@pytest.mark.parametrize("layout", ["vlmevalkit", "lmms-eval"])
def test_the_layouts_of_both_tools(out, tmp_path, layout, capsys):
    # MMMU and MMMU-Pro are found in VLMEvalKit by the index of its own table, which the hub's files do not have
    code = avar(["report", str(out), "--models", "all", "--export", layout])
    parts = {f"{one.name}/{part.name}" for one in chosen([ALL]) for part in one.parts}
    if layout == "vlmevalkit":
        said = capsys.readouterr().err.splitlines()
        assert code == 1 and [line.split(": ")[2].split("/")[0] for line in said] == ["mmmu", "mmmu_pro", "mmmu_pro"]
        written = {path.name for path in (out / "all" / layout).glob("*.tsv")}
        assert written == {
            f"all_{name}.tsv" for place, (name, _) in DATASETS.items() if place in parts and "mmmu" not in place
        }
    else:
        assert code == 0
        tasks = {path.stem for path in (out / "all" / layout).glob("*.json")}
        assert tasks == {task for place, (_, task) in DATASETS.items() if place in parts}


def test_an_index_from_vlmevalkits_table_is_kept(out):
    from avar_rl.evaluation.benchmarks.reporting.answered import read_questions

    hallusion, star = (read_questions(out, "all", name) for name in ("hallusionbench", "mmstar"))  # both of a TSV
    assert all(sample.extra["index"].count("_") >= 5 for sample in hallusion)
    assert [sample.extra["index"] for sample in star[:2]] == ["0", "1"]


def test_two_models_on_all_seven(out, tmp_path, capsys):
    assert avar(["compare", str(out), str(out), "--models", "half", "all", "--json", str(tmp_path / "c.json")]) == 0
    found = json.loads((tmp_path / "c.json").read_text())["benchmarks"]
    assert list(found) == [benchmark.name for benchmark in chosen([ALL])]
    for one in found.values():
        change = next(iter(one["columns"]["ours"].values()))
        assert change["difference"]["value"] >= 0 and change["after"]["value"] > 0.5
    said = capsys.readouterr().out
    assert "  fAcc" in said and "mean of the paper's seven" in said
    mean = json.loads((tmp_path / "c.json").read_text())["mean"]["ours"]
    firsts = [next(iter(one["columns"]["ours"].values()))["difference"]["value"] for one in found.values()]
    assert mean["difference"]["value"] == pytest.approx(sum(firsts) / 7) and mean["verdict"] == "higher"


def test_the_miniatures_own_file_is_found_as_training_data(out, tmp_path):
    from avar_rl.evaluation.benchmarks.asking.records import samples_path
    from data_tools.formats.rows import rl_row, write_rows
    from data_tools.formats.sample import read_samples

    first = next(read_samples(samples_path(out / "all", "mathvision")))
    row = rl_row(id="t", source="x", question="Which?", gold="1", images=first.images, index=0, split="train")
    write_rows([row], tmp_path / "train.parquet")
    assert avar(["report", str(out), "--check-train", str(tmp_path / "train.parquet")]) == 0
    found = json.loads((out / "contamination.json").read_text())["benchmarks"]["mathvision"]
    assert first.id in found["found"]["image"]
    assert found["models"]["all"]["all"]["n"] == ROWS > found["models"]["all"]["images not found"]["n"]


def test_a_prediction_file_has_every_question_once(out):
    with (out / "all" / "vlmevalkit" / "all_HallusionBench.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len({row["index"] for row in rows}) == ROWS and {row["answer"] for row in rows} <= {"Yes", "No"}


def test_the_attention_of_a_model_is_drawn_over_the_image_of_a_question(out):
    id_ = "mathvista/testmini/1"
    assert avar(["report", str(out), "--models", "half", "--overlay", id_]) == 0
    picture = Image.open(out / overlay_path("half", id_))
    assert picture.format == "PNG" and picture.width > 800
    script = (out / "half" / "page" / "mathvista.0.js").read_text(encoding="utf-8")
    assert '"overlay":"half/attention/mathvista%252Ftestmini%252F1.png"' in script  # the file's name holds %2F
