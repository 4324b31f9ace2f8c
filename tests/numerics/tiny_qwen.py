"""Random Qwen2-VL, Qwen2.5-VL and Qwen3-VL of a few thousand parameters and batches with images."""

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from avar_rl.attention.roles import Role, role_spans

PAD, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = 0, 3, 4, 5, 6
LAYERS = 3


FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

# Of the vision towers, all of patches of 14 pixels. Qwen3-VL adds visual features to the first layers too (deep-stack).
_VISION = {
    "qwen2_vl": dict(depth=1, embed_dim=32, hidden_size=64, mlp_ratio=1, num_heads=2),
    "qwen2_5_vl": dict(depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=64)
    | dict(window_size=56, fullatt_block_indexes=[0]),
    "qwen3_vl": dict(depth=2, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=64)
    | dict(num_position_embeddings=16, deepstack_visual_indexes=[0, 1]),
}


def make_model(implementation: str, family: str = "qwen2_5_vl", **vision) -> PreTrainedModel:
    """The same weights for every implementation; 4 query heads on 2 key heads. vision: changes of the vision tower."""
    torch.manual_seed(0)
    text = dict(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=PAD,
        initializer_range=0.2,  # attention far from uniform
        rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
    )
    config = AutoConfig.for_model(
        family,
        text_config=text | ({"head_dim": 16} if family == "qwen3_vl" else {}),
        vision_config=_VISION[family] | dict(patch_size=14, spatial_merge_size=2, temporal_patch_size=2) | vision,
        image_token_id=IMAGE_PAD,
        video_token_id=VIDEO_PAD,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )
    model = AutoModelForImageTextToText.from_config(config, attn_implementation=implementation)
    return model.eval()


def make_sequence(length: int, images: int, seed: int) -> tuple[dict, torch.Tensor]:
    """One sequence (T,): system text, `images` images of 4 pads each, user text, response; and its roles."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 100, (length,), generator=generator)
    roles = torch.full((length,), int(Role.RESPONSE), dtype=torch.int8)
    roles[0], roles[1:6] = Role.OTHER, Role.SYSTEM
    at = 6
    for _ in range(images):
        ids[at], ids[at + 1 : at + 5], ids[at + 5] = VISION_START, IMAGE_PAD, VISION_END
        roles[at], roles[at + 1 : at + 5], roles[at + 5] = Role.OTHER, Role.IMAGE, Role.OTHER
        at += 6
    roles[at : at + 5] = Role.USER
    pixels = torch.randn(16 * images, 1176, generator=generator)
    grid = torch.tensor([[1, 4, 4]]).expand(images, -1)
    return {"input_ids": ids, "pixel_values": pixels, "image_grid_thw": grid}, roles


def make_batch(padding: str = "right") -> tuple[dict, torch.Tensor]:
    """Model inputs of three sequences of different lengths and 1, 2 and 1 images, and the roles (B, T)."""
    sequences = three_sequences()
    width = 30

    def pad(x):
        fill = x.new_zeros(width - len(x))
        return torch.cat([fill, x] if padding == "left" else [x, fill])

    ids = torch.stack([pad(inputs["input_ids"]) for inputs, _ in sequences])
    mask = torch.stack([pad(torch.ones_like(inputs["input_ids"])) for inputs, _ in sequences])
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == IMAGE_PAD).long(),
        "pixel_values": torch.cat([inputs["pixel_values"] for inputs, _ in sequences]),
        "image_grid_thw": torch.cat([inputs["image_grid_thw"] for inputs, _ in sequences]),
    }
    return inputs, torch.stack([pad(roles) for _, roles in sequences])


def make_batch_of_one(length: int = 30, images: int = 2, seed: int = 2) -> tuple[dict, torch.Tensor]:
    """Without padding, so that sdpa runs its causal kernel and no mask."""
    inputs, roles = make_sequence(length, images, seed)
    ids = inputs["input_ids"][None]
    extra = {"attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == IMAGE_PAD).long()}
    return {**inputs, "input_ids": ids, **extra}, roles[None]


def spans_of(roles: torch.Tensor) -> torch.Tensor:
    return role_spans(roles, [Role.IMAGE, Role.SYSTEM])


def eager_masses(model, inputs: dict, roles: torch.Tensor) -> torch.Tensor:
    """(L, B, S, H, T) from the whole attention maps, 0 at padding queries."""
    with torch.no_grad():
        maps_LBHTT = torch.stack(model(**inputs, output_attentions=True).attentions)
    masses = torch.einsum("lbhqk,bsk->lbshq", maps_LBHTT, spans_of(roles).float())
    return masses * inputs["attention_mask"][None, :, None, None]


def packed(model, sequences) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """Sequences of `make_sequence`, packed as verl's engine does: model inputs, roles (1, nnz), cu_seqlens."""
    positions = []
    for inputs, _ in sequences:
        row = inputs["input_ids"][None]
        grid = inputs["image_grid_thw"] if len(inputs["image_grid_thw"]) else None
        types = (row == IMAGE_PAD).long()
        vision, _ = model.model.get_rope_index(row, mm_token_type_ids=types, image_grid_thw=grid)  # (3, 1, T)
        positions.append(torch.cat([torch.arange(row.shape[1])[None, None], vision]))
    inputs = {
        "input_ids": torch.cat([inputs["input_ids"] for inputs, _ in sequences])[None],
        "attention_mask": None,
        "position_ids": torch.cat(positions, dim=-1),  # (4, 1, nnz)
        "use_cache": False,
    }
    if any(len(one["pixel_values"]) for one, _ in sequences):
        inputs |= {name: torch.cat([one[name] for one, _ in sequences]) for name in ("pixel_values", "image_grid_thw")}
    lengths = torch.tensor([0, *(len(one["input_ids"]) for one, _ in sequences)])
    return inputs, torch.cat([roles for _, roles in sequences])[None], lengths.cumsum(0).int()


def three_sequences() -> list[tuple[dict, torch.Tensor]]:
    """Those of `make_batch`."""
    return [make_sequence(22, 1, 1), make_sequence(30, 2, 2), make_sequence(27, 1, 3)]


def alone(one: dict) -> dict:
    """Model inputs of one sequence of `make_sequence`, by itself."""
    ids = one["input_ids"][None]
    images = {name: value for name, value in one.items() if name != "input_ids" and len(value)}
    return {**images, "input_ids": ids, "mm_token_type_ids": (ids == IMAGE_PAD).long()}
