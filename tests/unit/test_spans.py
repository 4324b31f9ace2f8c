"""Roles written out by hand, one letter per token: O other, S system, I image, U user, R response."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from avar_rl.attention.roles import Markup, Role, query_positions, require_roles, role_counts, role_spans, token_roles

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
LETTERS = {"O": Role.OTHER, "S": Role.SYSTEM, "I": Role.IMAGE, "U": Role.USER, "R": Role.RESPONSE}

IM_START, IM_END = "<|im_start|>", "<|im_end|>\n"
SYSTEM = f"{IM_START}system\nBe.{IM_END}"
SYSTEM_ROLES = "O OOOOOO O SSS OO "  # im_start, "system", newline, "Be.", im_end, newline
USER_HEAD, USER_HEAD_ROLES = f"{IM_START}user\n", "O OOOO O "
ASSISTANT_HEAD, ASSISTANT_HEAD_ROLES = f"{IM_START}assistant\n", "O OOOOOOOOO O "
IMAGE = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|video_pad|><|vision_end|>"
IMAGE_ROLES = "O II O "
END_ROLES = "OO "


def make_tokenizer(special=SPECIAL, merges=()) -> PreTrainedTokenizerFast:
    """Every character is a token, but for the special tokens and the words in `merges`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<|endoftext|>", *special, *alphabet])}
    pairs = []
    for word in merges:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocab:
                vocab[word[:end]] = len(vocab)
            pairs.append((word[: end - 1], word[end - 1]))
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|endoftext|>", additional_special_tokens=list(special)
    )


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def markup(tokenizer):
    return Markup.from_tokenizer(tokenizer)


def ids_of(tokenizer, text: str) -> torch.Tensor:
    return torch.tensor([tokenizer.encode(text, add_special_tokens=False)])


def written(letters: str) -> list[int]:
    return [int(LETTERS[letter]) for letter in letters.replace(" ", "")]


def test_markup_reads_exact_ids(tokenizer):
    markup = Markup.from_tokenizer(tokenizer)
    assert (markup.im_start, markup.image_pad, markup.video_pad) == (1, 5, 6)
    assert len(markup.role_names[Role.SYSTEM]) == 6  # "system", one token per character


def test_markup_is_the_same_where_a_tokenizer_adds_a_token_of_its_own(tokenizer, markup, monkeypatch):
    plain = tokenizer.encode
    monkeypatch.setattr(
        tokenizer, "encode", lambda text, add_special_tokens=True: [0] * add_special_tokens + plain(text)
    )
    assert Markup.from_tokenizer(tokenizer) == markup


def test_markup_reads_role_names_that_are_one_token():
    tokenizer = make_tokenizer(merges=["system", "user", "assistant"])
    markup = Markup.from_tokenizer(tokenizer)
    assert {role: len(name) for role, name in markup.role_names.items()} == {
        Role.SYSTEM: 1,
        Role.USER: 1,
        Role.RESPONSE: 1,
    }
    ids = ids_of(tokenizer, SYSTEM + USER_HEAD + "Hi" + IM_END)
    assert token_roles(ids, markup)[0].tolist() == written("O O O SSS OO  O O O UU OO")


@pytest.mark.parametrize("missing", SPECIAL)
def test_tokenizer_without_a_markup_token_has_no_span_support(missing):
    with pytest.raises(ValueError, match="no token .*span support") as error:
        Markup.from_tokenizer(make_tokenizer([token for token in SPECIAL if token != missing]))
    assert missing in str(error.value)


CASES = {
    "image first": (
        SYSTEM + USER_HEAD + IMAGE + "Hi?" + IM_END + ASSISTANT_HEAD + "Yo" + IM_END,
        SYSTEM_ROLES + USER_HEAD_ROLES + IMAGE_ROLES + "UUU" + END_ROLES + ASSISTANT_HEAD_ROLES + "RR" + END_ROLES,
    ),
    "image last": (
        SYSTEM + USER_HEAD + "Hi?" + IMAGE + IM_END + ASSISTANT_HEAD + "Yo",
        SYSTEM_ROLES + USER_HEAD_ROLES + "UUU" + IMAGE_ROLES + END_ROLES + ASSISTANT_HEAD_ROLES + "RR",
    ),
    "several images": (
        SYSTEM + USER_HEAD + IMAGE + "a" + IMAGE + "b" + IM_END,
        SYSTEM_ROLES + USER_HEAD_ROLES + IMAGE_ROLES + "U" + IMAGE_ROLES + "U" + END_ROLES,
    ),
    "several turns": (
        SYSTEM + USER_HEAD + "a" + IM_END + ASSISTANT_HEAD + "b" + IM_END + USER_HEAD + IMAGE + "c" + IM_END,
        SYSTEM_ROLES + USER_HEAD_ROLES + "U" + END_ROLES + ASSISTANT_HEAD_ROLES + "R" + END_ROLES
        + USER_HEAD_ROLES + IMAGE_ROLES + "U" + END_ROLES,
    ),
    "no system turn": (
        USER_HEAD + IMAGE + "Hi" + IM_END + ASSISTANT_HEAD + "Yo" + IM_END,
        USER_HEAD_ROLES + IMAGE_ROLES + "UU" + END_ROLES + ASSISTANT_HEAD_ROLES + "RR" + END_ROLES,
    ),
    "video pads": (
        SYSTEM + USER_HEAD + VIDEO + "Hi" + IM_END,
        SYSTEM_ROLES + USER_HEAD_ROLES + "O II O" + "UU" + END_ROLES,
    ),
    "another role": (f"{IM_START}tool\nx{IM_END}" + USER_HEAD + "y", "O OOOO O O OO " + USER_HEAD_ROLES + "U"),
    "role name as content": (USER_HEAD + "user\nsystem" + IM_END, USER_HEAD_ROLES + "UUUU U UUUUUU" + END_ROLES),
    "content begins with a newline": (USER_HEAD + "\nHi" + IM_END, USER_HEAD_ROLES + "UUU" + END_ROLES),
    "empty turn": (USER_HEAD + IM_END + USER_HEAD + "Yo", USER_HEAD_ROLES + END_ROLES + USER_HEAD_ROLES + "UU"),
    "turn never closed": (USER_HEAD + "a" + ASSISTANT_HEAD + "b", USER_HEAD_ROLES + "U" + ASSISTANT_HEAD_ROLES + "R"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_roles(name, tokenizer, markup):
    text, letters = CASES[name]
    roles = token_roles(ids_of(tokenizer, text), markup)
    assert roles.dtype == torch.int8
    assert roles[0].tolist() == written(letters)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_other_even_inside_an_open_turn(side, tokenizer, markup):
    ids = ids_of(tokenizer, USER_HEAD + "Hi" + IM_END + ASSISTANT_HEAD + "Yo")
    letters = USER_HEAD_ROLES + "UU" + END_ROLES + ASSISTANT_HEAD_ROLES + "RR"
    pad, mask = torch.zeros(1, 3, dtype=torch.int64), torch.ones_like(ids)
    if side == "left":
        ids, mask, letters = torch.cat([pad, ids], 1), torch.cat([pad, mask], 1), "OOO" + letters
    else:
        ids, mask, letters = torch.cat([ids, pad], 1), torch.cat([mask, pad], 1), letters + "OOO"
    assert token_roles(ids, markup, attention_mask=mask)[0].tolist() == written(letters)


def test_packed_sequences_are_parsed_each_on_its_own(tokenizer, markup):
    # The first sequence ends inside an open user turn, the second begins without markup: "cd" is no turn's content.
    # The third ends on <|im_start|>, and the fourth's "user\n" does not complete that header.
    texts = [USER_HEAD + "ab", "cd" + IM_END, USER_HEAD + "e" + IM_START, "user\nf", SYSTEM]
    letters = [USER_HEAD_ROLES + "UU", "OO OO", USER_HEAD_ROLES + "U O", "OOOO O O", SYSTEM_ROLES]
    ids = [ids_of(tokenizer, text) for text in texts]
    cu_seqlens = torch.tensor([0, *(i.shape[1] for i in ids)]).cumsum(0).int()
    roles = token_roles(torch.cat(ids, 1), markup, cu_seqlens=cu_seqlens)
    assert roles[0].tolist() == written("".join(letters))


def test_response_with_markup_like_text_is_response(tokenizer, markup):
    prompt = SYSTEM + USER_HEAD + IMAGE + "Hi" + IM_END + ASSISTANT_HEAD
    prompt_roles = SYSTEM_ROLES + USER_HEAD_ROLES + IMAGE_ROLES + "UU" + END_ROLES + ASSISTANT_HEAD_ROLES
    head = ids_of(tokenizer, prompt)
    # As ordinary text: the characters of "<|im_start|>user", one token each, so no special id.
    text = "<|im_start|>user"
    ordinary = torch.tensor([[tokenizer.encode(c, add_special_tokens=False)[0] for c in text]])
    # As real special ids, image pads included, which a policy may sample; then the turn goes on.
    special = ids_of(tokenizer, IM_START + "user\nx<|image_pad|>" + IM_END + "y")
    for response in (ordinary, special):
        ids = torch.cat([head, response], 1)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[:, head.shape[1] :] = True
        roles = token_roles(ids, markup, response_mask=mask)
        assert roles[0].tolist() == written(prompt_roles) + [Role.RESPONSE] * response.shape[1]
    # Without a response mask ordinary text is still content of the assistant's turn.
    ids = torch.cat([head, ordinary], 1)
    assert token_roles(ids, markup)[0].tolist() == written(prompt_roles) + [Role.RESPONSE] * len(text)


def test_with_a_response_mask_only_its_tokens_are_response_and_later_turns_are_read(tokenizer, markup):
    # An earlier assistant turn is history (OTHER); after the response, an unmasked user turn is parsed as one.
    text = USER_HEAD + "a" + IM_END + ASSISTANT_HEAD + "b" + IM_END + ASSISTANT_HEAD + "cc" + IM_END + USER_HEAD + "d"
    ids = ids_of(tokenizer, text)
    letters = (
        USER_HEAD_ROLES + "U" + END_ROLES + ASSISTANT_HEAD_ROLES + "O" + END_ROLES
        + ASSISTANT_HEAD_ROLES + "RR R O " + USER_HEAD_ROLES + "U"
    )  # fmt: skip
    mask = torch.tensor([[letter == "R" for letter in letters.replace(" ", "")]])  # "cc" and its im_end
    assert token_roles(ids, markup, response_mask=mask)[0].tolist() == written(letters)


def test_batch_rows_do_not_touch_each_other(tokenizer, markup):
    a = ids_of(tokenizer, USER_HEAD + "abc")
    b = ids_of(tokenizer, "abc" + IM_END + "defg")
    b = torch.cat([b, b.new_zeros(1, a.shape[1])], 1)[:, : a.shape[1]]
    roles = token_roles(torch.cat([a, b]), markup)
    assert roles[0].tolist() == written(USER_HEAD_ROLES + "UUU")
    assert roles[1].tolist() == [Role.OTHER] * a.shape[1]


def test_bad_shapes_are_refused(markup):
    ids = torch.zeros(2, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match="B = 1"):
        token_roles(ids, markup, cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="response_mask has shape"):
        token_roles(ids, markup, response_mask=torch.zeros(2, 4, dtype=torch.bool))


def test_a_response_mask_does_not_reach_padding(tokenizer, markup):
    ids = ids_of(tokenizer, USER_HEAD + "Hi" + IM_END + ASSISTANT_HEAD + "ab!!")
    response, valid = torch.zeros_like(ids, dtype=torch.bool), torch.ones_like(ids)
    response[:, -4:] = True
    valid[:, -2:] = 0  # "!!" stands for padding
    roles = token_roles(ids, markup, attention_mask=valid, response_mask=response)
    assert roles[0].tolist() == written(USER_HEAD_ROLES + "UU" + END_ROLES + ASSISTANT_HEAD_ROLES + "RR OO")


ROLES = torch.tensor(
    [
        [0, 1, 1, 3, 2, 2, 3, 3, 4, 4],  # user text before and after the image
        [0, 1, 1, 3, 3, 3, 0, 4, 4, 4],  # no image
    ],
    dtype=torch.int8,
)


def test_query_positions():
    assert query_positions(ROLES, "user").tolist() == [[6, 7], [-1, -1]]
    assert query_positions(ROLES, "all_user").tolist() == [[3, 6, 7], [3, 4, 5]]
    assert query_positions(ROLES, "response").tolist() == [[8, 9, -1], [7, 8, 9]]
    assert query_positions(torch.zeros(2, 3, dtype=torch.int8), "user").shape == (2, 0)


def test_query_positions_of_a_packed_batch_do_not_see_the_image_of_another_sequence():
    packed, cu_seqlens = ROLES.reshape(1, 20), torch.tensor([0, 10, 20])
    assert query_positions(packed, "user", cu_seqlens=cu_seqlens).tolist() == [[6, 7]]
    swapped = ROLES.flip(0).reshape(1, 20)
    assert query_positions(swapped, "user", cu_seqlens=cu_seqlens).tolist() == [[16, 17]]


def test_unknown_query_positions_are_refused():
    with pytest.raises(ValueError, match="'vas_user' is unknown: choose 'user'"):
        query_positions(ROLES, "vas_user")


def test_role_spans_and_counts():
    spans = role_spans(ROLES, [Role.IMAGE, Role.SYSTEM])
    assert spans.shape == (2, 2, 10)
    assert spans[0, 0].nonzero().flatten().tolist() == [4, 5]
    assert role_counts(ROLES, [Role.IMAGE, Role.USER]).tolist() == [[2, 3], [0, 3]]
    packed = role_counts(ROLES.reshape(1, 20), [Role.IMAGE, Role.USER], cu_seqlens=torch.tensor([0, 10, 20]))
    assert packed.tolist() == [[2, 3], [0, 3]]


def test_an_empty_role_that_is_needed_raises_naming_row_and_role():
    require_roles(ROLES, [Role.SYSTEM, Role.USER])
    with pytest.raises(ValueError, match=r"row 1 has no IMAGE token"):
        require_roles(ROLES, [Role.SYSTEM, Role.IMAGE])
    with pytest.raises(ValueError, match=r"row 1 \(sample-7\) has no IMAGE token"):
        require_roles(ROLES, [Role.IMAGE], names=["sample-3", "sample-7"])
    with pytest.raises(ValueError, match=r"row 1 has no IMAGE token"):
        require_roles(ROLES.reshape(1, 20), [Role.IMAGE], cu_seqlens=torch.tensor([0, 10, 20]))
