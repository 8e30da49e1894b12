"""What the tests of inserted attention share."""

import pytest
import torch


@pytest.fixture
def image():
    torch.manual_seed(1)
    return torch.randn(2, 3, 96, 64)
