"""The rules for images, each on a picture made for it; and the perceptual hash."""

import io
import random
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_tools.convert.duplicates import MIN_SHARED, NEAR, Images, read_benchmark, same_image
from data_tools.convert.images import Fingerprint, difference_hash, read_picture


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawing(seed: int = 0, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A triangle as a geometry question has it: thin black lines on white."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, "white")
    corners = [(rng.randint(30, size[0] - 30), rng.randint(30, size[1] - 30)) for _ in range(3)]
    ImageDraw.Draw(image).line([*corners, corners[0]], fill="black", width=2)
    return image


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


UNCHANGED = {
    "png": encoded(drawing()),
    "jpeg": encoded(drawing(), "JPEG"),
    "progressive jpeg": encoded(drawing(), "JPEG", progressive=True),
    "webp": encoded(drawing(), "WEBP"),
    "grey png": encoded(drawing().convert("L")),
    "palette png": encoded(drawing().convert("P")),
    "black and white png": encoded(drawing().convert("1")),
    "opaque rgba png": encoded(drawing().convert("RGBA")),
    "upright exif": encoded(
        drawing(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0"
    ),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_what_needs_no_change_keeps_its_bytes(name):
    picture = read_picture(UNCHANGED[name])
    assert picture.data == UNCHANGED[name] and picture.changes == ()
    assert (picture.width, picture.height) == (400, 300)
    assert picture.suffix == {"jpeg": "jpg", "progressive jpeg": "jpg", "upright exif": "jpg", "webp": "webp"}.get(
        name, "png"
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_rotation_is_applied_once(kind):
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste("red", (0, 0, 20, 20))  # red on the left
    # Stored turned: 6 says that a quarter turn clockwise shows it upright.
    stored = encoded(upright.transpose(Image.Transpose.ROTATE_90), kind, exif=turned(6), quality=95)
    picture = read_picture(stored)
    assert picture.changes == ("rotated by EXIF",) and (picture.width, picture.height) == (40, 20)
    assert np.abs(pixels(picture.data)[10, 5] - [255, 0, 0]).max() < 8
    assert np.abs(pixels(picture.data)[10, 35] - [255, 255, 255]).max() < 8
    assert read_picture(picture.data).changes == ()  # no orientation is left that a reader could apply again
    assert picture.suffix == {"JPEG": "jpg", "PNG": "png"}[kind]


def test_animations_keep_their_first_frame():
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("blue", "red", "green")]
    for kind, changes in (
        ("GIF", ("first frame of an animation", "from GIF")),
        ("WEBP", ("first frame of an animation",)),
        ("PNG", ("first frame of an animation",)),
    ):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        picture = read_picture(data)
        assert picture.changes == changes and picture.suffix == "png"
        assert (pixels(picture.data)[15, 15] == [0, 0, 255]).all()
        assert read_picture(picture.data).changes == ()


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_become_png(kind):
    picture = read_picture(encoded(drawing().convert("L"), kind))
    assert picture.changes == (f"from {kind}",) and picture.suffix == "png"
    assert (pixels(picture.data) == pixels(encoded(drawing()))).all()


def test_transparent_pixels_become_white():
    rgba = Image.new("RGBA", (20, 20), (0, 0, 0, 0))  # black, wholly transparent: a plain conversion would show black
    rgba.paste((255, 0, 0, 255), (0, 0, 10, 20))
    rgba.paste((0, 0, 0, 128), (15, 0, 20, 20))
    picture = read_picture(encoded(rgba))
    assert picture.changes == ("flattened onto white",)
    shown = pixels(picture.data)
    assert shown[5, 5].tolist() == [255, 0, 0] and shown[5, 12].tolist() == [255, 255, 255]
    assert shown[5, 17].tolist() == [127, 127, 127]  # 255 * (1 - 128 / 255)


def test_a_transparent_palette_becomes_white_too():
    image = Image.new("P", (20, 20), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 10, 20))
    picture = read_picture(encoded(image, "PNG", transparency=0))
    assert picture.changes == ("flattened onto white",)
    assert pixels(picture.data)[5, [5, 15]].tolist() == [[255, 0, 0], [255, 255, 255]]


def test_cmyk_becomes_rgb():
    picture = read_picture(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG", quality=95))
    assert picture.changes == ("CMYK to RGB",) and picture.suffix == "jpg"
    assert np.abs(pixels(picture.data)[5, 5] - [255, 0, 0]).max() < 8


def test_sixteen_bits_are_scaled_not_clipped():
    grey = Image.fromarray(np.full((20, 20), 0x4000, dtype=np.uint16))
    picture = read_picture(encoded(grey))
    assert picture.changes == ("16 bits to 8",)
    assert pixels(picture.data)[5, 5].tolist() == [64] * 3  # 0x4000 / 0xFFFF * 255 = 63.75


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that claims to be huge."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "no bytes"),
        (b"<html>not found</html>", "cannot be read .UnidentifiedImageError"),
        (UNCHANGED["png"][:-300], "cannot be read"),
        (UNCHANGED["jpeg"][: len(UNCHANGED["jpeg"]) // 2], "cannot be read"),
        (UNCHANGED["webp"][:200], "cannot be read"),
        (bomb(9000, 9000), "too large: 9000 x 9000 pixels, the limit is 64000000"),
        (bomb(50000, 50000), "too large"),
        (bomb(100, 100), "cannot be read"),
        (encoded(Image.new("RGB", (300, 1))), "too narrow: 300 x 1"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_of_no_use(data, fault):
    with pytest.raises(ValueError, match=fault):
        read_picture(data)


def fingerprint(image: Image.Image) -> Fingerprint:
    return Fingerprint(image.tobytes(), difference_hash(image))


def variants(image: Image.Image) -> dict[str, Image.Image]:
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
    return {
        "jpeg": Image.open(io.BytesIO(encoded(image, "JPEG", quality=75))),
        "half": half,
        "half and jpeg": Image.open(io.BytesIO(encoded(half, "JPEG", quality=60))),
        "larger": image.resize((520, 390), Image.Resampling.BICUBIC),
        "grey": image.convert("L"),
    }


def test_stored_anew_a_drawing_is_the_same_and_another_drawing_is_not():
    prints = [fingerprint(drawing(seed)) for seed in range(60)]
    missed = [
        (seed, name)
        for seed in range(20)
        for name, image in variants(drawing(seed)).items()
        if not same_image(prints[seed], fingerprint(image))
    ]
    assert len(missed) <= 2  # of 100
    assert {name for _, name in missed} <= {"half and jpeg"}  # the harshest
    assert [(i, j) for i in range(60) for j in range(i) if same_image(prints[i], prints[j])] == []  # of 1770 pairs


def test_almost_blank_images_match_byte_for_byte_only():
    blank, nearly = Image.new("RGB", (100, 100), "white"), Image.new("RGB", (100, 100), (250, 250, 250))
    assert not same_image(fingerprint(blank), fingerprint(nearly))
    assert same_image(fingerprint(blank), fingerprint(blank.copy()))


def test_the_search_agrees_with_the_pairwise_test():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, 64, dtype=np.uint8)
    images = Images()
    entries = []
    for flips in (0, NEAR, NEAR + 1, 200):
        bits = np.unpackbits(base)
        bits[rng.choice(512, flips, replace=False)] ^= 1
        entries.append(Fingerprint(bytes([flips]), np.packbits(bits).tobytes()))
    probe = Fingerprint(b"probe", base.tobytes())
    assert [same_image(probe, entry) for entry in entries] == [True, True, False, False]
    for entry in reversed(entries):
        images.add(entry)
    assert [images.holds(probe, before) for before in range(5)] == [False, False, False, True, True]
    for _ in range(2000):  # the table grows
        images.add(Fingerprint(rng.bytes(8), rng.bytes(64)))
    assert len(images) == 2004 and images.holds(probe, 2004)


def sparse(digest: str, first: int, last: int) -> Fingerprint:
    """A fingerprint with the bits from `first` up to `last` set."""
    places = np.arange(512)
    return Fingerprint(digest.encode(), np.packbits((places >= first) & (places < last)).tobytes())


def test_hashes_of_few_bits_say_less():
    few = MIN_SHARED
    assert same_image(sparse("a", 0, few), sparse("b", 0, few))  # 8 shared, 0 differ
    assert not same_image(sparse("a", 0, few - 1), sparse("b", 0, few - 1))  # 7 shared
    assert same_image(sparse("a", 0, 8), sparse("b", 0, 10))  # 2 of 8 differ: a quarter
    assert not same_image(sparse("a", 0, 8), sparse("b", 0, 11))
    assert not same_image(sparse("a", 0, 100), sparse("b", 0, 109))  # 9 differ: over NEAR


def test_lists_of_hashes(tmp_path):
    path = tmp_path / "hashes.txt"
    path.write_text(f"# a benchmark\n{'ab' * 64}  # one\n\n{'CD' * 64}\n")
    benchmark = read_benchmark(path)
    assert len(benchmark) == 2 and benchmark.holds(Fingerprint(b"", bytes.fromhex("cd" * 64)), 2)
    for content, fault in (("abc\n", "line 1: no hash of 128 hexadecimal digits: 'abc'"), ("# none\n", "is empty")):
        path.write_text(content)
        with pytest.raises(ValueError, match=fault):
            read_benchmark(path)
    with pytest.raises(ValueError, match="no such list of hashes"):
        read_benchmark(tmp_path / "nothing.txt")
