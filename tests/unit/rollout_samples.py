"""A small rollout record, written by hand: two steps, three groups, every kind of verdict."""

import io
from pathlib import Path

from PIL import Image, ImageDraw

from avar_rl.rollouts.record import Rollout, store_image, write_step

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & \u2028 é 漢"


def picture(colour: str) -> bytes:
    image = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(image).ellipse((20, 20, 76, 76), fill=colour)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def rollout(text: str, **changes) -> Rollout:
    """A right answer: 1.0 + 0.3 x 0.5 + 0.1 = 1.25. The token at place i has image mass i / 10."""
    tokens = tuple(f"{word} " for word in text.split(" "))
    values = {
        "step": 1, "group": "a", "row": "tiny-0", "question": "What colour is the circle?", "gold": "red", "images": (),
        "response": text, "tokens": tokens, "image_mass": tuple(i / 10 for i in range(len(tokens))),
        "system_mass": (0.05,) * len(tokens), "raw": {"accuracy": 1.0, "visual": 0.5, "format": 1.0},
        "weighted": {"accuracy": 1.0, "visual": 0.15, "format": 0.1}, "total": 1.25,
    }  # fmt: skip
    return Rollout(**(values | changes))


def wrong(text: str, **changes) -> Rollout:
    parts = {"raw": {"accuracy": 0.0, "visual": 0.8, "format": 1.0}, "closed": ("visual",)}
    parts |= {"weighted": {"accuracy": 0.0, "visual": 0.0, "format": 0.1}, "total": 0.1}
    return rollout(text, **(parts | changes))


def write_record(directory: Path) -> Path:
    red, blue = (store_image(directory, picture(colour)) for colour in ("#d62828", "#1d4ed8"))
    looks = "<think> I look at the circle and its fill is red </think> <answer>red</answer>"
    first = {"group": "a", "images": (red,)}
    count = len(looks.split(" "))  # dependence from -1 to 1, weights 0 and 2 in turn
    known = {"dependence": tuple(round(2 * i / (count - 1) - 1, 4) for i in range(count)), "entropy": (0.25,) * count}
    known |= {"weight": tuple(2.0 * (i % 2) for i in range(count))}
    second = {"group": "b", "row": "tiny-1", "gold": "blue", "images": (blue,)}
    undecided = {"raw": {"accuracy": None, "visual": 0.2, "format": 0.0}, "closed": ("visual",), "masked": True}
    undecided |= {"weighted": {"accuracy": 0.0, "visual": 0.0, "format": 0.0, "length": -0.5}, "total": -0.5}
    write_step(
        directory,
        1,
        [
            rollout(looks, **(first | known)),
            wrong("<think> a guess </think> <answer>green</answer>", **first),
            wrong(HOSTILE, **second),
            rollout("x = ", **(second | undecided)),
        ],
    )
    third = {"step": 2, "group": "c", "row": "tiny-2", "question": "2 + 2?", "gold": "4", "image_mass": ()}
    write_step(directory, 2, [rollout("<answer>4</answer>", system_mass=(), **third)])
    return directory
