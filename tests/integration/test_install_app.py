"""tools/install_app.py, which makes the image and the environment of a service of systemd."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "install_app.py"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_the_application_is_put_into_the_environment_and_compiled(
    tmp_path: Path, method: str
) -> None:
    """However its workers are started: by a fork until Python 3.13, and no more since."""
    made = tmp_path / "environment"
    venv.create(made, symlinks=True)
    cli = tmp_path / "app" / "billing" / "cli.py"
    cli.parent.mkdir(parents=True)
    (cli.parent / "__init__.py").touch()
    cli.write_text("def main():\n    print('the application')\n", encoding="utf-8")
    as_the_image_does = (
        f"import multiprocessing, runpy, sys; multiprocessing.set_start_method({method!r});"
        f"sys.argv[0:] = [{str(TOOL)!r}, {str(tmp_path / 'app')!r}];"
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    )
    subprocess.run([made / "bin" / "python", "-c", as_the_image_does], check=True, timeout=60)
    said = subprocess.run(
        [made / "bin" / "maewol"], check=True, timeout=60, capture_output=True, text=True
    )
    assert said.stdout == "the application\n"
    (compiled,) = (cli.parent / "__pycache__").glob("cli.*.pyc")
    assert sys.implementation.cache_tag in compiled.name
