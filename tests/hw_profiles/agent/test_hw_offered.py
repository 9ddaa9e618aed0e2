"""What an agent does about devices that were deleted on the server."""

from __future__ import annotations

import logging

import pytest

from hw_profiles.agent.offered import Offered
from hw_profiles.device import DeviceConfig

CONFIGS = [DeviceConfig("bench", "simulated", "simulated", "1", threads) for threads in (1, 2)]


@pytest.mark.parametrize("again", [False, True])
def test_the_others_stay_and_news_is_said_once(again: bool, caplog: pytest.LogCaptureFixture) -> None:
    offered = Offered(CONFIGS, again)
    offered.accepted(["dev_1", "dev_2"])
    with caplog.at_level(logging.WARNING):
        assert offered.removed(["dev_1"]) == [CONFIGS[0].name]
        assert offered.removed(["dev_1", "dev_of_another"]) == []
    assert len(caplog.records) == 1
    assert CONFIGS[0].name in caplog.text
    assert offered.ids == ("dev_2",)
    assert offered.config("dev_2") is CONFIGS[1]
    assert offered.missing.is_set() is again


def test_offered_again_they_have_the_ids_of_the_answer() -> None:
    offered = Offered(CONFIGS, again=True)
    offered.accepted(["dev_1", "dev_2"])
    offered.removed(["dev_2"])
    offered.accepted(["dev_1", "dev_3"])
    assert offered.ids == ("dev_1", "dev_3")
    assert not offered.missing.is_set()
