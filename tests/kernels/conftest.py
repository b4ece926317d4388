"""What the kernels' tests compile for this machine is kept for the run, for all its processes."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if folder.name.startswith("popen-") else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOSAIC_CACHE_DIR", str(shared / "kernels"))
        yield
