"""MMK12, the hub's `FanqingM/MMK12` (MM-Eureka): school questions with checkable answers.

Schema: id, question (options stand in it), answer, subject, image (Image); splits train (15,616, free form and choice)
and test (2,000, choice).
"""

from data_tools.convert.sources.source import Draft, Row, Source, answer_of, images_of, kept, place_images, text_of


def draft(row: Row) -> Draft:
    """What a row of MMK12 says; raises ValueError for one that cannot be used."""
    images = images_of(row, "image")
    question = place_images(text_of(row, "question"), "<image>", len(images))
    return Draft(question, answer_of(row, "answer"), images, extra=kept(row, "id", "subject"))


SOURCE = Source("mmk12", ("question", "answer", "image"), draft, hub="FanqingM/MMK12", splits=("test", "train"))
