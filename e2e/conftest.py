"""One service that most tests share; those that stop or starve one start their own with `start`."""

import pytest

from service import Service


@pytest.fixture(scope="session")
def service():
    running = Service("--context", 1024)
    yield running
    alive = running.process.poll() is None
    said = running.said()
    running.stop()
    assert alive, f"the service died during the tests:\n{said[-4000:]}"


@pytest.fixture
def start():
    running = []

    def start(*arguments, **options):
        running.append(Service(*arguments, **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()
