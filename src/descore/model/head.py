"""Map the hidden state at the query to rewards: r = W h (DESIGN 3).

Knows hidden states; knows nothing of tokens, videos, prompts or losses.

Shapes: B sequences, T tokens, D width, K named dimensions."""

import torch
from torch import Tensor, nn


class RewardHead(nn.Module):
    """A linear map without bias, one row for each named dimension, in float32 whatever the backbone's precision."""

    def __init__(self, width: int, *, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, width, dtype=torch.float32))
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Rewards (B, K), read at the last column, where the layout puts the query."""
        query_BD = hidden_BTD[:, -1].float()
        with torch.autocast(query_BD.device.type, enabled=False):
            return query_BD @ self.weight.T
