"""R1-ShareVL, the hub's `HuanjinYao/R1-ShareVL-52K`: the prompts of Share-GRPO.

Schema: images [Image], problem (starts with `<image>`; options, where there are any, stand in it), answer (a letter, a
number or an expression), and idx and new_questions (rewritten problems), which are left out; split train.
"""

from data_tools.convert.sources.source import Draft, Row, Source, answer_of, images_of, kept, place_images, text_of


def draft(row: Row) -> Draft:
    """What a row of R1-ShareVL says; raises ValueError for one that cannot be used."""
    images = images_of(row, "images")
    question = place_images(text_of(row, "problem"), "<image>", len(images))
    return Draft(question, answer_of(row, "answer"), images, extra=kept(row, "idx"))


SOURCE = Source("r1_sharevl", ("images", "problem", "answer"), draft, hub="HuanjinYao/R1-ShareVL-52K")
