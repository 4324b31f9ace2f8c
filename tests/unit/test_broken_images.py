"""Images as a row may hold them: damaged files of every format, base64, data URLs, names that are none."""

import base64
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from avar_rl.runtime.images import image_bytes, open_image
from data_tools.convert.__main__ import main
from data_tools.convert.images import read_picture
from data_tools.formats.sample import read_samples


def encoded(kind: str, seed: int = 0, **options) -> bytes:
    rng, image = random.Random(seed), Image.new("RGB", (120, 90), "white")
    for _ in range(20):
        colour = tuple(rng.randrange(256) for _ in range(3))
        ImageDraw.Draw(image).line([(rng.randrange(120), rng.randrange(90)) for _ in range(3)], fill=colour, width=2)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM")


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_file_is_no_image(kind):
    data = encoded(kind)
    read_picture(data)
    with pytest.raises(ValueError, match="an image cannot be read"):
        read_picture(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_raises_nothing_but_value_errors(kind):
    data = encoded(kind)
    for seed in range(60):  # Pillow's decoders raise IndexError (GIF) and RuntimeError (AVIF) on some of these
        rng, damaged = random.Random(seed), bytearray(data)
        for _ in range(rng.randint(1, 12)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            read_picture(bytes(damaged[: rng.randint(1, len(data))]))
        except ValueError:
            pass


def test_an_animation_cut_after_its_first_frame_is_that_frame():
    still = encoded("GIF")
    moving = encoded("GIF", save_all=True, append_images=[Image.new("RGB", (120, 90), "red")])
    assert read_picture(moving[:-20]).fingerprint.hash == read_picture(still).fingerprint.hash


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF"])
def test_base64_and_data_urls_are_decoded(kind):
    data = encoded(kind)
    text = base64.b64encode(data).decode()
    assert image_bytes(text) == image_bytes({"bytes": text}) == data
    assert image_bytes(f"data:image/{kind.lower()};base64,{text}") == data
    assert image_bytes("\n".join(text[i : i + 76] for i in range(0, len(text), 76))) == data  # as MIME wraps it


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "neither bytes nor the path of a file nor base64, but nothing"),
        ("", "but nothing"),
        (b"", "but nothing"),
        ({"bytes": b"", "path": None}, "but nothing"),
        (float("nan"), "but a float"),
        ({"bytes": [137, 80, 78, 71]}, "but a list"),
        ([1], "but a list"),
        ("data:image/png;base64,iVBORw0KGgo*", "no valid base64"),
        ("iVBORw0KGgo" + "A" * 54, "no valid base64"),
        ("x" * 5000, "an image file cannot be read .OSError.|no such image file"),  # longer than a name may be
        ("a\0b.png", "cannot be read|no such image file"),
        (".", "no such image file"),
        ("https://example.org/a.png", "no such image file"),
    ],
)
def test_what_is_no_image_is_one_value_error(tmp_path, value, fault):
    with pytest.raises(ValueError, match=fault) as found:
        image_bytes(value, tmp_path, "row 3")
    assert str(found.value).startswith("row 3: ") and len(str(found.value)) < 500


def test_base64_of_no_image_is_a_path():
    with pytest.raises(ValueError, match="no such image file"):
        image_bytes(base64.b64encode(b"only some words, and no image at all, but long").decode())


def test_open_image_says_what_the_decoder_said():
    with pytest.raises(ValueError, match="^row 1: an image cannot be read .UnidentifiedImageError"):
        open_image(b"GIF87", where="row 1")


def test_broken_images_reject_their_rows_and_the_others_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    whole = {kind: encoded(kind, seed) for seed, kind in enumerate(FORMATS)}
    images = [data for kind in FORMATS for data in (whole[kind], whole[kind][: len(whole[kind]) // 2])] + [b""]
    rows = [{"question": f"Which? {i}", "answer": "1", "images": [{"bytes": d}]} for i, d in enumerate(images)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    out = tmp_path / "out"
    argv = ["columns", str(out), "--data", str(tmp_path / "a.parquet"), "--images-column", "images"]
    assert main([*argv, "--max-rejected", "1"]) == 0
    assert [int(sample.id[-6:]) for sample in read_samples(out / "train.parquet")] == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [(r["index"], r["kind"]) for r in rejected] == [(i, "image") for i in (1, 3, 5, 7, 9, 11, 13, 15, 17, 18)]
    assert all(r["text"].startswith("image 0: ") for r in rejected)


def test_images_in_jsonl_as_base64(tmp_path):
    url = "data:image/png;base64," + base64.b64encode(encoded("PNG")).decode()
    rows = [{"question": "Which?", "answer": "1", "images": url}, {"question": "?", "answer": "1", "images": url[:90]}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    argv = ["columns", str(tmp_path / "out"), "--data", str(tmp_path / "a.jsonl"), "--images-column", "images"]
    assert main(argv) == 1
    (sample,) = read_samples(tmp_path / "out" / "train.parquet")
    assert sample.images == (encoded("PNG"),)


def test_postscript_is_never_run():
    """Pillow would hand it to Ghostscript."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) print\n%%EOF\n"
    for read in (open_image, read_picture):
        with pytest.raises(ValueError, match="cannot identify image file"):
            read(postscript)
