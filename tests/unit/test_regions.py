"""Evidence boxes → image tokens, by hand and against exact fractions; what marked regions leave as it is."""

import itertools
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from avar_rl.attention.regions import NO_BOX, evidence_boxes, region_mask
from avar_rl.attention.roles import (
    Markup,
    Role,
    has_role,
    query_positions,
    require_roles,
    role_counts,
    role_spans,
    token_roles,
)
from avar_rl.guidance import GuidanceConfig, guidance_terms
from avar_rl.intervention import Intervention
from avar_rl.runtime.evidence import EvidenceError, read_evidence
from avar_rl.vas import vas_spans, visual_attention

IM_START, IM_END, START, END, PAD, VIDEO, NEWLINE = range(1, 8)
NAMES = {Role.SYSTEM: (20,), Role.USER: (21,), Role.RESPONSE: (22,)}
MARKUP = Markup(IM_START, IM_END, START, END, PAD, VIDEO, NEWLINE, NAMES)
WIDE = torch.tensor([[1, 6, 8]])  # patches: 3 x 4 tokens at a merge size of 2


def prompt(*images: int) -> list[int]:
    """A system turn of two tokens; a user turn of images with so many tokens, and two tokens of text."""
    shown = [token for pads in images for token in (START, *[PAD] * pads, END)]
    system = [IM_START, 20, NEWLINE, 40, 41, IM_END, NEWLINE]
    return [*system, IM_START, 21, NEWLINE, *shown, 42, 43, IM_END, NEWLINE]


def boxes(*entries: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(entries, dtype=torch.float32).view(-1, 5)


def cells(box: tuple[float, ...], grid: torch.Tensor = WIDE, merge: int = 2) -> list[int]:
    """Which tokens of one image, counted from 0, a box of fractions takes."""
    pads = int(grid.prod()) // merge**2
    ids = torch.tensor([prompt(pads)])
    region = region_mask(ids, MARKUP, [boxes((0, *box))], grid, merge)
    assert region.dtype == torch.bool and not region[ids != PAD].any()
    return region[ids == PAD].nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("box", "taken"),
    [
        # 3 rows of 4 tokens: columns are 1/4 wide, rows 1/3 high
        ((0.25, 1 / 3, 0.5, 2 / 3), [5]),  # exactly the cell in row 1, column 1; edges in common are nothing
        ((0.25, 1 / 3, 0.51, 2 / 3), [5, 6]),
        ((0.24, 1 / 3, 0.5, 2 / 3), [4, 5]),
        ((0.2, 0.3, 0.3, 0.4), [0, 1, 4, 5]),  # around the corner of four cells
        ((0.6, 0.7, 0.6001, 0.7001), [10]),  # the smallest box has a token: row 2, column 2
        ((0.0, 0.0, 1.0, 1.0), list(range(12))),
        ((0.0, 0.0, 1.0, 0.01), [0, 1, 2, 3]),
        ((0.99, 0.0, 1.0, 1.0), [3, 7, 11]),
    ],
)
def test_a_token_is_in_the_region_where_its_cell_overlaps_the_box(box, taken):
    assert cells(box) == taken


def test_the_grid_is_the_processors():
    assert cells((0.5, 0.5, 0.6, 0.6), torch.tensor([[1, 6, 8]]), merge=1) == [3 * 8 + 4]  # patches are tokens
    assert cells((0.5, 0.5, 0.6, 0.6), torch.tensor([[1, 4, 4]])) == [3]
    assert cells((0.5, 0.5, 0.6, 0.6), torch.tensor([[1, 12, 12]]), merge=3) == [2 * 4 + 2]


def test_several_boxes_and_images_of_several_rows():
    # Row 0: images of 12 and 4 tokens, boxes on both. Row 1: no image. Row 2: one image, no box.
    rows = [prompt(12, 4), prompt(), prompt(4)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    grids = torch.tensor([[1, 6, 8], [1, 4, 4], [1, 4, 4]])
    wanted = [
        boxes((0, 0.0, 0.0, 0.1, 0.1), (0, 0.9, 0.9, 1.0, 1.0), (1, 0.5, 0.0, 1.0, 0.5)),
        boxes((NO_BOX, 0, 0, 0, 0)),
        boxes((NO_BOX, 0, 0, 0, 0)),
    ]
    region = region_mask(ids, MARKUP, wanted, grids, 2, attention_mask=mask)
    first = region[0][ids[0] == PAD].nonzero().flatten().tolist()
    assert first == [0, 11, 12 + 1]  # the corners of the first image, the upper right token of the second
    assert not region[1:].any()

    packed = torch.cat([torch.tensor(row) for row in rows])[None]
    cu_seqlens = torch.tensor([0, *map(len, rows)]).cumsum(0)
    flat = region_mask(packed, MARKUP, wanted, grids, 2, cu_seqlens=cu_seqlens)
    assert torch.equal(flat[0], region[mask.bool()])
    filled = torch.nn.functional.pad(packed, (0, 3)), torch.cat([cu_seqlens, cu_seqlens[-1:] + 3])  # verl's filling
    assert torch.equal(region_mask(filled[0], MARKUP, wanted, grids, 2, cu_seqlens=filled[1])[:, :-3], flat)


def test_pads_of_videos_and_of_the_response_are_in_no_region():
    ids = torch.tensor([[*prompt(4), IM_START, 22, NEWLINE, PAD, START, VIDEO, 50]])
    response = torch.zeros_like(ids, dtype=torch.bool)
    response[0, -4:] = True
    everything = boxes((0, 0.0, 0.0, 1.0, 1.0))
    region = region_mask(ids, MARKUP, [everything], torch.tensor([[1, 4, 4]]), 2, response_mask=response)
    assert region.sum() == 4 and not region[0, -4:].any()
    video = torch.tensor([[*prompt(), START, VIDEO, VIDEO, END]])
    assert not region_mask(video, MARKUP, [boxes((NO_BOX, 0, 0, 0, 0))], None, 2).any()
    assert not region_mask(video, MARKUP, [], None, 2).any()


def exact_cells(pixels: tuple[int, ...], size: tuple[int, int], grid: tuple[int, int]) -> list[int]:
    """The overlapping tokens in exact arithmetic: box and size in pixels, the grid in tokens (rows, columns)."""
    (x0, y0, x1, y1), (width, height), (rows, columns) = pixels, size, grid

    def overlap(low: int, high: int, length: int, cell: int, count: int) -> bool:
        return Fraction(low, length) < Fraction(cell + 1, count) and Fraction(high, length) > Fraction(cell, count)

    return [
        row * columns + column
        for row in range(rows)
        for column in range(columns)
        if overlap(x0, x1, width, column, columns) and overlap(y0, y1, height, row, rows)
    ]


def test_random_boxes_equal_exact_fractions():
    rng = random.Random(0)
    for _ in range(100):
        size, grid = (rng.randint(28, 4000), rng.randint(28, 4000)), (rng.randint(1, 60), rng.randint(1, 60))
        x, y = sorted(rng.sample(range(size[0] + 1), 2)), sorted(rng.sample(range(size[1] + 1), 2))
        pixels = (x[0], y[0], x[1], y[1])
        (fractions,) = evidence_boxes(read_evidence([[pixels]]), [size]).tolist()
        patches = torch.tensor([[1, 2 * grid[0], 2 * grid[1]]])
        found = cells(tuple(fractions[1:]), patches)
        assert found == exact_cells(pixels, size, grid) and found


def test_a_box_of_whole_cells_takes_no_neighbour():
    for columns in range(1, 150):  # 28 pixels a cell; fractions in single precision
        edges = [float(28 * column) for column in range(columns + 1)]
        found = [((left, 0.0, right, 28.0),) for left, right in itertools.pairwise(edges)]
        for column in {0, columns // 3, columns // 2, columns - 1}:
            (one,) = evidence_boxes((found[column],), [(28 * columns, 28)]).tolist()
            assert cells(tuple(one[1:]), torch.tensor([[1, 2, 2 * columns]])) == [column]


def test_boxes_of_a_row_as_fractions():
    evidence = (((0.0, 10.0, 50.0, 20.0),), (), ((1.0, 1.0, 3.0, 4.0),))
    found = evidence_boxes(evidence, [(100, 40), (8, 8), (4, 4)])
    assert found.tolist() == [[0.0, 0.0, 0.25, 0.5, 0.5], [2.0, 0.25, 0.25, 0.75, 1.0]]
    assert evidence_boxes((), [(8, 8)]).tolist() == evidence_boxes(((),), [(8, 8)]).tolist() == [[NO_BOX, 0, 0, 0, 0]]
    with pytest.raises(EvidenceError, match="reaches outside the image of 8 x 8"):
        evidence_boxes((((0.0, 0.0, 9.0, 8.0),),), [(8, 8)])


def test_boxes_and_grids_that_do_not_fit_the_batch_are_named():
    ids, box = torch.tensor([prompt(12), prompt(12)]), boxes((0, 0.0, 0.0, 1.0, 1.0))
    grids = WIDE.repeat(2, 1)
    with pytest.raises(ValueError, match="24 image tokens, but its grids .* make 12"):
        region_mask(ids, MARKUP, [box, box], WIDE, 2)
    with pytest.raises(ValueError, match="about image 1 of sequence 0, which has none"):
        region_mask(ids, MARKUP, [boxes((1, 0.0, 0.0, 1.0, 1.0)), box], grids, 2)
    with pytest.raises(ValueError, match="about image 1 of sequence 1, which has none"):
        region_mask(ids, MARKUP, [box, boxes((1, 0.0, 0.0, 1.0, 1.0))], grids, 2)
    for none in (None, torch.zeros(0, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="1 evidence boxes, but the batch has no image"):
            region_mask(torch.tensor([prompt()]), MARKUP, [box], none, 2)


# With and without marks: system turn, image of 12 tokens whose tokens 5 and 6 are REGION, two tokens of text, response.
IDS = torch.tensor([[*prompt(12), IM_START, 22, NEWLINE, 50, 51]])
RESPONSE = torch.arange(IDS.shape[1])[None] >= IDS.shape[1] - 2
REGION = region_mask(IDS, MARKUP, [boxes((0, 0.25, 0.4, 0.75, 0.6))], WIDE, 2)
PLAIN = token_roles(IDS, MARKUP, response_mask=RESPONSE)
MARKED = token_roles(IDS, MARKUP, response_mask=RESPONSE, region_mask=REGION)


def test_region_tokens_are_image_tokens():
    assert role_counts(MARKED, [Role.REGION, Role.IMAGE, Role.USER]).tolist() == [[2, 12, 2]]
    assert role_counts(PLAIN, [Role.REGION, Role.IMAGE]).tolist() == [[0, 12]]
    assert torch.equal(has_role(MARKED, Role.IMAGE), has_role(PLAIN, Role.IMAGE))
    assert torch.equal(has_role(MARKED, Role.REGION), REGION)
    changed = MARKED != PLAIN
    assert torch.equal(changed, REGION) and set(MARKED[changed].tolist()) == {int(Role.REGION)}
    require_roles(MARKED, [Role.IMAGE, Role.REGION])
    with pytest.raises(ValueError, match="row 0 has no REGION token"):
        require_roles(PLAIN, [Role.REGION])
    whole = token_roles(IDS, MARKUP, region_mask=IDS == PAD)
    require_roles(whole, [Role.IMAGE])  # all of it is REGION
    everywhere = token_roles(IDS, MARKUP, response_mask=RESPONSE, region_mask=torch.ones_like(REGION))
    assert torch.equal(everywhere == Role.REGION, IDS == PAD)  # only image tokens can be a region
    with pytest.raises(ValueError, match="region_mask has shape"):
        token_roles(IDS, MARKUP, region_mask=REGION[:, 1:])


def test_marks_change_no_other_number():
    for which in ("user", "all_user", "response"):
        assert torch.equal(query_positions(MARKED, which), query_positions(PLAIN, which))
    for wanted in ([Role.IMAGE, Role.SYSTEM], [Role.USER, Role.RESPONSE, Role.OTHER]):
        assert torch.equal(role_spans(MARKED, wanted), role_spans(PLAIN, wanted))
    assert torch.equal(vas_spans(MARKED), vas_spans(PLAIN))
    positions = query_positions(PLAIN, "all_user")
    mass = torch.rand(2, 1, 3, 4, positions.shape[1], generator=torch.Generator().manual_seed(0))
    marked, plain = (vars(visual_attention(mass, positions, roles)) for roles in (MARKED, PLAIN))
    assert all(torch.equal(marked[name], plain[name]) for name in plain) and plain["vas_N"].item() > 0
    terms = [vars(guidance_terms(mass[:, :, :2], positions, roles, GuidanceConfig())) for roles in (MARKED, PLAIN)]
    assert all(torch.equal(terms[0][name], terms[1][name]) for name in terms[1]) and terms[1]["guided_N"].all()
    for strength in (Intervention(img=0.5, sys=0.1), Intervention(img=0.5, mode="logit")):
        assert torch.equal(strength.gains(MARKED), strength.gains(PLAIN)) and strength.gains(PLAIN).any()
        assert torch.equal(strength.acts_on(MARKED), strength.acts_on(PLAIN)) and strength.acts_on(PLAIN).any()


def test_nobody_asks_for_image_tokens_past_has_role():
    root = Path(__file__).parents[2] / "avar_rl"
    asking = [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"[!=]=\s*(?:int\()?Role\.IMAGE", line)
    ]
    assert asking == ["attention/roles.py"] * 2  # has_role itself
