"""What the processor is asked for before Paddle is imported."""

import os

import pytest

from cait.machine.processor import AVX512, processor_fields, usable_cores, use_avx512_on_amd

FLAGS = " ".join(sorted(AVX512))


@pytest.mark.parametrize(
    "vendor, flags, expected",
    [
        ("AuthenticAMD", FLAGS, {"MKL_DEBUG_CPU_TYPE": "7"}),
        ("AuthenticAMD", FLAGS.replace("avx512dq", ""), {}),
        ("AuthenticAMD", "avx2", {}),
        ("GenuineIntel", FLAGS, {}),
    ],
)
def test_mkl_is_told_of_avx512_where_an_amd_processor_has_all_of_it(tmp_path, vendor, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n\nvendor_id\t: another\n")
    environment = {}
    use_avx512_on_amd(environment, tmp_path / "cpuinfo")
    assert environment == expected


def test_a_value_in_the_environment_stays(tmp_path):
    (tmp_path / "cpuinfo").write_text(f"vendor_id : AuthenticAMD\nflags : {FLAGS}\n")
    environment = {"MKL_DEBUG_CPU_TYPE": "5"}
    use_avx512_on_amd(environment, tmp_path / "cpuinfo")
    assert environment == {"MKL_DEBUG_CPU_TYPE": "5"}


def test_a_system_that_does_not_tell_changes_nothing(tmp_path):
    environment = {}
    use_avx512_on_amd(environment, tmp_path / "none")
    assert environment == {} and processor_fields(tmp_path / "none") == {}


def test_a_process_that_may_use_one_core_computes_with_one_thread():
    cores = os.sched_getaffinity(0)
    assert usable_cores() == len(cores)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, cores)
