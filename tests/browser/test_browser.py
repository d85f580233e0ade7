"""The browser of these tests is a real one."""

from __future__ import annotations

from tests.browser.conftest import NewContext


def test_it_runs_scripts(new_context: NewContext) -> None:
    page = new_context().new_page()
    page.set_content("<p id=x></p><script>document.getElementById('x').textContent=1+1</script>")
    assert page.text_content("#x") == "2"
