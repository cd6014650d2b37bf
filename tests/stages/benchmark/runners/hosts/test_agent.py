from pathlib import Path

from stages.benchmark.runners.hosts.agent import facts, sensors


def kernel(folder: Path, files: dict[str, str]) -> Path:
    """A folder with files as the kernel shows them."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_hottest_zone_and_the_fastest_core_are_told(tmp_path: Path) -> None:
    cpus = {
        f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_cur_freq": f"{clock}\n"
        for i, clock in ((0, 600000), (10, 2400000))
    }
    zones = {"sys/class/thermal/thermal_zone0/temp": "48312\n", "sys/class/thermal/thermal_zone1/temp": "51200\n"}
    broken = {"sys/class/thermal/thermal_zone2/temp": "none\n"}
    files = cpus | zones | broken | {"proc/loadavg": "0.52 0.40 0.30 1/100 1234\n"}
    assert sensors(kernel(tmp_path, files)) == {"temperature_c": 51.2, "clock_mhz": 2400, "load": 0.52}


def test_below_zero_is_a_temperature_too_and_what_is_not_told_is_none(tmp_path: Path) -> None:
    assert sensors(kernel(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "-1500"}))["temperature_c"] == -1.5
    assert sensors(tmp_path / "empty") == {"temperature_c": None, "clock_mhz": None, "load": None}
    assert facts(tmp_path / "empty")["model"] is None


def test_the_model_is_that_of_the_board_and_else_of_the_processor(tmp_path: Path) -> None:
    processor = {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Cortex-A76\n\nmodel name\t: Cortex-A76\n"}
    assert facts(kernel(tmp_path, processor))["model"] == "Cortex-A76"
    assert facts(kernel(tmp_path, {"proc/device-tree/model": "Board 5 Rev 1.0\0"}))["model"] == "Board 5 Rev 1.0"
