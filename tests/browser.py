"""A browser without a window and without a network, for tests of pages; modules that import this are skipped without it."""

import contextlib
import shutil

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
if not (CHROME and DRIVER):
    pytest.skip("needs Chromium and chromedriver", allow_module_level=True)


def first_fast(pages):
    """Fixture parameters: the first page, and all others among the slow tests."""
    first, *others = pages
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


@contextlib.contextmanager
def browser(profile):
    """The driver of one; `profile` is a folder for what it keeps."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROME
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(option)
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")  # offline
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def loaded_from_elsewhere(driver):
    """Returns the addresses of the resources that the page loaded, without data URIs."""
    requests = driver.execute_script("return performance.getEntriesByType('resource').map(({name}) => name)")
    return [name for name in requests if not name.startswith("data:")]
