"""Where the browser of the page's tests comes from; without one the tests fail, they are never skipped."""

from dev.browser import PROGRAMS, find, why_not


def test_the_first_browser_that_is_there_is_taken() -> None:
    assert find({"chromium-browser": "/b", "google-chrome": "/c"}.get) == "/b"
    assert find(lambda _: None) is None


def test_who_cannot_install_one_is_told_what_to_install() -> None:
    assert why_not(is_root=True, has_apt=True) is None
    for root, apt in ((False, True), (True, False)):
        told = why_not(is_root=root, has_apt=apt)
        assert told is not None
        assert all(program in told for program in PROGRAMS)
