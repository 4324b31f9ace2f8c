"""Evidence boxes on their way from a user's file into RL rows: what is read, what is refused and by which sentence."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from avar_rl.runtime.evidence import EvidenceError, box_fractions, count_fault, evidence_faults, read_evidence
from avar_rl.runtime.files import read_parquet
from data_tools.convert.__main__ import main as convert
from data_tools.convert.sources.values import evidence_value
from data_tools.formats.sample import DataSample, SampleWriter, read_samples
from data_tools.prepare import main as prepare

NAN, INF = float("nan"), float("inf")
BOX = [1, 2, 30, 20.5]
READ = (1.0, 2.0, 30.0, 20.5)


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def png(shade: int = 0, size: tuple[int, int] = (40, 30), **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(file, options.pop("kind", "PNG"), **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (None, ()),
        ([], ()),
        ([[]], ((),)),
        ([None, [BOX]], ((), (READ,))),
        (((tuple(BOX), tuple(BOX)),), ((READ, READ),)),
    ],
)
def test_what_is_read(value, read):
    assert read_evidence(value) == read


@pytest.mark.parametrize(
    "value",
    [
        "red",
        5,
        {"0": [BOX]},
        [BOX],  # boxes of one image without the list of images
        [[BOX[:3]]],
        [[[*BOX, 1]]],
        [[["1", "2", "3", "4"]]],
        [[[True, 0, 1, 1]]],
        [[None]],
        [[{"x0": 1}]],
        [[[10**400, 0, 1, 1]]],
    ],
)
def test_what_is_no_evidence(value):
    with pytest.raises(EvidenceError, match=r"`extra_info.evidence` is .*; it must be a list of boxes \[x0, y0"):
        read_evidence(value)


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((NAN, 0, 1, 1), "[nan, 0, 1, 1], is not finite"),
        ((0, 0, INF, 1), "[0, 0, inf, 1], is not finite"),
        ((5, 2, 4, 9), "[5, 2, 4, 9], is reversed: x0 < x1 and y0 < y1 are wanted"),
        ((5, 9, 6, 2), "[5, 9, 6, 2], is reversed"),
        ((5, 2, 5, 9), "[5, 2, 5, 9], is empty: x1 and y1 are exclusive"),
        ((5, 9, 6, 9), "is empty"),
        ((-1, 0, 9, 9), "[-1, 0, 9, 9], reaches outside the image of 40 x 30 pixels"),
        ((0, -0.5, 9, 9), "reaches outside"),
        ((0, 0, 41, 9), "reaches outside"),
        ((0, 0, 9, 30.5), "reaches outside"),
        ((100, 100, 120, 120), "reaches outside"),
        ((0.1, 0.2, 0.9, 1.0), "is within one pixel of 40 x 30: boxes are in pixels, not in fractions"),
    ],
)
def test_each_fault_of_a_box_is_named(box, fault):
    good = READ
    (found,) = evidence_faults(((good,), (good, box)), [(40, 30), (40, 30)])
    assert found.startswith("evidence box 1 of image 1, [") and fault in found
    with pytest.raises(EvidenceError, match="evidence box 1 of image 1"):
        list(box_fractions(((good,), (good, box)), [(40, 30), (40, 30)]))


def test_a_box_may_be_the_whole_image_or_its_last_pixel():
    assert evidence_faults((((0, 0, 40, 30), (39, 29, 40, 30)),), [(40, 30)]) == []
    assert evidence_faults((), [(40, 30)]) == evidence_faults((), []) == evidence_faults(((),), [(40, 30)]) == []


def test_boxes_without_an_image_and_another_number_of_lists():
    assert count_fault(((READ,),), 0) == "`evidence` has boxes, but the row has no image"
    for evidence, images in ((((READ,), ()), 1), (((READ,),), 2)):
        fault = count_fault(evidence, images)
        assert fault and f"has {len(evidence)} lists of boxes, but the row has {images} images" in fault
        assert evidence_faults(evidence, [(40, 30)] * images) == [fault]


@pytest.mark.parametrize(
    ("value", "images", "read"),
    [
        ([[BOX], [BOX]], 2, ((READ,), (READ,))),
        ([[BOX]], 1, ((READ,),)),
        ([BOX, BOX], 1, ((READ, READ),)),  # the boxes of the only image
        (BOX, 1, ((READ,),)),  # its one box
        (json.dumps([BOX]), 1, ((READ,),)),
        ("[(1, 2, 30, 20.5)]", 1, ((READ,),)),
        ([], 1, ()),
        ([[]], 1, ((),)),
        (None, 2, ()),
        (NAN, 1, ()),
        ("", 1, ()),
    ],
)
def test_a_column_of_boxes(value, images, read):
    assert evidence_value(value, "boxes", images) == read


@pytest.mark.parametrize("value", [[BOX, BOX], BOX, [["a"]], "red", 7, {"x": 1}])
def test_a_column_that_does_not_say_which_image_its_boxes_are_of(value):
    with pytest.raises(EvidenceError, match="`boxes` is .*; it must be a list of boxes"):
        evidence_value(value, "boxes", 2)


@pytest.mark.parametrize("depth", [4, 50, 900, 960, 9_000])
def test_a_list_of_any_depth_is_refused_and_not_read_to_its_end(depth):
    with pytest.raises(EvidenceError, match="`boxes` is .{1,200}; it must be a list of boxes"):
        evidence_value("[" * depth + "]" * depth, "boxes", 1)


SIDES = st.floats(-5, 50) | st.integers(-5, 50) | st.sampled_from([NAN, INF, -INF, True, None, "3", 10**400])
ANYTHING = st.recursive(SIDES | st.text(max_size=9), lambda inner: st.lists(inner, max_size=5), max_leaves=20)
BOXES = st.lists(st.lists(st.lists(SIDES, min_size=4, max_size=4), max_size=3), max_size=3)


@given(value=ANYTHING | BOXES, images=st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_whatever_a_column_holds_is_boxes_that_fit_or_a_named_fault(value, images):
    sizes = [(40, 30)] * images
    try:
        evidence = evidence_value(value, "boxes", images)
    except ValueError as error:
        assert "boxes" in str(error)
        return
    faults = evidence_faults(evidence, sizes)
    if not faults:
        assert all(0 <= side <= 1 for _, *sides in box_fractions(evidence, sizes) for side in sides)


def table(path, rows: list[dict]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def row(i: int, boxes, images=None) -> dict:
    return {"question": f"How many? {i}", "answer": "1", "images": images or [png(i)], "boxes": boxes}


def test_boxes_go_from_a_column_through_samples_into_rl_rows(tmp_path, capsys):
    rows = [row(i, [[[0, 0, 4 + i, 4]]]) for i in range(10)]
    rows[3]["boxes"] = None
    options = ["--images-column", "images", "--evidence-column", "boxes"]
    assert convert(["columns", str(tmp_path / "c"), "--data", table(tmp_path / "a.parquet", rows), *options]) == 0
    samples = list(read_samples(tmp_path / "c" / "train.parquet"))
    assert [s.evidence for s in samples[:4]] == [*((((0.0, 0.0, 4.0 + i, 4.0),),) for i in range(3)), ()]
    sizes = ["--val-rows", "2", "--test-rows", "3"]
    assert prepare([str(tmp_path / "c" / "train.parquet"), str(tmp_path / "two"), *sizes]) == 0
    assert prepare([str(tmp_path / "a.parquet"), str(tmp_path / "one"), *options, *sizes]) == 0  # converts on the way
    for out in ("two", "one"):
        found = {}
        for name in ("rl_train", "rl_val", "test"):
            for extra in (one["extra_info"] for one in read_parquet(tmp_path / out / f"{name}.parquet")):
                found[int(extra["id"][-6:])] = extra["evidence"]
        assert found == {i: [] if i == 3 else [[[0.0, 0.0, 4.0 + i, 4.0]]] for i in range(10)}
    capsys.readouterr()


def test_a_row_with_faulty_boxes_is_rejected_as_such(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = png(6, kind="JPEG", exif=exif.tobytes())
    rows = [
        row(0, "[[0, 0, 9, 9]]"),
        row(1, "[[0, 0, 99, 9]]"),
        row(2, "[[0, 0, 9]]"),
        row(3, "[[[0, 0, 9, 9]], [[0, 0, 9, 9]]]"),
        row(4, "[[0, 0, 9, 9]]", [turned]),
        row(5, "", [turned]),
        row(6, "[[9, 9, 0, 0]]"),
    ]
    out = tmp_path / "out"
    options = ["--images-column", "images", "--evidence-column", "boxes", "--data", table(tmp_path / "a.parquet", rows)]
    assert convert(["columns", str(out), *options]) == 1
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [one["index"] for one in rejected] == [1, 2, 3, 4, 6] and {one["kind"] for one in rejected} == {"evidence"}
    texts = [one["text"] for one in rejected]
    assert "[0, 0, 99, 9], reaches outside the image of 40 x 30" in texts[0] and "`boxes` is [[[0, 0, 9]]]" in texts[1]
    assert "has 2 lists of boxes, but the row has 1 images" in texts[2] and "rotated by EXIF" in texts[3]
    assert "is reversed" in texts[4]
    assert "5 of 7 rows are bad" in capsys.readouterr().out
    assert prepare([str(tmp_path / "a.parquet"), str(tmp_path / "p"), *options[:4], "--val-rows", "1"]) == 2
    assert "row 1: evidence box 0 of image 0" in capsys.readouterr().err


def test_samples_keep_boxes_and_files_without_the_column_have_none(tmp_path):
    sample = DataSample("a", "s", "?", "1", "number", images=(png(), png(1)), evidence=((READ,), ()))
    path = tmp_path / "a.parquet"
    with SampleWriter(path) as writer:
        writer.add(sample)
    assert list(read_samples(path)) == [sample]
    (text,) = read_samples(path, with_images=False)
    assert text.evidence == ()
    old = pq.read_table(path).drop_columns(["evidence"])
    pq.write_table(old, path)
    (found,) = read_samples(path)
    assert found.evidence == () and len(found.images) == 2
    with pytest.raises(EvidenceError, match="has 1 lists of boxes, but the row has 2 images"):
        DataSample("a", "s", "?", "1", "number", images=(png(), png(1)), evidence=((READ,),))
