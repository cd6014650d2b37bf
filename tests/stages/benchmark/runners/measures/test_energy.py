"""The counters of energy, on a tree as Linux shows it."""

from pathlib import Path

import pytest

from stages.benchmark.runners.measures.energy import meter

RANGE = 262_143_328_850


def package(powercap: Path, place: str, name: str, count: int, span: int = RANGE) -> Path:
    folder = powercap / f"intel-rapl:{place}"
    folder.mkdir(parents=True)
    for file, content in {"name": name, "energy_uj": count, "max_energy_range_uj": span}.items():
        (folder / file).write_text(f"{content}\n")
    return folder / "energy_uj"


def test_joules_of_an_inference_are_those_of_all_packages_and_of_no_part_of_them(tmp_path: Path) -> None:
    counters = [package(tmp_path, str(i), f"package-{i}", 1_000_000 * (i + 1)) for i in range(2)]
    parts = [package(tmp_path, "0:0", "core", 5), package(tmp_path, "2", "psys", 7)]
    (tmp_path / "intel-rapl").mkdir()  # the control type lies beside its zones
    found = meter(tmp_path)
    before = found.read()
    for counter, count in zip([*counters, *parts], [4_000_000, 3_000_000, 10**9, 10**9], strict=True):
        counter.write_text(f"{count}\n")
    assert found.since(before, inferences=8) == {"joules": 0.5, "source": "RAPL: package-0, package-1"}


def test_a_counter_that_began_again_at_zero_lost_nothing(tmp_path: Path) -> None:
    counter = package(tmp_path, "0", "package-0", RANGE - 1_500_000)
    found = meter(tmp_path)
    before = found.read()
    counter.write_text("500000\n")
    assert found.since(before, inferences=1)["joules"] == pytest.approx(2.0)


def test_a_system_without_counters_says_so(tmp_path: Path) -> None:
    for powercap in (tmp_path, tmp_path / "absent"):
        found = meter(powercap)
        assert found.since(found.read(), 1) == {"reason": f"this system has no RAPL counters in {powercap}"}


def test_a_counter_that_cannot_be_read_is_a_reason_and_not_less_energy(tmp_path: Path) -> None:
    package(tmp_path, "0", "package-0", 1)
    package(tmp_path, "1", "package-1", 1).unlink()
    found = meter(tmp_path)
    assert "intel-rapl:1 tells no energy" in found.since(found.read(), 1)["reason"]


def test_a_counter_that_stands_still_is_no_zero(tmp_path: Path) -> None:
    package(tmp_path, "0", "package-0", 1)
    found = meter(tmp_path)
    assert "did not move" in found.since(found.read(), 1)["reason"]
