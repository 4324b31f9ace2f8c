r"""ViRL39K, the hub's `TIGER-Lab/ViRL39K`: 38,870 checkable questions with pass rates.

Schema: question (with `<image>` places in most rows), answer (in `\boxed{}`), PassRate_32BTrained, PassRate_7BBase
(-1 where not measured), category, source, qid, image [paths relative to the data set's folder, where images.zip is
unpacked]. The images are not in the parquet file, so give the folder or file of a local copy with --data.
"""

import re

from data_tools.convert.sources.source import Draft, Row, Source, answer_of, images_of, kept, place_images, text_of


def draft(row: Row) -> Draft:
    """What a row of ViRL39K says; raises ValueError for one that cannot be used."""
    images = images_of(row, "image")
    answer = answer_of(row, "answer")
    boxed = re.fullmatch(r"\\boxed\{(.*)\}", answer, re.DOTALL)
    if boxed is None:
        raise ValueError(f"the answer {answer!r} is not in \\boxed{{}}")
    return Draft(
        place_images(text_of(row, "question"), "<image>", len(images)),
        boxed.group(1),
        images,
        extra=kept(row, "qid", "category", "source", "PassRate_32BTrained", "PassRate_7BBase"),
    )


SOURCE = Source("virl39k", ("question", "answer", "image"), draft, hub="TIGER-Lab/ViRL39K")
