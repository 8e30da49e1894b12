"""Norms that also take one value a group or channel, which small maps and batches of one image give."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GroupNorm(nn.GroupNorm):
    """Of a single value a group, its bias is left; torch's module refuses that."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class BatchNorm2d(nn.BatchNorm2d):
    """In training, a single value a channel has no variance: it is normalised with the running statistics.

    They are those of inference, and are left as they are then. torch's module refuses a single value, and turns its
    statistics into NaN on an empty batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() <= self.num_features:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)
