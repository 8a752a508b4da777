"""Where `tansaku index` encodes: which options go together, and what they become."""

from __future__ import annotations

import pytest

from tansaku import InputError, OnProcesses, OnRay
from tansaku.plugin.cli.workers import chosen_workers


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("local", None, None, None, 1), "local"),
        (("processes", 3, None, None, 1), OnProcesses(3)),
        (("ray", None, None, None, 1), OnRay()),
        (("ray", None, "auto", "4", 2), OnRay("auto", 4, 2)),
        (("ray", None, None, "2:16", 1), OnRay(None, (2, 16))),
    ],
)
def test_options_become_workers(given, expected):
    assert chosen_workers(*given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("local", 3, None, None, 1), "--processes is for --on processes"),
        (("processes", None, "auto", None, 1), "--address is for --on ray"),
        (("local", None, None, "4", 1), "--actors is for --on ray"),
        (("ray", None, None, "many", 1), "--actors is 'many'"),
        (("ray", None, None, "0", 1), "actors is 0"),
        (("ray", None, None, "3:2", 1), "the least must not be more than the most"),
        (("ray", None, None, None, 0), "actor_cpus is 0"),
        (("processes", 0, None, None, 1), "processes is 0"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        chosen_workers(*given)
