"""What test_loss_terms.py and its worker say of the 8 rows of chat data that stand for rollouts: row i, token t."""

import torch

ROWS = 8
BOX = (0.0, 0.0, 0.5, 1.0)  # the evidence in each image: its left half
ROLLOUT = {
    "old_log_prob": lambda i, t: -5.2 + 0.4 * torch.sin(1.0 + i + 3.0 * t),
    "advantage": lambda i: (-1.0) ** i * (0.5 + 0.1 * i),
    "right": lambda i: i % 3 != 1,
}
