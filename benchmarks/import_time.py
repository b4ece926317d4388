"""Time of `import mosaic_compile` in a fresh process, beside Python's own start.

Usage: python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys
import time


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    seconds("import mosaic_compile; mosaic_compile.kernel")
    empty = statistics.median(seconds("pass") for _ in range(15))
    ours = statistics.median(seconds("import mosaic_compile; mosaic_compile.kernel") for _ in range(15))
    print(f"python {empty:.3f} s, import mosaic_compile {ours - empty:.3f} s more (limit 0.3 s)")
