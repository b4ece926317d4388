"""Draws the results of benchmarks/gpu.py: how close each row comes to what the card's memory and matrix units reach.

python benchmarks/roofline.py results.json roofline.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

MARKERS = {"matmul": "o", "linear": "^", "attention": "D", "decode": "v"}


def draw(found: dict[str, Any], file: Path) -> None:
    """Rate over operations per byte, both measured, under the roof of the copy's bandwidth and cuBLAS's rate."""
    bandwidth, rate = found["limits"]["bytes"], found["limits"]["flops"]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    intensity = np.logspace(-0.5, 4, 200)
    axes.plot(intensity, np.minimum(intensity * bandwidth, rate) / 1e12, color="black", linewidth=1)
    for group, marker in MARKERS.items():
        rows = [r for r in found["results"] if r["group"] == group]
        for side, color in (("cuBLAS", "tab:gray"), ("cuDNN", "tab:gray"), ("ours", "tab:blue")):
            points = [
                (r["flops"] / r["bytes"], r["flops"] / r["seconds"][side])
                for r in rows
                if side in r["seconds"]
            ]
            if points:
                x, y = np.array(points).T
                label = f"{group}, {side}"
                axes.scatter(
                    x, y / 1e12, marker=marker, s=22, color=color, alpha=0.7, label=label, linewidths=0
                )
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="TFLOP/s")
    card, day = found["about"]["card"], found["about"]["date"]
    limits = f"copy {bandwidth / 1e12:.2f} TB/s, cuBLAS {rate / 1e12:.0f} TFLOP/s"
    axes.set_title(f"{card}, {day}: {limits}")
    axes.grid(True, which="major", linewidth=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A roofline plot of what benchmarks/gpu.py has measured.")
    parser.add_argument("results", type=Path)
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    draw(json.loads(options.results.read_text()), options.image)
