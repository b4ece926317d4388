"""`import mosaic_compile` is cheap: no back end, no framework."""

import subprocess
import sys


def test_import_brings_no_heavy_package():
    code = "import sys, mosaic_compile; print([m for m in ('torch', 'triton', 'jax', 'iree', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
