"""Tests that run compiled kernels; skipped where there is no CUDA GPU or no PyTorch with CUDA."""

import pytest


def pytest_collection_modifyitems(items):
    try:
        import torch

        available = torch.cuda.is_available()
    except ImportError:
        available = False
    skip = pytest.mark.skip(reason="needs PyTorch with a CUDA GPU")
    for item in items:
        if "tests/gpu" in str(item.path):
            item.add_marker(pytest.mark.gpu)
            if not available:
                item.add_marker(skip)
