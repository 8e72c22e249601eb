"""Classifiers with recurrent layers."""

from __future__ import annotations

import torch
from torch import nn


class Recurrent(nn.Module):
    """Words, layers of LSTM or GRU in one or both directions, the last step or all of them."""

    def __init__(self, layer=nn.LSTM, both=True, layers=2):
        super().__init__()
        self.words = nn.Embedding(30, 10)
        self.layers = layer(10, 7, num_layers=layers, batch_first=True, bidirectional=both)
        self.hidden, self.head = nn.Linear(14 if both else 7, 8), nn.Linear(8, 3)

    def forward(self, ids):
        x, _ = self.layers(self.words(ids))
        x = torch.relu(self.hidden(x))
        return self.head(x.mean(1) + x[:, -1])


class LastState(nn.Module):
    """The state that the layer ends in, of both directions."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(30, 10)
        self.layer = nn.LSTM(10, 7, batch_first=True, bidirectional=True)
        self.hidden, self.head = nn.Linear(14, 8), nn.Linear(8, 3)

    def forward(self, ids):
        _, (state, _) = self.layer(self.words(ids))
        return self.head(torch.relu(self.hidden(torch.cat([state[0], state[1]], 1))))
